"""The newest update of each member, until enough of them have reported."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Message

from strategies.flights import Flight


@dataclass(frozen=True)
class Update:
    """What a node reports.

    Parameters
    ----------
    reply : Message
        Where it came from.
    flight : Flight
        The message that it answers: the node, and the version it was sent.
    steps : float
        Training steps behind the update: its weight.
    delta : array of float64, shape (P,)
        Difference to the version it was sent.
    metrics : dict of str to number or list of numbers
    arrived_at : float
        Time of the strategy's clock.
    """

    reply: Message
    flight: Flight
    steps: float
    delta: np.ndarray
    metrics: dict[str, float | list[float]]
    arrived_at: float

    @property
    def node_id(self) -> int:
        """The node."""
        return self.flight.node_id

    @property
    def member(self) -> int:
        """Who is behind the node id."""
        return self.flight.member

    @property
    def base_version(self) -> int:
        """Version that the update started from, by the server's own record."""
        return self.flight.base_version


class Buffer:
    """At most one update per member: a newer one replaces the older and inherits its steps."""

    def __init__(self) -> None:
        self._updates: dict[int, Update] = {}

    def __len__(self) -> int:
        return len(self._updates)

    def __contains__(self, member: int) -> bool:
        return member in self._updates

    def __iter__(self) -> Iterator[Update]:
        return iter(self._updates.values())

    @property
    def base_versions(self) -> set[int]:
        """Versions that the buffered updates started from."""
        return {update.base_version for update in self}

    @property
    def oldest(self) -> float:
        """When the update arrived that waits longest; infinity if there is none."""
        return min((update.arrived_at for update in self), default=float("inf"))

    def put(self, update: Update) -> bool:
        """Add an update; returns whether it replaced an older one."""
        older = self._updates.pop(update.member, None)
        if older is not None:
            # The wait counts from the first report: a busy node must not put a flush off for ever.
            steps, arrived_at = update.steps + older.steps, older.arrived_at
            update = replace(update, steps=steps, arrived_at=arrived_at)
        self._updates[update.member] = update
        return older is not None

    def take_all(self) -> list[Update]:
        """Empty the buffer; updates in the order of the members."""
        updates = [self._updates[member] for member in sorted(self._updates)]
        self._updates = {}
        return updates
