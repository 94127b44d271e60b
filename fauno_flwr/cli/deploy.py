"""The commands below ``fauno deploy``: ``local``, ``certificates``, ``key``, ``worker``."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fauno_flwr.cli.options import FAILED, Conf, Out, Overrides, results_folder
from fauno_flwr.cli.report import WithReport, report_at_end
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import absolute_overrides, load_config
from fauno_flwr.config.settings import SHARED, RunConfig, require_address
from fauno_flwr.deployment.engine import EngineError, free_addresses

if TYPE_CHECKING:
    from fauno_flwr.deployment.local import Deployment


def local(
    overrides: Overrides = None,
    conf: Conf = "ether2",
    nodes: Annotated[
        int | None,
        typer.Option(
            help="SuperNodes, in a network of that size in which every node is linked to every "
            "other; default: one for each node that learns in the network of the preset.",
            min=2,
        ),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt, with new certificates.")] = False,
    auth: Annotated[
        bool, typer.Option("--auth", help="Admit registered SuperNodes only; needs --tls.")
    ] = False,
    warm: Annotated[
        bool,
        typer.Option(
            help="Run messages in forks of a worker that has their libraries loaded; else each in "
            "a new process, as Flower does."
        ),
    ] = True,
    out: Out = None,
    with_report: WithReport = True,
) -> None:
    """Deploy on this machine: SuperLink and SuperNodes as processes, one run, then stop all.

    Exit codes: 0 the run is complete, 1 it failed (or Flower did not start), 2 bad input, 128 + n
    stopped by signal n.
    """
    if auth and not tls:
        raise ConfigError("--auth is on and --tls is off: keys of SuperNodes need TLS, add --tls")
    # All nodes are the user's own: their actors may be collected.
    settings = ["training=deployment", "federation.collect_actors=true"]
    if nodes is not None:
        settings += ["topology=full20", f"topology.nodes={nodes}"]
    settings += absolute_overrides(overrides or [])
    config = load_config(conf, settings, "deploy local")
    path = results_folder(out, "deploy")
    hosts_world = config.world.kind == SHARED and not config.world.address
    if hosts_world:
        settings.append(f"world.address={free_addresses(1)[0]}")
        config = load_config(conf, settings)
    scenario = config.build_network()
    # After the settings are checked: importing torch takes seconds.
    from fauno_flwr.cli.flower_run import print_results, run_config, stop_on_signals
    from fauno_flwr.deployment.local import Deployment
    from fauno_flwr.federation.checkpoints import agents_folder, require_own_checkpoints
    from fauno_flwr.learning.kernels import compile_kernels
    from fauno_flwr.shared_world.table import format_status
    from fauno_flwr.tasks.heuristics import find_heuristics
    from fauno_flwr.tasks.memory import require_training
    from fauno_flwr.tasks.registry import task_in
    from fauno_flwr.tasks.start import first_version

    find_heuristics("evaluation.policies", config.evaluation.policies)
    task = task_in(config, scenario)
    require_training(config, scenario, 1)
    agents = len(task.names)
    if nodes is not None and agents != nodes:
        raise ConfigError(f"nodes is {nodes}: must be {agents}, the nodes that learn here")
    require_own_checkpoints(config)
    config.federation.privacy.build(None)  # fails here, not on the server, if it cannot be counted
    first_version(config, task.make_population(1))
    saved = agents_folder(config) if config.federation.checkpoints else None
    submitted, joint = run_config(conf, settings, path), path / "world.json"
    world: list[str] = []
    if hosts_world:
        world = world_arguments(submitted["conf"], settings, config.world.address, joint)
    deployment = Deployment(
        agents, tls=tls, auth=auth, world=world, warm=warm, agents=saved, report=_print_line
    )
    if scenario is not None:
        compile_kernels(config, scenario)
    try:
        with stop_on_signals(path), deployment:
            _run(deployment, submitted, path, config)
    except EngineError as error:
        _print_line(f"fauno: {error}")
        raise typer.Exit(FAILED) from None
    report_at_end(path, with_report)
    print_results(path, config)
    if joint.exists():
        typer.echo(f"\nthe shared world:\n{format_status(json.loads(joint.read_text()))}")


def _run(
    deployment: "Deployment", submitted: dict[str, str], path: Path, config: RunConfig
) -> None:
    """Submit a run to a deployment and wait until it is complete."""
    from fauno_flwr.cli.flower_run import wait_for_run
    from fauno_flwr.deployment.engine import stage_app

    secured = "TLS" if deployment.tls else "no TLS"
    if deployment.auth:
        secured += ", registered keys only"
    _print_line(f"SuperLink on {deployment.address} ({secured}), logs in {deployment.home}")
    for service in deployment.services.values():
        _print_line(f"  {service.name}: process {service.process.pid}")
    run_id = deployment.submit_run(stage_app(deployment.home / "app"), submitted)
    _print_line(f"run {run_id}, results in {path}; see also fauno status {shlex.quote(str(path))}")
    wait_for_run(deployment, run_id, path, deployment.nodes, config)


def _print_line(line: str) -> None:
    typer.echo(line, err=True)


def world_arguments(conf: str, settings: list[str], address: str, out: Path) -> list[str]:
    """Return arguments of ``fauno world serve`` for the world of a run with these settings."""
    port = address.rpartition(":")[2]
    return ["--conf", conf, "--port", port, "--out", str(out), *settings]


def certificates(
    hosts: Annotated[
        list[str], typer.Argument(help="Names and addresses under which the SuperLink is reached.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for ca.crt, server.pem and server.key.")],
    days: Annotated[int, typer.Option(help="Validity.", min=1, max=36500)] = 825,
) -> None:
    """Make a certificate for a SuperLink, and the authority that its clients trust."""
    from fauno_flwr.deployment.keys import write_certificates

    made = write_certificates(hosts, out.expanduser().absolute(), days)
    typer.echo(f"for the SuperLink only: {made.certificate} {made.key}")
    typer.echo(f"for every client:       {made.authority}")


def key(
    path: Annotated[
        Path, typer.Argument(help="File for the private key; the public one gets .pub appended.")
    ],
) -> None:
    """Make the key pair of a SuperNode; register its public key at the SuperLink."""
    from fauno_flwr.deployment.keys import write_node_key

    public = write_node_key(path.expanduser().absolute())
    typer.echo(f"flwr supernode register {shlex.quote(str(public))} <superlink>")


def worker(
    address: Annotated[
        str, typer.Argument(help="HOST:PORT that the SuperNode gives its ClientApps.")
    ],
    secret_file: Annotated[
        Path, typer.Option(help="File with the secret that the SuperNode was given.")
    ],
) -> None:
    """Run a SuperNode's messages in forks of one process that has their libraries loaded.

    For a SuperNode with --isolation process --superexec-auth-secret-file FILE. It relies on
    internals of Flower, tested with 1.41 and 1.42, and ends with a sentence if they are others.
    """
    try:
        require_address("address", address)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    secret = secret_file.expanduser()
    if not secret.is_file():
        raise ConfigError(f"secret-file is {str(secret)!r}: must be a file")
    # A process of its own: its forks must not find modules of the app already loaded.
    script = str(Path(__file__).parents[1] / "deployment" / "warm_worker.py")
    options = ["--insecure", "--runtime-api-address", address]
    options += ["--superexec-auth-secret-file", str(secret)]
    # Its forks would inherit no thread of OpenMP or OpenBLAS, only their locks.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, "-P", script, *options], environment)
