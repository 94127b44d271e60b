"""Messages in flight, one per node, and the back-off of nodes that fail."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, KeysView
from dataclasses import asdict, dataclass
from typing import Any

from strategies.deadlines import SHORTEST_WAIT

TRAIN, EVALUATE = "train", "evaluate"


@dataclass(frozen=True)
class Flight:
    """A message in flight.

    Parameters
    ----------
    message_id : str
    node_id : int
    member : int
        The member to which the node belongs; it stays when a SuperNode returns under a new id.
    base_version : int
        Version of the arrays that were sent, from the server's own record.
    sent_at : float
        Seconds since training began.
    ttl : float
        Time-to-live in seconds; no reply is expected after it.
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
    """Messages in flight, and the exponential back-off of nodes that fail.

    What is asked for each reply costs the same however many messages are in flight.

    Parameters
    ----------
    backoff : float
        Pause after the first failure of a node, in seconds; it doubles with each further failure
        in a row.
    max_backoff : float
        Longest pause, in seconds.

    Attributes
    ----------
    freed : set of int
        Nodes whose message has ended since the caller has emptied it.
    training, evaluating : int
        Nodes that are training, and that are evaluating.
    """

    def __init__(self, backoff: float, max_backoff: float) -> None:
        self.backoff, self.max_backoff = backoff, max_backoff
        self._by_message: dict[str, Flight] = {}
        self._busy: set[int] = set()
        self._failures: dict[int, int] = {}
        self._not_before: dict[int, float] = {}
        self._lost: dict[int, int] = {}  # place of a member whose message a restart has lost
        self._bases: Counter[int] = Counter()  # nodes that train from each version
        self._released: set[int] = set()  # versions from which no node trains any more
        self.freed: set[int] = set()
        self._shortest = SHORTEST_WAIT  # no message may be overdue earlier
        self.training = self.evaluating = 0

    def __len__(self) -> int:
        return len(self._by_message)

    @property
    def message_ids(self) -> KeysView[str]:
        """Ids of the messages in flight, oldest first."""
        return self._by_message.keys()

    @property
    def base_versions(self) -> KeysView[int]:
        """Versions that nodes are training from."""
        return self._bases.keys()

    def released(self) -> set[int]:
        """Return the versions from which no node trains any more, each of them once."""
        released = {version for version in self._released if version not in self._bases}
        self._released.clear()
        return released

    def idle(self, node_ids: Iterable[int], now: float) -> list[int]:
        """Return the nodes among these that have no message in flight and are not in a pause."""
        paused = {node_id for node_id, end in self._not_before.items() if now < end}
        return [i for i in node_ids if i not in self._busy and i not in paused]

    def open(self, flight: Flight) -> None:
        """Record a message that has been sent."""
        self._by_message[flight.message_id] = flight
        self._busy.add(flight.node_id)
        self._shortest = min(self._shortest, flight.ttl)
        self._lost.pop(flight.member, None)
        if flight.kind == TRAIN:
            self.training += 1
            self._bases[flight.base_version] += 1
        else:
            self.evaluating += 1

    @property
    def any_lost(self) -> bool:
        """Whether a member whose message a restart has lost is still to be sent one."""
        return bool(self._lost)

    def place(self, member: int) -> float:
        """Return the place of a member among those that are sent a message now.

        After a restart, those whose messages were lost come first, the oldest one at the front: on
        an engine with fewer workers than nodes, others would get ahead of them.
        """
        return self._lost.get(member, math.inf)

    def get(self, message_id: str) -> Flight | None:
        """Return the flight of a message; None if it is not in flight (any more)."""
        return self._by_message.get(message_id)

    def close(self, flight: Flight) -> None:
        """Remove a message that was answered or given up."""
        del self._by_message[flight.message_id]
        self._busy.discard(flight.node_id)
        self.freed.add(flight.node_id)
        if flight.kind != TRAIN:
            self.evaluating -= 1
            return
        self.training -= 1
        self._bases[flight.base_version] -= 1
        if not self._bases[flight.base_version]:
            del self._bases[flight.base_version]
            self._released.add(flight.base_version)

    def overdue(self, now: float, grace: float, limit: Callable[[int], float]) -> list[Flight]:
        """Return the flights that should have ended more than `grace` seconds ago.

        Parameters
        ----------
        now, grace : float
        limit : callable
            ``limit(node_id)``: seconds after which a message fails, if less than its time-to-live.
        """
        overdue = []
        for flight in self._by_message.values():
            if now - flight.sent_at <= self._shortest + grace:
                break  # those behind it were sent later
            if now - flight.sent_at > min(flight.ttl, limit(flight.node_id)) + grace:
                overdue.append(flight)
        return overdue

    def waiting(self, now: float) -> dict[int, float]:
        """Return for each node with a message in flight the seconds since it was sent."""
        return {f.node_id: now - f.sent_at for f in self._by_message.values()}

    def failed(self, node_id: int, now: float) -> float:
        """Record a failure of a node; return the pause that follows, in seconds."""
        count = self._failures[node_id] = self._failures.get(node_id, 0) + 1
        # Bounded, since the power would overflow.
        pause = float(min(self.backoff * 2.0 ** min(count - 1, 60), self.max_backoff))
        self._not_before[node_id] = now + pause
        return pause

    def failures(self, node_id: int) -> int:
        """Return how many messages in a row a node has failed."""
        return self._failures.get(node_id, 0)

    def failing(self, least: int) -> set[int]:
        """Return the nodes that have failed so many messages in a row."""
        return {node_id for node_id, count in self._failures.items() if count >= least}

    def succeeded(self, node_id: int) -> None:
        """Reset the back-off of a node."""
        self._failures.pop(node_id, None)
        self._not_before.pop(node_id, None)

    def forget_all_but(self, present: Collection[int], now: float) -> None:
        """Reset the back-off of nodes that have left, once their pause is over.

        A SuperNode without a key returns under a new id: the old ones must not accumulate.
        """
        for node_id in [n for n, t in self._not_before.items() if t < now and n not in present]:
            self.succeeded(node_id)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "flights": [asdict(flight) for flight in self._by_message.values()],
            "failures": list(self._failures.items()),
            "not_before": list(self._not_before.items()),
        }

    def load(self, state: dict[str, Any], *, in_flight: bool) -> None:
        """Restore a checkpoint; without `in_flight` the messages in flight are lost."""
        self._failures = dict(state["failures"])
        self._not_before = dict(state["not_before"])
        flights = [Flight(**values) for values in state["flights"]]
        if in_flight:
            for flight in flights:
                self.open(flight)
        else:
            self._lost = {flight.member: place for place, flight in enumerate(flights)}
