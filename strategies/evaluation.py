"""Evaluation on the nodes, one version at a time, beside training."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord


@dataclass
class Evaluation:
    """One version on its way through the nodes that were drawn for it.

    Parameters
    ----------
    version : int
    arrays : ArrayRecord
        Of that version.
    waiting : set of int
        Nodes that have not been asked yet, since they are at work.
    opened_at : float
        Time of the strategy's clock.
    replies : list of Message
        Past the guard.
    """

    version: int
    arrays: ArrayRecord
    waiting: set[int]
    opened_at: float
    replies: list[Message] = field(default_factory=list)

    def drop(self, present: Collection[int], expired: bool) -> None:
        """Do not wait for nodes that have left, and for nobody when the time is over."""
        self.waiting = set() if expired else self.waiting.intersection(present)


def mean_metrics(
    metrics: Iterable[Mapping[str, float | list[float]]], weights: np.ndarray
) -> MetricRecord:
    """Weighted mean of each metric, over the records that have it in the first one's shape."""
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
