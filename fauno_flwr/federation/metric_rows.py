"""``metrics.jsonl``: one row per version, written when the version is made."""

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from flwr.app import MetricRecord

from fauno_flwr.federation.context import RunContext
from fauno_flwr.learning.metrics import STEPS as NODE_STEPS
from strategies.privacy import EPSILON as PRIVACY_EPSILON
from strategies.privacy import signal_to_noise

FILE = "metrics.jsonl"
WALL, VIRTUAL, STEPS = "time/wall", "time/virtual", "time/total_timesteps"
UPDATES, STALENESS = "federation/updates", "federation/staleness"
NORM, SCALED = "federation/norm", "federation/scaled_down"
EPSILON, SIGNAL_TO_NOISE = "privacy/epsilon", "privacy/signal_to_noise"
CLIP = "privacy/clip"


class MetricRows:
    """The rows of ``metrics.jsonl``.

    A row has ``version``; ``time/wall`` and, under virtual time, ``time/virtual`` in seconds of
    training; ``time/total_timesteps``, the decisions behind all merged updates so far;
    ``federation/updates`` and ``federation/staleness``, the number of merged updates and their mean
    staleness in versions; ``federation/norm``, their median norm, and ``federation/scaled_down``,
    how many of them were scaled down to the largest norm that is allowed; with
    ``federation.privacy``, ``privacy/epsilon`` so far, ``privacy/signal_to_noise`` of the merged
    update and, if the server adds the noise, ``privacy/clip``; ``train/num_steps``, the mean number
    of decisions behind an update; other ``train/...``, the means of the nodes' metrics as the
    strategy has merged them; and ``eval/...`` if the version was evaluated.

    What a row adds to the merged metrics is also stored in their record, which the strategy saves
    in its checkpoints: a run that resumes writes the rows of the earlier versions again.

    Parameters
    ----------
    run : RunContext
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._virtual = run.clock is not time
        self._started = time.perf_counter()
        self._flush: Mapping[str, Any] = {}
        self._records: dict[int, MetricRecord] = {}

    def observe(self, event: Mapping[str, Any]) -> None:
        """Keep the newest ``flush`` event, which precedes the row of its version."""
        if event["event"] == "flush":
            self._flush = event

    def restore(self, history: Mapping[int, MetricRecord]) -> None:
        """Write the rows of the versions before a resume; wall time continues after them."""
        self._records = dict(history)
        self._started -= float(self._last(WALL))
        self._rewrite()

    def add(self, version: int, metrics: MetricRecord) -> None:
        """Write the row of a version.

        Parameters
        ----------
        version : int
        metrics : MetricRecord
            Merged metrics of the nodes; the other numbers of the row are added to it.
        """
        flush = self._flush
        metrics[WALL] = round(time.perf_counter() - self._started, 3)
        if self._virtual:
            metrics[VIRTUAL] = flush["t"]
        if NODE_STEPS in metrics:  # no weights, as in a private merge
            steps = round(float(metrics[NODE_STEPS]) * len(flush["steps"]))  # type: ignore[arg-type]
        else:
            steps = int(sum(flush["steps"]))
            metrics[NODE_STEPS] = sum(flush["steps"]) / len(flush["steps"])
        metrics[STEPS] = int(self._last(STEPS)) + steps
        if PRIVACY_EPSILON in metrics:
            metrics[EPSILON] = metrics.pop(PRIVACY_EPSILON)
            norms = [flush["merged_norm"]], [flush["noise_norm"]]
            metrics[SIGNAL_TO_NOISE] = signal_to_noise(*norms)
        if "clip" in flush:
            metrics[CLIP] = flush["clip"]
        metrics[UPDATES] = len(flush["staleness"])
        metrics[NORM] = float(median(flush["norms"]))
        metrics[SCALED] = flush["scaled_down"]
        metrics[STALENESS] = sum(flush["staleness"]) / len(flush["staleness"])
        self._records[version] = metrics
        self._run.out.append(FILE, row(version, metrics))

    def amend(self, version: int, values: Mapping[str, float]) -> None:
        """Add numbers to the row of a version, and rewrite the file atomically."""
        self._records[version].update(values)
        self._rewrite()

    def __contains__(self, version: int) -> bool:
        return version in self._records

    def _last(self, name: str) -> Any:
        newest = max(self._records, default=None)
        return 0 if newest is None else self._records[newest].get(name, 0)

    def _rewrite(self) -> None:
        rows = (row(version, metrics) for version, metrics in sorted(self._records.items()))
        self._run.out.write_lines(FILE, rows)


def row(version: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a version.

    A metric of the nodes, such as ``approx-kl``, becomes ``train/approx_kl``; names with a slash
    stay.
    """
    ordered = sorted(metrics, key=lambda name: (name.startswith("eval/"), "/" not in name))
    return {"version": version, **{named(name): metrics[name] for name in ordered}}


def named(metric: str) -> str:
    """Return the name of a metric in the rows."""
    return metric if "/" in metric else f"train/{metric.replace('-', '_')}"
