"""The command ``fauno evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from fauno_flwr.cli.options import Best, Overrides, Tables, results_folder
from fauno_flwr.config.loading import load_config


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run whose actors were collected.")],
    overrides: Overrides = None,
    out: Tables = None,
    best: Best = False,
    any_role: Annotated[
        bool,
        typer.Option(
            "--any-role", help="Nodes of roles that were not trained get the actors of any node."
        ),
    ] = False,
) -> None:
    """Evaluate the actors of a run, in its own network or in another one (topology=ether4)."""
    folder = run.expanduser()
    tables = results_folder(out, "evaluate") if out else None
    from fauno_flwr.cli.comparison import compare_policies
    from fauno_flwr.learning.policy import FAUNO
    from fauno_flwr.results.directory import RunDirectory
    from fauno_flwr.tasks.heuristics import find_heuristics
    from fauno_flwr.tasks.trained import read_actors, read_settings, transferred

    source = read_settings(folder)
    actors = read_actors(folder, best=best)
    config = load_config(str(folder / "config.yaml"), overrides or [], "evaluate")
    scenario = config.build_scenario()
    heuristics = find_heuristics("evaluation.policies", config.evaluation.policies)
    agents = transferred(source, actors, config, scenario, config.seed, any_role=any_role)
    fauno = agents.policy(scenario.agent_of_node, config.evaluation.greedy)
    directory = RunDirectory(tables) if tables else None
    compare_policies(config, scenario, {FAUNO: fauno, **heuristics}, directory)
