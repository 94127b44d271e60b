"""The summary of a run: ``summary.json`` and the figures."""

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from logging import WARNING
from typing import Any, TypeVar

from flwr.common.logger import log

from fauno_flwr import __version__
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.failures import sentence
from fauno_flwr.federation.training import Trained
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.results import report
from fauno_flwr.results.directory import REPLAY, SCHEMA_VERSION, read_lines
from fauno_flwr.results.status import failures, node_statistics
from sim_env.replay.files import save_replay

Value = TypeVar("Value")
WALL, VIRTUAL = "wall", "virtual"  # clocks


def write_summary(run: RunContext, rows: list[dict[str, Any]], trained: Trained) -> None:
    """Write ``summary.json`` and the figures of a run.

    What cannot be written is left out with a warning: the training is over, and a report of it must
    not make it fail.

    Parameters
    ----------
    run : RunContext
    rows : list of dict
        Table of the evaluation.
    trained : Trained
    """
    run.stage("done")
    events = attempt("events", lambda: read_lines(run.out.path / "events.jsonl")) or []
    replies = [event for event in events if event["event"] == "reply"]
    config, facts = run.config, run.task.facts
    seeds = config.evaluation.validation_seeds
    best = {"best": {**trained.best, "seeds": list(seeds)}} if trained.best else {}
    summary = {
        "schema_version": SCHEMA_VERSION,
        "software": software_versions(),
        "seed": config.seed,
        "evaluation_seeds": list(config.evaluation.seeds),
        **facts,
        "learning_nodes": list(run.task.names),
        "versions": trained.versions,
        "versions_wanted": config.federation.versions,
        "buffer_size": config.federation.buffer_size,
        **({"privacy": trained.privacy} if trained.privacy else {}),
        "seconds": {"clock": WALL if run.clock is time else VIRTUAL, "since_start": run.stages},
        **best,
        "nodes": attempt("statistics of the nodes", lambda: node_statistics(events)),
        "failures": attempt("failures of the nodes", lambda: failures(events)),
        "table": rows,
    }
    attempt("summary.json", lambda: run.out.write_json("summary.json", summary))
    figures = run.out.path / "figures"
    if rows:
        path = figures / "comparison.png"
        attempt(path.name, lambda: report.plot_rows(rows, facts["rho"], path))
    if replies:
        attempt("learning.png", lambda: report.plot_learning(replies, figures / "learning.png"))


def write_replay(run: RunContext, population: AgentStack | None) -> None:
    """Write the recordings of one world of the evaluation, if the task has any."""
    replay = run.task.record(population)
    if replay is not None:
        save_replay(replay, run.out.path / REPLAY)


def attempt(what: str, make: Callable[[], Value]) -> Value | None:
    """Return what a function makes; None, with a warning, if it raises."""
    try:
        return make()
    except Exception as error:
        log(WARNING, "%s cannot be made: %s", what, sentence(error))
        return None


def software_versions() -> dict[str, str]:
    """Return the versions of the software that the results depend on."""
    libraries = {package: version(package) for package in ("flwr", "numba", "numpy", "torch")}
    return {"python": platform.python_version(), "fauno-flwr": __version__, **libraries}
