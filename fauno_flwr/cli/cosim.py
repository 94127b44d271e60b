"""The commands ``fauno train`` and ``fauno evaluate``: co-simulation, and what came out of it."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fauno_flwr.cli.options import Conf, Out, Overrides, results_path
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import OWN, RunConfig
from sim_env.policies.heuristics import POLICIES, Policy

if TYPE_CHECKING:
    from sim_env.scenario import Scenario

CLEAR = "\r\033[K"  # the line of a terminal


def train(
    overrides: Overrides = None,
    conf: Conf = "ether2",
    out: Out = None,
) -> None:
    """Train all nodes in one shared network under virtual time, and print the comparison."""
    config = load_config(conf, ["federation.collect_actors=true", *(overrides or [])])
    if config.world.kind != OWN:
        raise ConfigError(
            f"world.kind is {config.world.kind!r}: must be {OWN} here, where the nodes share a "
            f"simulated network anyway"
        )
    scenario = config.build_scenario()
    import torch

    from fauno_flwr.cosim.grid import CosimGrid
    from fauno_flwr.federation.quiet import quiet_flower
    from fauno_flwr.federation.run import Run
    from fauno_flwr.results.directory import RunDirectory
    from fauno_flwr.results.report import format_table
    from fauno_flwr.tasks.edge import EdgeTask

    path = results_path(out, Path(conf).stem)
    directory = RunDirectory(path)
    torch.set_num_threads(1)
    typer.echo(
        f"{len(scenario.agents)} nodes learn, offered load rho = {scenario.rho:.3f}; "
        f"results in {path}"
    )
    try:
        grid = CosimGrid(config, scenario)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    progress = Progress(config.federation.versions)
    run = Run(grid, config, EdgeTask(config, scenario), directory, progress)
    started = time.perf_counter()
    with quiet_flower():
        rows = run.execute()
    typer.echo(format_table(rows, scenario.rho, config.evaluation.worlds))
    steps = grid.world.now * grid.world.num_worlds * len(scenario.agents)
    typer.echo(
        f"\n{grid.clock.monotonic():.0f} s of virtual time in {time.perf_counter() - started:.0f} "
        f"s; {steps:,} agent-steps; results in {path}"
    )


class Progress:
    """Tells how far a training is, from the events of its server.

    Parameters
    ----------
    versions : int
        Versions to be made.
    """

    EVERY = 5.0  # seconds between two lines where there is no terminal

    def __init__(self, versions: int) -> None:
        self.versions, self.started, self.told = versions, time.monotonic(), 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take in an event."""
        live, now = sys.stderr.isatty(), time.monotonic()
        if event["event"] == "stage":
            typer.echo(
                f"\r\033[K{event['stage']} ..." if live else f"{event['stage']} ...", err=True
            )
            self.started = now if event["stage"] == "training" else self.started
        elif event["event"] == "flush" and (live or now - self.told > self.EVERY):
            done = event["version"]
            left = (now - self.started) / done * (self.versions - done)
            text = f"version {done}/{self.versions}, {event['t']:.0f} s virtual, {left:.0f} s left"
            typer.echo(f"{CLEAR if live else ''}{text}", err=True, nl=not live)
            self.told = now


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run whose actors were collected.")],
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the tables (JSON, CSV) and the figure.")
    ] = None,
) -> None:
    """Evaluate the actors of a run, in its own network or in another one (topology=ether4)."""
    settings = run.expanduser() / "config.yaml"
    source = load_config(str(settings))
    config = load_config(str(settings), overrides or [])
    scenario = config.build_scenario()
    from fauno_flwr.cli.comparison import compare_policies
    from fauno_flwr.learning.policy import FAUNO
    from fauno_flwr.results.directory import RunDirectory

    fauno = load_policy(run.expanduser(), source, config, scenario)
    directory = RunDirectory(out.expanduser().absolute()) if out else None
    names = dict.fromkeys(config.evaluation.policies)
    policies: dict[str, Policy] = {FAUNO: fauno, **{name: POLICIES[name] for name in names}}
    compare_policies(config, scenario, policies, directory)


def load_policy(run: Path, source: RunConfig, config: RunConfig, scenario: "Scenario") -> Policy:
    """The actors of a run as a policy for a network.

    A node that the run's network has too gets its own actor; any other gets that of a node of the
    same role, drawn by the seed.

    Parameters
    ----------
    run : Path
        Folder of the run.
    source, config : RunConfig
        Settings of the run, and of the evaluation.
    scenario : Scenario
        The compiled world of `config`.

    Raises
    ------
    ConfigError
        If there are no actors, if they do not fit, or if no node of a role has one.
    """
    import numpy as np
    from safetensors.numpy import load_file

    from fauno_flwr.learning.registry import make_population
    from sim_env.network.topology import build_topology

    path = run / "checkpoints" / "actors.safetensors"
    if not path.is_file():
        raise ConfigError(
            f"{str(run)!r} holds no actors: train with federation.collect_actors=true"
        )
    actors: dict[str, dict[str, np.ndarray]] = {}
    for key, array in load_file(path).items():
        node, name = key.split(".", 1)
        actors.setdefault(node, {})[name] = array
    trained = build_topology(source.topology)
    role_of = dict(zip(trained.names, trained.roles, strict=True))
    topology, rng = scenario.topology, np.random.default_rng(config.seed)
    population = make_population(len(scenario.agents), config, scenario)
    for agent, n in enumerate(scenario.agents):
        name, role = topology.names[n], topology.roles[n]
        same = sorted(node for node in actors if role_of.get(node) == role)
        if not same:
            raise ConfigError(f"no node of the run has the role {role} of {name}: cannot transfer")
        chosen = name if role_of.get(name) == role and name in actors else str(rng.choice(same))
        try:
            population.set_actor(actors[chosen], agent)
        except ValueError as error:
            raise ConfigError(f"the actors of the run do not fit: {error}") from error
    return population.policy(scenario.agent_of_node, config.evaluation.greedy)
