"""The commands below ``fauno deploy``: ``local``, ``certificates``, ``key``, ``worker``."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fauno_flwr.cli.options import FAILED, Conf, Out, Overrides, results_path
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import SHARED, ConfigError, require_address


def local(
    overrides: Overrides = None,
    conf: Conf = "ether2",
    nodes: Annotated[
        int | None,
        typer.Option(
            help="SuperNodes, in a network of as many nodes with a link from each to each; "
            "default: one for each node that learns in the network of the preset.",
            min=2,
        ),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt; makes the certificates.")] = False,
    auth: Annotated[
        bool, typer.Option("--auth", help="Admit registered SuperNodes only; needs --tls.")
    ] = False,
    warm: Annotated[
        bool,
        typer.Option("--warm", help="Run messages in forks of a worker that has torch loaded."),
    ] = False,
    out: Out = None,
) -> None:
    """Deploy on this machine: SuperLink and SuperNodes as processes, one run, then stop all.

    Exit codes: 0 the run is complete, 1 it failed (or Flower did not start), 2 bad input, 128 + n
    stopped by signal n.
    """
    if auth and not tls:
        raise ConfigError("--auth is on and --tls is off: keys of SuperNodes need TLS, add --tls")
    # All nodes are ours: their actors may be gathered, unless the user says no.
    settings = ["training=deployment", "federation.collect_actors=true"]
    if nodes is not None:
        settings += ["topology=full20", f"topology.nodes={nodes}"]
    settings += overrides or []
    config = load_config(conf, settings)
    # Below the checks: who has mistyped a setting need not wait for torch.
    from fauno_flwr.cli.progress import Progress, keep_log, print_results, stop_on_signals
    from fauno_flwr.deployment.engine import EngineError, free_addresses, stage_app
    from fauno_flwr.deployment.local import Deployment
    from fauno_flwr.results.directory import RunDirectory
    from fauno_flwr.shared_world.table import format_status
    from fauno_flwr.tasks.registry import make_task

    served = config.world.kind == SHARED and not config.world.address
    if served:
        settings.append(f"world.address={free_addresses(1)[0]}")
        config = load_config(conf, settings)
    agents = len(make_task(config).names)
    if nodes is not None and agents != nodes:
        raise ConfigError(f"nodes is {nodes}: must be {agents}, the nodes that learn here")
    path = results_path(out, "deploy")
    RunDirectory.check(path)
    if Path(conf).suffix:
        conf = str(Path(conf).absolute())
    run_config = {"conf": conf, "overrides": shlex.join(settings), "out": str(path)}
    joint = path / "world.json"
    world = world_arguments(conf, settings, config.world.address, joint) if served else []
    stop_on_signals()

    def tell(sentence: str) -> None:
        typer.echo(sentence, err=True)

    try:
        with Deployment(
            agents, tls=tls, auth=auth, world=world, warm=warm, tell=tell
        ) as deployment:
            how = ("TLS" if tls else "no TLS") + (", registered keys only" if auth else "")
            tell(f"SuperLink on {deployment.address} ({how}), logs in {deployment.home}")
            for service in deployment.services.values():
                tell(f"  {service.name}: process {service.process.pid}")
            run_id = deployment.submit_run(stage_app(deployment.home / "app"), run_config)
            tell(f"run {run_id}, results in {path}; fauno status {shlex.quote(str(path))} tells")
            follow = Progress(path, agents, config)
            status, details = follow.until_the_end(lambda: deployment.status(run_id))
            if status != "finished:completed":
                log = keep_log(path, deployment.run_log(run_id) + deployment.tail(100_000))
                raise EngineError(f"the run ended as {status}: {details} (log: {log})")
    except EngineError as error:
        typer.echo(f"fauno: {error}", err=True)
        raise typer.Exit(FAILED) from None
    print_results(path, config)
    if served and joint.exists():
        typer.echo(f"\nthe shared world:\n{format_status(json.loads(joint.read_text()))}")


def world_arguments(conf: str, settings: list[str], address: str, out: Path) -> list[str]:
    """Arguments of ``fauno world serve`` for the world that a run with these settings shares."""
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
    typer.echo(f"for the SuperLink alone: {made.certificate} {made.key}")
    typer.echo(f"for everybody:           {made.authority}")


def key(
    path: Annotated[Path, typer.Argument(help="Of the private key; the public one gets .pub.")],
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
    """Run a SuperNode's messages in forks of one process, which has loaded their libraries.

    For a SuperNode with --isolation process --superexec-auth-secret-file FILE. It relies on
    internals of Flower 1.41.
    """
    try:
        require_address("address", address)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    secret = secret_file.expanduser()
    if not secret.is_file():
        raise ConfigError(f"secret-file is {str(secret)!r}: must be a file")
    # Not in this process: the forks must find no module of the app loaded.
    script = str(Path(__file__).parents[1] / "deployment" / "warm_worker.py")
    options = ["--insecure", "--runtime-api-address", address]
    options += ["--superexec-auth-secret-file", str(secret)]
    os.execv(sys.executable, [sys.executable, "-P", script, *options])
