"""Several trainings that differ in their seed, and one table of them all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.policy import FAUNO
from fauno_flwr.results.directory import SCHEMA_VERSION, RunDirectory, to_json, write_atomically
from fauno_flwr.results.report import format_table, plot_comparison, tables, to_csv
from fauno_flwr.results.statistics import crossed
from fauno_flwr.tasks.heuristics import find_heuristics
from fauno_flwr.tasks.trained import load_agents
from sim_env.evaluation import run_policy, summarise
from sim_env.scenario import Scenario
from sim_env.world import Metrics

DONE = "summary.json"


def train_seeds(
    config: RunConfig, seeds: Sequence[int], out: Path, train: Callable[[RunConfig, Path], None]
) -> None:
    """Train with every seed, and write and print one table; finished trainings are kept.

    Parameters
    ----------
    config : RunConfig
    seeds : sequence of int
    out : Path
        Absolute; new, or that of the same command before. Each seed gets a folder ``seed-<n>``; one
        that was not finished is renamed, and its training is repeated.
    train : callable
        ``train(config, folder)``.

    Raises
    ------
    ConfigError
        If the folder holds something else, or trainings with other settings.
    """
    if not config.federation.collect_actors:
        raise ConfigError(
            "federation.collect_actors is false: must be true with --seeds, for the common table"
        )
    scenario = config.build_scenario()
    find_heuristics("evaluation.policies", config.evaluation.policies)
    folders = [out / f"seed-{seed}" for seed in seeds]
    settings = out / "config.yaml"
    if not settings.is_file():
        RunDirectory.check(out)
        settings.write_text(config.to_yaml())
    elif settings.read_text() != config.to_yaml():
        raise ConfigError(
            f"out is {str(out)!r}: holds trainings with other settings, choose a new folder"
        )
    for number, (seed, folder) in enumerate(zip(seeds, folders, strict=True), start=1):
        typer.echo(f"\nseed {seed}, {number} of {len(seeds)}")
        if (folder / DONE).is_file():
            typer.echo(f"already finished: {folder}")
            continue
        set_aside(folder)
        train(with_seed(config, seed), folder)
    rows = table_of(config, scenario, folders)
    typer.echo("\n" + format_table(rows, scenario.rho, config.evaluation.worlds))
    listed = ", ".join(map(str, seeds))
    over = "seeds and worlds" if len(seeds) > 1 else "worlds only"
    typer.echo(f"training seeds of FAuNO: {listed}; its intervals are over {over}")
    typer.echo(f"results in {out}")
    write(rows, seeds, scenario, out)


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """Return the settings with another seed, and with checkpoints of its own."""
    checkpoints = config.federation.checkpoints
    if checkpoints:
        checkpoints = str(Path(checkpoints) / f"seed-{seed}")
    return replace(
        config, seed=seed, federation=replace(config.federation, checkpoints=checkpoints)
    )


def set_aside(folder: Path) -> None:
    """Rename the folder of a training that was not finished, if there is one."""
    if not folder.exists():
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}.unfinished-{number}")).exists():
        number += 1
    folder.rename(aside)
    typer.echo(f"unfinished, moved to {aside}; training again")


def table_of(
    config: RunConfig, scenario: Scenario, folders: Sequence[Path]
) -> list[dict[str, Any]]:
    """Evaluate the trainings and the heuristics on the same worlds.

    Returns
    -------
    list of dict
        As of :func:`sim_env.evaluation.summarise`. In the row of FAuNO, means and differences are
        over seeds and worlds, with :func:`fauno_flwr.results.statistics.crossed` intervals;
        ``by_seed`` has the means of each training.
    """
    evaluation = config.evaluation

    def measure(policy: Any) -> Metrics:
        return run_policy(
            scenario,
            policy,
            evaluation.seeds,
            warmup=evaluation.warmup,
            window=evaluation.window,
        )

    found = find_heuristics("evaluation.policies", evaluation.policies)
    heuristics = {name: measure(policy) for name, policy in found.items()}
    trained = [
        measure(load_agents(folder, scenario, greedy=evaluation.greedy).policy)
        for folder in folders
    ]
    others = summarise(heuristics, baselines=list(heuristics))
    return [joint_row(trained, heuristics), *others]


def joint_row(trained: Sequence[Metrics], heuristics: Mapping[str, Metrics]) -> dict[str, Any]:
    """Return the row of several trainings; see :func:`table_of`."""
    rows = [summarise({FAUNO: metrics}, baselines=[])[0] for metrics in trained]
    ratio = np.array([metrics.finished_ratio for metrics in trained])
    response = np.array([metrics.mean_response for metrics in trained])
    return {
        **rows[0],
        "finished": round(float(np.mean([row["finished"] for row in rows]))),
        "unfinished_at_end": round(float(np.mean([row["unfinished_at_end"] for row in rows]))),
        "finished_ratio": interval_of(ratio),
        "response_mean": interval_of(response),
        "response_p95": float(np.mean([row["response_p95"] for row in rows])),
        "lost": {
            kind: float(np.mean([row["lost"][kind] for row in rows])) for kind in rows[0]["lost"]
        },
        "served_by": np.sum([row["served_by"] for row in rows], axis=0).tolist(),
        "fairness": float(np.mean([row["fairness"] for row in rows])),
        "minus": {
            name: {
                "finished_ratio": interval_of(ratio - other.finished_ratio),
                "response_mean": interval_of(response - other.mean_response),
            }
            for name, other in heuristics.items()
        },
        "by_world": {
            "finished_ratio": ratio.mean(axis=0).tolist(),
            "response_mean": response.mean(axis=0).tolist(),
        },
        "by_seed": [
            {key: row[key]["mean"] for key in ("finished_ratio", "response_mean")} for row in rows
        ],
    }


def interval_of(values: np.ndarray) -> dict[str, float]:
    """Return mean and interval of a matrix of seeds x worlds, as in the rows of a table."""
    found = crossed(values)
    return {"mean": found.value, "low": found.low, "high": found.high}


def write(
    rows: list[dict[str, Any]], seeds: Sequence[int], scenario: Scenario, folder: Path
) -> None:
    """Write ``summary.json``, ``table.csv``, ``differences.csv`` and the figure."""
    facts = {"seeds": list(seeds), "rho": scenario.rho, "table": rows}
    write_atomically(folder / DONE, to_json({"schema_version": SCHEMA_VERSION, **facts}))
    policies, differences = tables(rows)
    write_atomically(folder / "table.csv", to_csv(policies))
    if differences:
        write_atomically(folder / "differences.csv", to_csv(differences))
    (folder / "figures").mkdir(exist_ok=True)
    plot_comparison(rows, scenario.rho, folder / "figures" / "comparison.png")
