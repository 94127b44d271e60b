"""The command ``fauno evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fauno_flwr.cli.options import Overrides, Tables
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig

if TYPE_CHECKING:
    from fauno_flwr.learning.agents import Arrays
    from sim_env.policies.heuristics import Policy
    from sim_env.scenario import Scenario


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run whose actors were collected.")],
    overrides: Overrides = None,
    out: Tables = None,
) -> None:
    """Evaluate the actors of a run, in its own network or in another one (topology=ether4)."""
    folder = run.expanduser()
    settings = str(folder / "config.yaml")
    source, config = load_config(settings), load_config(settings, overrides or [])
    scenario = config.build_scenario()
    from fauno_flwr.cli.comparison import compare_policies
    from fauno_flwr.learning.policy import FAUNO
    from fauno_flwr.results.directory import RunDirectory
    from fauno_flwr.tasks.heuristics import find_heuristics

    heuristics = find_heuristics("evaluation.policies", config.evaluation.policies)
    fauno = load_policy(folder, source, config, scenario)
    directory = RunDirectory(out.expanduser().absolute()) if out else None
    compare_policies(config, scenario, {FAUNO: fauno, **heuristics}, directory)


def load_policy(run: Path, source: RunConfig, config: RunConfig, scenario: "Scenario") -> "Policy":
    """Make a policy for a network of the actors of a run.

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
    from fauno_flwr.tasks.transfer import make_trained, transfer
    from sim_env.network.topology import build_topology

    actors = read_actors(run)
    trained = build_topology(source.topology)
    role_of = dict(zip(trained.names, trained.roles, strict=True))
    try:
        found = transfer(actors, role_of, scenario, config.seed)
        population = make_trained(found, config, scenario)
    except ValueError as error:
        raise ConfigError(f"the actors of the run do not fit: {error}") from error
    return population.policy(scenario.agent_of_node, config.evaluation.greedy)


def read_actors(run: Path) -> dict[str, "Arrays"]:
    """Read the actors of a run, by node in the order of names; raise ``ConfigError`` if none."""
    from safetensors.numpy import load_file

    path = run / "checkpoints" / "actors.safetensors"
    if not path.is_file():
        raise ConfigError(
            f"{str(run)!r} holds no actors: train with federation.collect_actors=true"
        )
    actors: dict[str, Arrays] = {}
    for key, array in load_file(path).items():
        node, name = key.split(".", 1)
        actors.setdefault(node, {})[name] = array
    return dict(sorted(actors.items()))
