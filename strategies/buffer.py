"""The newest update of each member, until enough members have reported."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from statistics import median_low
from typing import Any

import numpy as np
from flwr.app import Message

from strategies.arrays import Block
from strategies.checks import finite, shown
from strategies.differences import Difference
from strategies.flights import Flight


def require_buffer_size(value: float, name: str = "buffer_size") -> None:
    """Raise ``ValueError`` unless `value` is a valid buffer size: see :func:`updates_needed`."""
    if not finite(value) or not value > 0 or (value > 1 and value % 1):
        raise ValueError(
            f"{name} is {shown(value)}: must be a whole number of nodes, or a fraction of them "
            f"above 0 and at most 1.0"
        )


def updates_needed(buffer_size: float, nodes: int) -> int:
    """Return K, the number of members whose updates make a version.

    An ``int`` is a number of nodes: 1 is one node. A ``float`` up to 1.0 is a fraction of the
    nodes that take part, rounded up: 1.0 is all of them. A whole ``float`` above 1 is a number of
    nodes too.

    Parameters
    ----------
    buffer_size : int or float
        Valid by :func:`require_buffer_size`.
    nodes : int
        Nodes that take part now.

    Returns
    -------
    int
        At least 1.
    """
    if isinstance(buffer_size, Integral) or buffer_size > 1:
        return int(buffer_size)
    return max(1, math.ceil(buffer_size * nodes))


def most_weight(weights: Iterable[float], weight_factor: float) -> float:
    """Return the weight above which weights are cut: a multiple of the median of those above 0."""
    # The lower median, so that of two updates the larger one is bounded by the smaller.
    counted = [weight for weight in weights if weight > 0]
    return weight_factor * median_low(counted) if counted else math.inf


@dataclass(frozen=True)
class Update:
    """A validated reply to a train message.

    Parameters
    ----------
    reply : Message
        The reply that carried it.
    flight : Flight
        The message that was answered: it names the node and the version that was sent.
    steps : float
        Training steps behind the update: its weight.
    difference : Difference
        Difference to the version that was sent.
    metrics : dict of str to number or list of numbers
    arrived_at : float
        Seconds since training began.
    norm : float, default 0.0
        Euclidean norm of the difference as it was sent.
    scale : float, default 1.0
        Factor by which the difference is scaled down.
    """

    reply: Message
    flight: Flight
    steps: float
    difference: Difference
    metrics: dict[str, float | list[float]]
    arrived_at: float
    norm: float = 0.0
    scale: float = 1.0

    @property
    def node_id(self) -> int:
        """The node that sent it."""
        return self.flight.node_id

    @property
    def member(self) -> int:
        """The member to which the node belongs."""
        return self.flight.member

    @property
    def base_version(self) -> int:
        """Version that the update started from, by the server's own record."""
        return self.flight.base_version

    def write(self, block: Block, out: np.ndarray) -> None:
        """Write a block of the scaled difference into `out`, of shape ``(block.size,)``."""
        self.difference.write(block, out)
        if self.scale != 1:
            out *= self.scale


class Buffer:
    """At most one update per member: a newer one replaces the older and inherits its steps.

    It inherits at most as many as it has itself: its difference is that of one training, and a
    member that reports ten times before a version must not weigh ten times as much as one that
    reports once.
    """

    def __init__(self) -> None:
        self._updates: dict[int, Update] = {}

    def __len__(self) -> int:
        return len(self._updates)

    def __contains__(self, member: int) -> bool:
        return member in self._updates

    def __iter__(self) -> Iterator[Update]:
        return iter(self._updates.values())

    @property
    def oldest(self) -> float:
        """Time of arrival of the update that has waited longest; infinity if there is none."""
        return min((update.arrived_at for update in self), default=float("inf"))

    def put(self, update: Update) -> bool:
        """Add an update; return whether it replaced an older one."""
        older = self._updates.pop(update.member, None)
        if older is not None:
            steps = update.steps + min(older.steps, update.steps)
            # The wait counts from the first report: a fast node must not postpone a flush forever.
            update = replace(update, steps=steps, arrived_at=older.arrived_at)
        self._updates[update.member] = update
        return older is not None

    def bound(self, weight_factor: float, most_norm: Callable[[int], float]) -> int:
        """Bound the influence of every update on the version that they make.

        Parameters
        ----------
        weight_factor : float
            Steps beyond so many times the median of the updates do not count.
        most_norm : callable
            ``most_norm(base_version)``; a difference with a larger norm is scaled to it.

        Returns
        -------
        int
            Updates that were scaled.
        """
        if not self._updates:
            return 0
        scaled = 0
        most_steps = most_weight([update.steps for update in self], weight_factor)
        for member, update in self._updates.items():
            if update.steps > most_steps:
                update = replace(update, steps=most_steps)
            if update.norm > (most := most_norm(update.base_version)):
                update = replace(update, scale=most / update.norm)
                scaled += 1
            self._updates[member] = update
        return scaled

    def in_order(self) -> list[Update]:
        """Return the updates in the order of their members, however they arrived."""
        return [self._updates[member] for member in sorted(self._updates)]

    def find(self, replies: Iterable[Message]) -> list[Update]:
        """Return the buffered updates that came with these replies, in the order of the replies.

        Raises
        ------
        ValueError
            If no update came with a reply.
        """
        by_message = {update.flight.message_id: update for update in self}
        found = []
        for reply in replies:
            message_id = reply.metadata.reply_to_message_id
            if message_id not in by_message:
                raise ValueError(f"the reply to message {message_id!r} has no update in the buffer")
            found.append(by_message[message_id])
        return found

    def clear(self) -> None:
        """Remove all updates."""
        self._updates.clear()

    def state(self) -> list[dict[str, Any]]:
        """Return what a checkpoint keeps of each update beside its reply."""
        return [
            {**asdict(update.flight), "steps": update.steps, "arrived_at": update.arrived_at}
            for update in self
        ]
