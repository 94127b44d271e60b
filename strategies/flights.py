"""Who is at work: one message in flight per node, and a pause for nodes that fail."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

TRAIN, EVALUATE = "train", "evaluate"


@dataclass(frozen=True)
class Flight:
    """A message that has not been answered.

    Parameters
    ----------
    message_id : str
    node_id : int
    member : int
        Who is behind the node id.
    base_version : int
        Version of the arrays that were sent, from the server's own record.
    sent_at : float
        Time of the strategy's clock.
    ttl : float
        Seconds after which no answer is expected.
    kind : {"train", "evaluate"}, default "train"
    """

    message_id: str
    node_id: int
    member: int
    base_version: int
    sent_at: float
    ttl: float
    kind: str = TRAIN


class Flights:
    """Flights by message, and the back-off of failing nodes.

    Parameters
    ----------
    backoff : float
        Seconds for which a node is left alone after its first failure; doubles with each
        further failure in a row.
    max_backoff : float
        The most that it grows to.
    """

    def __init__(self, backoff: float, max_backoff: float) -> None:
        self.backoff, self.max_backoff = backoff, max_backoff
        self._by_message: dict[str, Flight] = {}
        self._busy: set[int] = set()
        self._failures: dict[int, int] = {}
        self._not_before: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._by_message)

    @property
    def message_ids(self) -> list[str]:
        """Messages that wait for an answer, oldest first."""
        return list(self._by_message)

    @property
    def base_versions(self) -> set[int]:
        """Versions that some node is training from."""
        return {f.base_version for f in self._by_message.values() if f.kind == TRAIN}

    @property
    def evaluating(self) -> bool:
        """Whether some node is evaluating."""
        return any(flight.kind == EVALUATE for flight in self._by_message.values())

    def may_start(self, node_id: int, now: float) -> bool:
        """Whether a node has nothing in flight and is not being left alone."""
        return node_id not in self._busy and now >= self._not_before.get(node_id, now)

    def open(self, flight: Flight) -> None:
        """Record a message that was sent."""
        self._by_message[flight.message_id] = flight
        self._busy.add(flight.node_id)

    def get(self, message_id: str) -> Flight | None:
        """The flight that a reply belongs to; None if there is none (late, doubled, forged)."""
        return self._by_message.get(message_id)

    def close(self, flight: Flight) -> None:
        """Forget a message that was answered."""
        del self._by_message[flight.message_id]
        self._busy.discard(flight.node_id)

    def overdue(self, now: float, grace: float) -> list[Flight]:
        """Flights whose time was over `grace` seconds ago."""
        return [f for f in self._by_message.values() if now - f.sent_at > f.ttl + grace]

    def failed(self, node_id: int, now: float) -> float:
        """Leave a node alone for a while; returns the seconds."""
        count = self._failures[node_id] = self._failures.get(node_id, 0) + 1
        # Beyond 2^60 every limit is reached, and the power would overflow.
        pause = float(min(self.backoff * 2.0 ** min(count - 1, 60), self.max_backoff))
        self._not_before[node_id] = now + pause
        return pause

    def succeeded(self, node_id: int) -> None:
        """Forget the failures of a node."""
        self._failures.pop(node_id, None)
        self._not_before.pop(node_id, None)

    def forget_all_but(self, present: Collection[int], now: float) -> None:
        """Forget the failures of nodes that have left, once their pause is over.

        A SuperNode that restarts comes back under a new id: the old ones must not pile up.
        """
        for node_id in [n for n, t in self._not_before.items() if t < now and n not in present]:
            self.succeeded(node_id)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "flights": [asdict(flight) for flight in self._by_message.values()],
            "failures": list(self._failures.items()),
            "not_before": list(self._not_before.items()),
        }

    def load(self, state: dict[str, Any], *, in_flight: bool) -> None:
        """Go on from a checkpoint; without `in_flight`, the messages are lost."""
        self._failures = dict(state["failures"])
        self._not_before = dict(state["not_before"])
        for values in state["flights"] if in_flight else []:
            self.open(Flight(**values))
