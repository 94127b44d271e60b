"""The command ``fauno train``."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fauno_flwr.cli.options import FAILED, Conf, Out, Overrides, read_seeds, results_folder
from fauno_flwr.cli.report import WithReport, report_at_end
from fauno_flwr.cli.signals import Stopped, StopRequest, unwinding
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import OWN, RunConfig


def train(
    overrides: Overrides = None,
    conf: Conf = "ether2",
    out: Out = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Train several times: a number of seeds (5, counted from the setting seed) or the "
            "seeds (1,2,3), each in a folder of its own; the same command resumes if stopped."
        ),
    ] = None,
    with_report: WithReport = True,
) -> None:
    """Train all nodes in one shared network under virtual time, and print the comparison."""
    settings = ["federation.collect_actors=true", *(overrides or [])]
    config = load_config(conf, settings, "train")
    if config.world.kind != OWN:
        raise ConfigError(
            f"world.kind is {config.world.kind!r}: must be {OWN} here, where the nodes share a "
            f"simulated network anyway"
        )
    if seeds is None:
        folder = results_folder(out, Path(conf).stem)
        train_once(config, folder)
        report_at_end(folder, with_report)
        return
    numbers = read_seeds(seeds, config.seed)
    from fauno_flwr.cli.seeds import train_seeds

    # A folder that was asked for may hold finished trainings of the same command.
    path = out.expanduser().absolute() if out else results_folder(None, Path(conf).stem)

    def train_one(config: RunConfig, folder: Path) -> None:
        train_once(config, folder)
        report_at_end(folder, with_report)

    train_seeds(config, numbers, path, train_one)
    report_at_end(path, with_report)


def train_once(config: RunConfig, path: Path) -> None:
    """Train with these settings, and print the comparison; the results go to a new folder."""
    scenario = config.build_scenario()
    try:
        config.cosim.slowdowns(scenario.topology.names)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    import torch

    from fauno_flwr.cli.progress import Progress
    from fauno_flwr.cosim.gossip import make_grid
    from fauno_flwr.federation.checkpoints import require_own_checkpoints
    from fauno_flwr.federation.failures import RunFailedError
    from fauno_flwr.federation.logs import quiet_flower
    from fauno_flwr.federation.run import Run
    from fauno_flwr.results.directory import RunDirectory
    from fauno_flwr.results.report import format_table
    from fauno_flwr.tasks.edge import EdgeTask
    from fauno_flwr.tasks.heuristics import find_heuristics
    from fauno_flwr.tasks.memory import require_training
    from fauno_flwr.tasks.start import first_version

    find_heuristics("evaluation.policies", config.evaluation.policies)
    require_training(config, scenario, len(scenario.agents))
    require_own_checkpoints(config)
    cores = len(os.sched_getaffinity(0))
    task = EdgeTask(config, scenario, threads=cores)
    first_version(config, task.make_population(1))
    directory = RunDirectory(path)
    torch.set_num_threads(1)
    agents = len(scenario.agents)
    typer.echo(f"{agents} nodes learn, offered load rho = {scenario.rho:.3f}; results in {path}")
    try:
        # A core is left to the world, which is mostly what the others wait for.
        grid = make_grid(config, scenario, threads=cores - 1)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    progress, request = Progress(agents, config.federation.versions), StopRequest()
    begun: dict[str, float] = {}  # of each stage

    def on_event(event: Mapping[str, Any]) -> None:
        progress(event)
        if event["event"] == "stage":
            begun[event["stage"]] = time.perf_counter()
        request.check()

    run = Run(grid, config, task, directory, on_event)
    started = time.perf_counter()
    try:
        with unwinding(request), quiet_flower():
            rows = run.execute()
    except Stopped:
        version = run.keep_actors()
        typer.echo(f"fauno: version {version} of the parameters is kept in {path}", err=True)
        raise
    except RunFailedError as error:
        typer.echo(f"fauno: {error}", err=True)
        raise typer.Exit(FAILED) from None
    finally:
        progress.clear()
    typer.echo(format_table(rows, scenario.rho, config.evaluation.worlds))
    steps = grid.world.now * grid.world.num_worlds * agents
    ended = time.perf_counter()
    typer.echo(
        f"\n{grid.clock.monotonic():.0f} s of virtual time in {ended - started:.0f} "
        f"s of wall-clock time; {steps:,} agent-steps; results in {path}\n"
        f"{where_time_goes(grid.seconds, grid.seconds_beside, begun, ended)}"
    )


def where_time_goes(
    spent: Mapping[str, float], beside: float, begun: Mapping[str, float], ended: float
) -> str:
    """Return one line that says what a training has spent its wall-clock time on.

    Parameters
    ----------
    spent : mapping of str to float
        Seconds of the stage ``training`` by what they were spent on.
    beside : float
        Seconds of learning in threads.
    begun : mapping of str to float
        When each stage began.
    ended : float
    """
    training = begun["collecting"] - begun["training"]
    parts = {
        **spent,
        "network, messages and merging": training - sum(spent.values()),
        "evaluation": begun["done"] - begun["evaluating"],
        "table, figures and replay": ended - begun["done"],
    }
    line = "; ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
    return f"{line}; beside it, learning in threads {beside:.1f} s" if beside else line
