"""The command ``fauno compare``."""

from typing import Annotated

import typer

from fauno_flwr.cli.options import Conf, Overrides, Tables, joined, results_folder, split_names
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import require_different
from sim_env.policies.heuristics import BUILT_IN


def compare(
    overrides: Overrides = None,
    conf: Conf = "ether2",
    policies: Annotated[
        str | None,
        typer.Option(
            help="Heuristics, separated by commas: names such as sed, or package.module:attribute "
            "of your own; default: evaluation.policies."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Worlds with different arrivals; default: 16.", min=1)
    ] = None,
    out: Tables = None,
) -> None:
    """Compare heuristics on the same arrivals, without Flower."""
    from fauno_flwr.results.directory import RunDirectory
    from fauno_flwr.tasks.heuristics import find_heuristics
    from fauno_flwr.tasks.memory import require_evaluation

    settings = list(overrides or [])
    if seeds is not None:
        settings.append(f"evaluation.worlds={seeds}")
    if policies is not None:
        names = split_names(policies)
        find_heuristics("policies", names)
        require_different("policies", names)
        settings.append(f"evaluation.policies={joined(names)}")
    config = load_config(conf, settings, "compare")
    found = find_heuristics("evaluation.policies", config.evaluation.policies)
    if not found:
        raise ConfigError(f"evaluation.policies is []: must be some of {', '.join(BUILT_IN)}")
    folder = results_folder(out, "compare") if out else None
    scenario = config.build_scenario()
    require_evaluation(config, scenario)
    from fauno_flwr.cli.comparison import compare_policies

    directory = RunDirectory(folder) if folder else None
    compare_policies(config, scenario, found, directory)
