"""The command ``fauno``."""

import os
import shlex
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from fauno_flwr.cli import deploy as deploy_command
from fauno_flwr.cli import world as world_command
from fauno_flwr.cli.cosim import evaluate, train
from fauno_flwr.cli.experiment import experiment
from fauno_flwr.cli.metrics import metrics
from fauno_flwr.cli.options import BAD_INPUT, FAILED, Conf, Out, Overrides, results_path
from fauno_flwr.cli.peersimgym import peersimgym
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.results.status import status
from sim_env.errors import require_choice
from sim_env.policies.heuristics import POLICIES

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
deploy = typer.Typer(no_args_is_help=True, help="Deployments: SuperLink, SuperNodes, TLS, keys.")
app.add_typer(deploy, name="deploy")
world = typer.Typer(no_args_is_help=True, help="One world that all nodes share, as a service.")
app.add_typer(world, name="world")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"fauno-flwr {version('fauno-flwr')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Asynchronous federated reinforcement learning of task offloading (FAuNO) on Flower."""


def command(function: Callable[..., None], group: typer.Typer = app) -> Callable[..., None]:
    """Register a command; bad input becomes one sentence and exit code 2."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except ConfigError as error:
            typer.echo(f"fauno: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from None

    group.command()(guarded)
    return guarded


@command
def simulate(
    overrides: Overrides = None,
    conf: Conf = "ether2",
    out: Out = None,
    workers: Annotated[
        int | None, typer.Option(help="Nodes that train at once; default: one per core.", min=1)
    ] = None,
) -> None:
    """Train a federation through Flower's simulation engine and print the comparison."""
    # All nodes of a simulation are ours: their actors may be gathered, unless the user says no.
    overrides = ["federation.collect_actors=true", *(overrides or [])]
    config = load_config(conf, overrides)
    # Below the checks: who has mistyped a setting need not wait for torch.
    from fauno_flwr.cli.progress import Progress, keep_log, print_results, stop_on_signals
    from fauno_flwr.deployment.engine import Engine, EngineError, stage_app
    from fauno_flwr.results.directory import RunDirectory
    from fauno_flwr.tasks.registry import make_task

    task = make_task(config)
    path = results_path(out, Path(conf).stem)
    RunDirectory.check(path)
    agents, cores = len(task.names), len(os.sched_getaffinity(0))
    typer.echo(f"{agents} nodes learn, {task.describe()}; results in {path}")
    stop_on_signals()
    if Path(conf).suffix:
        conf = str(Path(conf).absolute())
    run_config = {"conf": conf, "overrides": shlex.join(overrides), "out": str(path)}
    try:
        with Engine() as engine:
            staged = stage_app(engine.home / "app")
            run_id = engine.submit(staged, run_config, agents, min(agents, workers or cores))
            follow = Progress(path, agents, config)
            status, details = follow.until_the_end(lambda: engine.status(run_id))
            if status != "finished:completed":
                log = keep_log(path, engine.run_log(run_id) + engine.tail(100_000))
                raise EngineError(f"the run ended as {status}: {details} (log: {log})")
    except EngineError as error:
        typer.echo(f"fauno: {error}", err=True)
        raise typer.Exit(FAILED) from None
    print_results(path, config)


@command
def compare(
    overrides: Overrides = None,
    scenario: Conf = "ether2",
    policies: Annotated[
        str | None, typer.Option(help="Heuristics, separated by commas; default: all.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Worlds with different arrivals; default: 16.", min=1)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the tables (JSON, CSV) and the figure.")
    ] = None,
) -> None:
    """Compare heuristics on the same arrivals, without Flower."""
    extra = [] if seeds is None else [f"evaluation.worlds={seeds}"]
    if policies is not None:
        names = [name.strip() for name in policies.split(",")]
        for name in names:
            _require_policy(name)
        extra.append(f"evaluation.policies=[{','.join(names)}]")
    config = load_config(scenario, [*(overrides or []), *extra])
    names = list(dict.fromkeys(config.evaluation.policies))
    if not names:
        raise ConfigError(f"evaluation.policies is []: must be some of {', '.join(POLICIES)}")
    world = config.build_scenario()
    from fauno_flwr.cli.comparison import compare_policies
    from fauno_flwr.results.directory import RunDirectory

    directory = RunDirectory(out.expanduser().absolute()) if out else None
    compare_policies(config, world, {name: POLICIES[name] for name in names}, directory)


def _require_policy(name: str) -> None:
    try:
        require_choice("policies", name, POLICIES)
    except ValueError as error:
        raise ConfigError(str(error)) from error


command(train)
command(evaluate)
command(experiment)
command(peersimgym)
command(status)
command(metrics)
for _subcommand in (
    deploy_command.local,
    deploy_command.certificates,
    deploy_command.key,
    deploy_command.worker,
):
    command(_subcommand, deploy)
command(world_command.serve, world)
command(world_command.status, world)


@command
def prepare() -> None:
    """Compile the kernels once for this machine, so that no run has to."""
    import numpy as np

    from fauno_flwr.config.agent import PPOConfig
    from fauno_flwr.learning.ppo import Population
    from sim_env.engine.compilation import cache_root
    from sim_env.world import World

    world = World("ether2", [0])
    world.run(POLICIES["sed"], 100, np.random.default_rng(0))
    Population(1, PPOConfig(), 0).policy().drive(world, 100)
    while not len(seen := world.observe()):
        world.step(np.zeros((1, world.num_nodes), np.int32))
    seen.features()
    typer.echo(f"compiled kernels are in {cache_root()}")
