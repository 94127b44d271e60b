"""The newest update of each node, until enough nodes have reported."""

from dataclasses import dataclass, replace

from flwr.app import Message, MetricRecord

from strategies.arrays import Arrays


@dataclass(frozen=True)
class Update:
    """What a node reports.

    Parameters
    ----------
    reply : Message
        Where it came from.
    node_id : int
    base_version : int
        Version it was sent; the merge takes the difference to that one.
    steps : float
        Training steps behind the update: its weight.
    arrays : dict of str to array
    metrics : MetricRecord
    """

    reply: Message
    node_id: int
    base_version: int
    steps: float
    arrays: Arrays
    metrics: MetricRecord


class Buffer:
    """At most one update per node: a newer one replaces the older and inherits its steps."""

    def __init__(self) -> None:
        self._updates: dict[int, Update] = {}

    def __len__(self) -> int:
        return len(self._updates)

    @property
    def base_versions(self) -> set[int]:
        """Versions that the buffered updates started from."""
        return {update.base_version for update in self._updates.values()}

    def put(self, update: Update) -> bool:
        """Add an update; returns whether it replaced an older one."""
        older = self._updates.pop(update.node_id, None)
        if older is not None:
            update = replace(update, steps=update.steps + older.steps)
        self._updates[update.node_id] = update
        return older is not None

    def take_all(self) -> list[Update]:
        """Empty the buffer; updates in the order of the node ids."""
        updates = [self._updates[node_id] for node_id in sorted(self._updates)]
        self._updates = {}
        return updates
