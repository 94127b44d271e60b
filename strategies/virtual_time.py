"""Virtual time around a real grid: the same run, however busy the machine is."""

import heapq
import math
import time
from collections.abc import Iterable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from strategies.clock import VirtualClock
from strategies.flower_internals import set_metadata
from strategies.grids import FIRST_NODE_ID, GridAround
from strategies.latency import Duration


class VirtualTimeGrid(GridAround):
    """Deliver the replies of `grid` in the order and at the times of a latency model.

    The engine works in parallel, as fast as it can. A reply is held back until its virtual time,
    and virtual time waits for a reply that is due: a strategy receives the same replies at the
    same times in every run, if the clients depend only on their messages, their state and a seed.
    Node ids are ``1000 + partition_id``, since the engine draws new ones in every run.

    Parameters
    ----------
    grid : Grid
    duration : callable
        ``duration(partition_id, k)``: virtual seconds for the k-th message of a node.
    partitions : mapping of int to int, optional
        Partition id of each node id of `grid`. Default: the position in the order of registration,
        which in Flower's simulation engine is the partition id.
    patience : float, default 600.0
        Real seconds to wait for a reply that is due; then ``TimeoutError``.
    poll_interval : float, default 0.02
        Real seconds between two polls for it.
    """

    clock: VirtualClock
    longest_sleep = math.inf

    def __init__(
        self,
        grid: Grid,
        duration: Duration,
        *,
        partitions: Mapping[int, int] | None = None,
        patience: float = 600.0,
        poll_interval: float = 0.02,
    ) -> None:
        super().__init__(grid)
        self.duration = duration
        self.patience, self._poll_interval = patience, poll_interval
        partitions = in_order_of_registration(grid) if partitions is None else partitions
        if len(set(partitions.values())) != len(partitions):
            raise ValueError(f"partitions is {dict(partitions)}: no two nodes may have the same")
        self._outer = {inner: FIRST_NODE_ID + i for inner, i in partitions.items()}
        self._inner = {outer: inner for inner, outer in self._outer.items()}
        self.clock = VirtualClock(self.next_event)
        self._sent = dict.fromkeys(self._inner, 0)
        self._free_at = dict.fromkeys(self._inner, 0.0)
        self._due: list[tuple[float, int, str]] = []
        self._ready: dict[str, tuple[float, int]] = {}
        self._real_id: dict[str, str] = {}
        self._replies: dict[str, Message] = {}
        self._messages = 0

    def next_event(self) -> float | None:
        """Return the virtual time of the next reply, None if there is none."""
        self._settle()
        return self._due[0][0] if self._due else None

    def _settle(self) -> None:
        now = self.clock.monotonic()
        while self._due and self._due[0][0] <= now:
            due, number, message_id = heapq.heappop(self._due)
            self._ready[message_id] = due, number

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that have a partition."""
        online = (self._outer.get(inner) for inner in self.grid.get_node_ids())
        return sorted(outer for outer in online if outer is not None)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send each message and return its id, empty if it could not be sent."""
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        outer = message.metadata.dst_node_id
        if outer not in self._inner:
            return ""
        metadata = message.metadata
        # A copy: the simulation engine keeps the object that it is given.
        translated = Message(
            message.content,
            self._inner[outer],
            metadata.message_type,
            ttl=metadata.ttl,
            group_id=metadata.group_id,
        )
        real = [message_id for message_id in self.grid.push_messages([translated]) if message_id]
        if not real:
            return ""
        k, self._sent[outer] = self._sent[outer], self._sent[outer] + 1
        start = max(self.clock.monotonic(), self._free_at[outer])
        self._free_at[outer] = start + self.duration(outer - FIRST_NODE_ID, k)
        self._messages += 1
        message_id = f"message-{self._messages}"
        self._real_id[message_id] = real[0]
        heapq.heappush(self._due, (self._free_at[outer], self._messages, message_id))
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are due, in order of arrival, once the engine has them."""
        self._settle()
        ready = [message_id for message_id in message_ids if message_id in self._ready]
        in_order = sorted(ready, key=lambda message_id: self._ready.pop(message_id))
        return [self._wait_for(message_id) for message_id in in_order]

    def _wait_for(self, message_id: str) -> Message:
        real_id = self._real_id.pop(message_id)
        end = time.monotonic() + self.patience
        while real_id not in self._replies:
            missing = [real_id, *self._real_id.values()]
            for reply in self.grid.pull_messages([i for i in missing if i not in self._replies]):
                self._replies[reply.metadata.reply_to_message_id] = reply
            if real_id not in self._replies:
                if time.monotonic() > end:
                    raise TimeoutError(
                        f"the engine has not answered {message_id} in patience = "
                        f"{self.patience:g} s"
                    )
                time.sleep(self._poll_interval)
        reply = self._replies.pop(real_id)
        source = reply.metadata.src_node_id
        set_metadata(
            reply, reply_to_message_id=message_id, src_node_id=self._outer.get(source, source)
        )
        return reply


def in_order_of_registration(grid: Grid) -> dict[int, int]:
    """Return the position of each node in the order in which the SuperLink has registered them."""
    nodes = sorted(grid.get_nodes(), key=lambda node: node.registered_at)
    return {int(node.node_id): i for i, node in enumerate(nodes)}
