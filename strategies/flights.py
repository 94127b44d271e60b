"""Who is training: one message in flight per node, and a pause for nodes that fail."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Flight:
    """A message that has not been answered.

    Parameters
    ----------
    message_id : str
    node_id : int
    base_version : int
        Version of the arrays that were sent, from the server's own record.
    sent_at : float
        Time of the strategy's clock.
    """

    message_id: str
    node_id: int
    base_version: int
    sent_at: float


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
        return {flight.base_version for flight in self._by_message.values()}

    def may_start(self, node_id: int, now: float) -> bool:
        """Whether a node has nothing in flight and is not being left alone."""
        return node_id not in self._busy and now >= self._not_before.get(node_id, now)

    def open(self, flight: Flight) -> None:
        """Record a message that was sent."""
        self._by_message[flight.message_id] = flight
        self._busy.add(flight.node_id)

    def close(self, message_id: str) -> Flight | None:
        """The flight that a reply belongs to; None if there is none (late, doubled, forged)."""
        flight = self._by_message.pop(message_id, None)
        if flight is not None:
            self._busy.discard(flight.node_id)
        return flight

    def failed(self, node_id: int, now: float) -> float:
        """Leave a node alone for a while; returns the seconds."""
        count = self._failures[node_id] = self._failures.get(node_id, 0) + 1
        pause = float(min(self.backoff * 2.0 ** (count - 1), self.max_backoff))
        self._not_before[node_id] = now + pause
        return pause

    def succeeded(self, node_id: int) -> None:
        """Forget the failures of a node."""
        self._failures.pop(node_id, None)
        self._not_before.pop(node_id, None)
