"""Evaluation on the nodes, one version at a time, in parallel with training."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

MOST_METRICS = 256  # of a version


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

    def drop(self, present: Collection[int]) -> None:
        """Stop waiting for nodes that have left."""
        self.waiting.intersection_update(present)

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
    metrics: Iterable[Mapping[str, Any]],
    weights: np.ndarray,
    weighted_by_key: str | None = None,
) -> MetricRecord:
    """Compute the weighted mean of each metric, without the one that holds the weights.

    A metric is averaged over the records that have it in the shape that most of them have. Of many
    metrics, those that most records have are kept, so that one node cannot displace those of all.

    Parameters
    ----------
    metrics : iterable of mapping
    weights : array of float64, shape (K,)
    weighted_by_key : str, optional
        The metric to leave out, as Flower does.
    """
    records = list(metrics)
    common = Counter(name for record in records for name in record).most_common(MOST_METRICS)
    kept: set[str | None] = {name for name, _ in common}
    means: dict[str, Any] = {}
    kept.discard(weighted_by_key)
    for name in dict.fromkeys(name for record in records for name in record if name in kept):
        sent = [
            (weight, np.asarray(record[name], np.float64))
            for record, weight in zip(records, weights, strict=True)
            if name in record
        ]
        ((shape, _),) = Counter(value.shape for _, value in sent).most_common(1)
        of_shape = [(weight, value) for weight, value in sent if value.shape == shape]
        total = sum(weight for weight, _ in of_shape)
        if total > 0:
            means[name] = (sum(weight * value for weight, value in of_shape) / total).tolist()
    return MetricRecord(means)
