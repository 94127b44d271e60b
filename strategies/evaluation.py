"""Evaluation on the nodes, one version at a time, in parallel with training."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord


@dataclass
class Evaluation:
    """One version and the nodes that were drawn to evaluate it.

    Parameters
    ----------
    version : int
    arrays : ArrayRecord
        Arrays of that version.
    waiting : set of int
        Nodes to which no message has been sent yet, since they are busy.
    opened_at : float
        Seconds since training began.
    replies : list of Message
        Validated replies.
    """

    version: int
    arrays: ArrayRecord
    waiting: set[int]
    opened_at: float
    replies: list[Message] = field(default_factory=list)

    def drop(self, present: Collection[int], expired: bool) -> None:
        """Stop waiting for nodes that have left; for all once the time is over."""
        self.waiting = set() if expired else self.waiting.intersection(present)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside arrays and replies."""
        return {
            "version": self.version,
            "waiting": sorted(self.waiting),
            "opened_at": self.opened_at,
            "replies": len(self.replies),
        }

    @classmethod
    def load(
        cls, state: dict[str, Any], arrays: ArrayRecord, replies: list[Message]
    ) -> "Evaluation":
        """Restore an evaluation from a checkpoint."""
        waiting = set(state["waiting"])
        return cls(state["version"], arrays, waiting, state["opened_at"], replies)


def mean_metrics(
    metrics: Iterable[Mapping[str, float | list[float]]], weights: np.ndarray
) -> MetricRecord:
    """Compute the weighted mean of each metric.

    A metric is averaged over the records that have it, in the shape of the first of them.

    Parameters
    ----------
    metrics : iterable of mapping
    weights : array of float64, shape (K,)
    """
    sums: dict[str, np.ndarray] = {}
    totals: dict[str, float] = {}
    for record, weight in zip(metrics, weights, strict=True):
        for name, value in record.items():
            array = weight * np.asarray(value, np.float64)
            if name not in sums:
                sums[name], totals[name] = array, weight
            elif sums[name].shape == array.shape:
                sums[name], totals[name] = sums[name] + array, totals[name] + weight
    means = {name: sums[name] / total for name, total in totals.items() if total > 0}
    return MetricRecord({name: mean.tolist() for name, mean in means.items()})
