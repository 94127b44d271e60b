"""Policies on the same arrivals, as a table on the screen and as files."""

from collections.abc import Mapping

import typer

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.results.directory import RunDirectory
from sim_env.evaluation import by_world, run_policy, summarise
from sim_env.plugins import is_import_path
from sim_env.policies.heuristics import Policy
from sim_env.scenario import Scenario


def compare_policies(
    config: RunConfig,
    scenario: Scenario,
    policies: Mapping[str, Policy],
    directory: RunDirectory | None,
) -> None:
    """Evaluate policies as the settings say, print the table, write everything down.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
        The compiled world of `config`.
    policies : mapping of str to Policy
        Differences are to the first one.
    directory : RunDirectory, optional
        For ``config.yaml``, ``table.json``, ``table.csv``, ``differences.csv``, ``worlds.csv`` and
        the figure.
    """
    evaluation = config.evaluation
    results = {}
    for name, policy in policies.items():
        try:
            results[name] = run_policy(
                scenario,
                policy,
                evaluation.seeds,
                warmup=evaluation.warmup,
                window=evaluation.window,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except Exception as error:
            if not is_import_path(name):
                raise
            said = " ".join(str(error).split())
            raise ConfigError(
                f"policies is {name!r}: raised {type(error).__name__} ({said})"
            ) from error
    # After the policies have run: importing matplotlib takes seconds.
    from fauno_flwr.results.report import format_table, plot_comparison, tables, to_csv

    rows = summarise(results, baselines=list(policies))
    typer.echo(format_table(rows, scenario.rho, evaluation.worlds))
    if directory is None:
        return
    directory.write_text("config.yaml", config.to_yaml())
    directory.write_json("table.json", {"rho": scenario.rho, "table": rows})
    by_policy, differences = tables(rows)
    directory.write_text("table.csv", to_csv(by_policy))
    if differences:
        directory.write_text("differences.csv", to_csv(differences))
    directory.write_text("worlds.csv", to_csv(by_world(results, evaluation.seeds)))
    plot_comparison(rows, scenario.rho, directory.path / "figures" / "comparison.png")
    typer.echo(f"results in {directory.path}")
