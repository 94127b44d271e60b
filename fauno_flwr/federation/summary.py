"""The summary of a run: ``summary.json`` and the figures."""

import platform
import time
from importlib.metadata import version
from typing import Any

from fauno_flwr import __version__
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.training import Trained
from fauno_flwr.results import report
from fauno_flwr.results.directory import SCHEMA_VERSION, read_lines
from fauno_flwr.results.status import failures, node_statistics

WALL, VIRTUAL = "wall", "virtual"  # clocks


def write_summary(run: RunContext, rows: list[dict[str, Any]], trained: Trained) -> None:
    """Write ``summary.json`` and the figures of a run.

    Parameters
    ----------
    run : RunContext
    rows : list of dict
        Table of the evaluation.
    trained : Trained
    """
    events = read_lines(run.out.path / "events.jsonl")
    replies = [event for event in events if event["event"] == "reply"]
    run.stage("done")
    config, facts = run.config, run.task.facts
    seeds = config.evaluation.validation_seeds
    best = {"best": {**trained.best, "seeds": list(seeds)}} if trained.best else {}
    run.out.write_json(
        "summary.json",
        {
            "schema_version": SCHEMA_VERSION,
            "software": software_versions(),
            "seed": config.seed,
            "evaluation_seeds": list(config.evaluation.seeds),
            **facts,
            "versions": trained.versions,
            "versions_wanted": config.federation.versions,
            "buffer_size": config.federation.buffer_size,
            "seconds": {"clock": WALL if run.clock is time else VIRTUAL, "since_start": run.stages},
            **best,
            "nodes": node_statistics(events),
            "failures": failures(events),
            "table": rows,
        },
    )
    figures = run.out.path / "figures"
    if rows:
        report.plot_rows(rows, facts["rho"], figures / "comparison.png")
    if replies:
        report.plot_learning(replies, figures / "learning.png")


def software_versions() -> dict[str, str]:
    """Return the versions of the software that the results depend on."""
    libraries = {package: version(package) for package in ("flwr", "numba", "numpy", "torch")}
    return {"python": platform.python_version(), "fauno-flwr": __version__, **libraries}
