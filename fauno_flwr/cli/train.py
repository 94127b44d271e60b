"""The command ``fauno train``."""

import time
from pathlib import Path

import typer

from fauno_flwr.cli.options import Conf, Out, Overrides, results_path
from fauno_flwr.cli.progress import Progress
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import OWN


def train(
    overrides: Overrides = None,
    conf: Conf = "ether2",
    out: Out = None,
) -> None:
    """Train all nodes in one shared network under virtual time, and print the comparison."""
    settings = ["federation.collect_actors=true", *(overrides or [])]
    config = load_config(conf, settings, "train")
    if config.world.kind != OWN:
        raise ConfigError(
            f"world.kind is {config.world.kind!r}: must be {OWN} here, where the nodes share a "
            f"simulated network anyway"
        )
    scenario = config.build_scenario()
    try:
        config.cosim.slowdowns(scenario.topology.names)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    import torch

    from fauno_flwr.cosim.grid import CosimGrid
    from fauno_flwr.federation.logs import quiet_flower
    from fauno_flwr.federation.run import Run
    from fauno_flwr.results.directory import RunDirectory, require_folder
    from fauno_flwr.results.report import format_table
    from fauno_flwr.tasks.edge import EdgeTask
    from fauno_flwr.tasks.heuristics import find_heuristics
    from fauno_flwr.tasks.memory import require_training

    find_heuristics("evaluation.policies", config.evaluation.policies)
    require_training(config, scenario, len(scenario.agents))
    require_folder("federation.checkpoints", config.federation.checkpoints)
    path = results_path(out, Path(conf).stem)
    directory = RunDirectory(path)
    torch.set_num_threads(1)
    agents = len(scenario.agents)
    typer.echo(f"{agents} nodes learn, offered load rho = {scenario.rho:.3f}; results in {path}")
    try:
        grid = CosimGrid(config, scenario)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    progress = Progress(agents, config.federation.versions)
    run = Run(grid, config, EdgeTask(config, scenario), directory, progress)
    started = time.perf_counter()
    with quiet_flower():
        rows = run.execute()
    progress.clear()
    typer.echo(format_table(rows, scenario.rho, config.evaluation.worlds))
    steps = grid.world.now * grid.world.num_worlds * agents
    typer.echo(
        f"\n{grid.clock.monotonic():.0f} s of virtual time in {time.perf_counter() - started:.0f} "
        f"s; {steps:,} agent-steps; results in {path}"
    )
