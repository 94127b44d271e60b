"""How long a message may take, learned from the latencies of this training."""

from collections.abc import Callable, Collection
from typing import Any

from flwr.app import DEFAULT_TTL

WAITS = 4.0  # usual latencies of a node, after which a message to it is given up
SHORTEST_WAIT = 3600.0  # seconds; Flower's strategies wait as long for the replies of a round


class Deadlines:
    """Time-to-live of messages to each node.

    A message can get lost on its way to a node that stays online, and Flower does not report it.
    It is given up after four times the longest latency of its node, at least an hour; a node that
    has not answered yet is measured by the slowest one that has. Until any has, and at most, it is
    Flower's default of 12 hours. It doubles with each message that is given up, so that a node that
    has become slower replies in time at last.
    """

    def __init__(self) -> None:
        self._longest: dict[int, float] = {}
        self._missed: dict[int, int] = {}
        self._slowest = 0.0

    def of(self, node_id: int) -> float:
        """Return the seconds after which a message to a node is given up."""
        if not self._longest:
            return float(DEFAULT_TTL)
        usual = self._longest.get(node_id, self._slowest)
        wait = max(WAITS * usual, SHORTEST_WAIT) * 2.0 ** min(self._missed.get(node_id, 0), 60)
        return float(min(wait, DEFAULT_TTL))

    def answered(self, node_id: int, latency: float) -> None:
        """Record the seconds from a message to its reply."""
        self._longest[node_id] = max(latency, self._longest.get(node_id, 0.0))
        self._slowest = max(latency, self._slowest)
        self._missed.pop(node_id, None)

    def failed(self, node_id: int, latency: float) -> None:
        """Record the seconds from a message to its failure; only a missed deadline counts."""
        if latency >= self.of(node_id):
            self._missed[node_id] = self._missed.get(node_id, 0) + 1

    def forget_all_but(self, present: Collection[int]) -> None:
        """Forget nodes that have left, once they are many: without a key they return as others."""
        if len(self._longest) + len(self._missed) > 4 * len(present) + 100:
            self._longest = {n: t for n, t in self._longest.items() if n in present}
            self._missed = {n: c for n, c in self._missed.items() if n in present}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "longest": list(self._longest.items()),
            "missed": list(self._missed.items()),
            "slowest": self._slowest,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint."""
        self._longest, self._missed = dict(state["longest"]), dict(state["missed"])
        self._slowest = state["slowest"]


def time_to_live(
    ttl: float | Callable[[int], float] | None, node_id: int, deadlines: Deadlines | None
) -> float:
    """Return the time-to-live of messages to a node, in seconds.

    Parameters
    ----------
    ttl : float or callable, optional
        Of all nodes, or of each; None: learned.
    node_id : int
    deadlines : Deadlines or None
        What has been learned; None before a training.
    """
    if ttl is None:
        return float(DEFAULT_TTL) if deadlines is None else deadlines.of(node_id)
    return ttl(node_id) if callable(ttl) else ttl
