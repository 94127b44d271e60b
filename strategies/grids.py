"""Grids without an engine: a base for them, and a whole federation in one process."""

import heapq
import itertools
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import ClassVar

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from strategies.checks import require_choice, require_number
from strategies.clock import Clock, VirtualClock
from strategies.faults import (
    CRASH,
    DROP,
    DUPLICATE,
    FAULTS,
    FORGE,
    LATE,
    RAISE,
    REFUSE,
    SILENT,
    Fault,
    random_faults,
)
from strategies.flower_internals import (
    ErrorCode,
    Run,
    empty_run,
    message_from_bytes,
    message_to_bytes,
    records_from_bytes,
    records_to_bytes,
    set_identity,
    set_metadata,
)
from strategies.latency import Duration

CLIENT_APP_CRASHED, CLIENT_APP_RAISED = ErrorCode.UNKNOWN, ErrorCode.CLIENT_APP_RAISED_EXCEPTION
MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE = ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE
SERVER_ID, FIRST_NODE_ID = 1, 1000
LATENESS = 60.0  # seconds after its time-to-live at which a late reply arrives


class PollingGrid(Grid):
    """Base of the grids here: ``send_and_receive`` by pushing, and polling until all have answered.

    Attributes
    ----------
    clock : Clock
        Time that passes between two polls.
    longest_sleep : float, default 1.0
        Most seconds between two polls; infinity if the clock wakes up at each reply.
    """

    clock: Clock
    longest_sleep: ClassVar[float] = 1.0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and wait for their replies.

        Parameters
        ----------
        messages : iterable of Message
        timeout : float, optional
            Seconds of the grid's clock, after which missing replies are left out.

        Returns
        -------
        list of Message
            Replies in the order of their arrival.
        """
        waiting = {message_id for message_id in self.push_messages(messages) if message_id}
        end = math.inf if timeout is None else self.clock.monotonic() + timeout
        replies: list[Message] = []
        while waiting:
            arrived = list(self.pull_messages(waiting))
            replies += arrived
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            left = end - self.clock.monotonic()
            if left <= 0 or (left == math.inf and not self.may_answer(waiting)):
                break
            if not arrived:
                self.clock.sleep(min(left, self.longest_sleep))
        return replies

    def may_answer(self, message_ids: Collection[str]) -> bool:
        """Return whether any of these messages may still be answered."""
        return True

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message (deprecated in Flower, but abstract there)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)


class LocalGrid(PollingGrid):
    """Base of a grid without an engine: it has a run of its own, and transports messages itself."""

    def __init__(self) -> None:
        set_identity(run_id=1, node_id=SERVER_ID, task_id=1)
        self._run = empty_run(1)

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run


class GridAround(PollingGrid):
    """Base of a grid that changes how the messages of another one travel; the run is the other's.

    Parameters
    ----------
    grid : Grid
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self.grid.run


@dataclass
class Node:
    """A SuperNode from its start to its end; after a restart it is another one.

    Parameters
    ----------
    context : Context
    begin, end : float
        Virtual times between which it is online.
    free_at : float
        Virtual time at which it will have answered all messages so far.
    sent : int
        Messages that were sent to it.
    """

    context: Context
    begin: float
    end: float
    free_at: float = 0.0
    sent: int = 0

    @property
    def partition_id(self) -> int:
        """Its part of the data."""
        return int(self.context.node_config["partition-id"])


@dataclass(order=True)
class Due:
    """A reply that arrives at a virtual time; equal times are ordered by the number."""

    time: float
    number: int
    message_id: str = field(compare=False)
    reply: Message = field(compare=False)


class InMemoryGrid(LocalGrid):
    """A federation of `num_nodes` nodes that run `client_app` in this process.

    A client runs when its message is sent; its reply arrives when the virtual time that it takes
    is over. A node works on one message at a time. Virtual time advances only in
    ``grid.clock.sleep`` and ``send_and_receive``.

    Parameters
    ----------
    client_app : ClientApp
    num_nodes : int
        Node i has the node config ``partition-id = i`` and ``num-partitions = num_nodes``.
    duration : callable or float, default 1.0
        Virtual seconds from a message to its reply: a constant, or ``duration(partition_id, k)``
        for the k-th message of a node, such as a :class:`strategies.latency.Latency`. A message
        that takes longer than its time-to-live fails.
    faults : callable or mapping, optional
        ``faults(partition_id, k)`` returns the fault of the k-th message of a node: None, or

        - ``"raise"``: the app raises an exception (error code 2);
        - ``"crash"``: its process dies (code 0);
        - ``"drop"``: no reply before the time-to-live is over (code 3);
        - ``"silent"``: no reply at all, as from a node that hangs;
        - ``"late"``: the reply arrives a minute after its time-to-live;
        - ``"duplicate"``: the reply arrives twice;
        - ``"forge"``: a reply in the name of another node arrives first;
        - ``"refuse"``: the message cannot be sent.

        A mapping holds their probabilities; the draws depend on `seed`.
    run_config : dict, optional
        The ``context.run_config`` of every node.
    seed : int, default 0
        Seed of the random faults.
    presence : mapping, optional
        ``{partition_id: [(begin, end), ...]}``: virtual times at which a node is online; a node
        that is not listed always is. A message in flight when its node leaves fails (code 5). A
        node that returns has a new id and an empty state, as a SuperNode that restarts without a
        key.
    """

    clock: VirtualClock
    longest_sleep = math.inf

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        *,
        duration: Duration | float = 1.0,
        faults: Fault | Mapping[str, float] | None = None,
        run_config: dict[str, bool | float | int | str] | None = None,
        seed: int = 0,
        presence: Mapping[int, Sequence[tuple[float, float]]] | None = None,
    ) -> None:
        require_number("num_nodes", num_nodes, at_least=1)
        super().__init__()
        self.client_app = client_app
        self.duration = duration if callable(duration) else constant_duration(duration)
        self.faults = faults if callable(faults) else random_faults(faults or {}, seed)
        self.nodes: dict[int, Node] = {}
        restarted = FIRST_NODE_ID + num_nodes
        for i in range(num_nodes):
            stays = (presence or {}).get(i, [(0.0, math.inf)])
            for number, (begin, end) in enumerate(stays):
                node_id = FIRST_NODE_ID + i if number == 0 else restarted
                restarted += number > 0
                context = Context(
                    run_id=1,
                    node_id=node_id,
                    node_config={"partition-id": i, "num-partitions": num_nodes},
                    state=RecordDict(),
                    run_config=dict(run_config or {}),
                )
                self.nodes[node_id] = Node(context, begin, end)
        self.clock = VirtualClock(self.next_event)
        self._messages, self._replies = 0, 0
        self._due: list[Due] = []
        self._ready: dict[str, list[Due]] = {}

    @property
    def contexts(self) -> dict[int, Context]:
        """Context of each node, by node id."""
        return {node_id: node.context for node_id, node in self.nodes.items()}

    def next_event(self) -> float | None:
        """Return the virtual time of the next arrival, None if there is none."""
        # A reply that has arrived but is never pulled must not stop the clock.
        self._settle()
        return self._due[0].time if self._due else None

    def _settle(self) -> None:
        now = self.clock.monotonic()
        while self._due and self._due[0].time <= now:
            due = heapq.heappop(self._due)
            self._ready.setdefault(due.message_id, []).append(due)

    # ---- Flower's interface ------------------------------------------------------------------

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are online now."""
        return [node_id for node_id in self.nodes if self.is_online(node_id)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run each message on its node and return its id, empty if it could not be sent."""
        return [self._push(m) if self.is_online(m.metadata.dst_node_id) else "" for m in messages]

    def is_online(self, node_id: int) -> bool:
        """Return whether a node is online now."""
        node = self.nodes.get(node_id)
        return node is not None and node.begin <= self.clock.monotonic() < node.end

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived, in order of arrival."""
        self._settle()
        # By what has arrived, which is little, not by what is waited for.
        wanted = message_ids if isinstance(message_ids, Set) else set(message_ids)
        arrived = [message_id for message_id in self._ready if message_id in wanted]
        found = [self._ready.pop(message_id) for message_id in arrived]
        return [due.reply for due in sorted(itertools.chain.from_iterable(found))]

    def may_answer(self, message_ids: Collection[str]) -> bool:
        """Return whether a reply to any of these messages is on its way."""
        return any(due.message_id in message_ids for due in self._due)

    # ---- one message -------------------------------------------------------------------------

    def _push(self, message: Message) -> str:
        node_id = message.metadata.dst_node_id
        node = self.nodes[node_id]
        k, node.sent = node.sent, node.sent + 1
        fault, ttl = self.faults(node.partition_id, k), message.metadata.ttl
        if fault is not None:
            require_choice("a fault", fault, FAULTS)
        if fault == REFUSE:
            return ""
        self._messages += 1
        message_id = f"message-{self._messages}"
        set_metadata(message, message_id=message_id)
        now = self.clock.monotonic()
        node.free_at = max(now, node.free_at) + self.duration(node.partition_id, k)
        ready, over = node.free_at, now + ttl
        if fault == SILENT:
            return message_id
        if node.end < min(ready, over):
            self._fail(message, node.end, NODE_UNAVAILABLE, "the node has left")
        elif fault == DROP or (ready > over and fault != LATE):
            self._fail(message, over, MESSAGE_UNAVAILABLE, "time-to-live is over")
        elif fault == RAISE:
            self._fail(message, ready, CLIENT_APP_RAISED, "scripted fault")
        elif fault == CRASH:
            self._fail(message, ready, CLIENT_APP_CRASHED, "ActorDiedError")
        else:
            reply = self._answer(message, node.context)
            if fault == FORGE:
                forged = message_from_bytes(message_to_bytes(reply))
                set_metadata(forged, src_node_id=node_id + 1)
                self._answer_at(ready, message_id, forged)
            self._answer_at(over + LATENESS if fault == LATE else ready, message_id, reply)
            if fault == DUPLICATE:
                self._answer_at(ready, message_id, reply)
        return message_id

    def _answer(self, message: Message, context: Context) -> Message:
        # As the engines do: a client that changes its message must not change another one's.
        copy = message_from_bytes(message_to_bytes(message))
        try:
            return self.client_app(copy, context)
        except Exception as error:  # as in every runtime of Flower
            return Message(Error(CLIENT_APP_RAISED, f"{type(error)}:<'{error}'>"), reply_to=message)

    def _fail(self, message: Message, time: float, code: int, reason: str) -> None:
        reply = Message(Error(code, reason), reply_to=message)
        if code in (MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE):  # reported by the SuperLink
            set_metadata(reply, src_node_id=SERVER_ID)
        self._answer_at(time, message.metadata.message_id, reply)

    def _answer_at(self, time: float, message_id: str, reply: Message) -> None:
        self._replies += 1
        heapq.heappush(self._due, Due(time, self._replies, message_id, reply))

    # ---- checkpoints -------------------------------------------------------------------------

    def save_state(self) -> dict[str, bytes]:
        """Serialise the clock, the nodes with their state, and the replies on their way."""
        due = sorted([*self._due, *itertools.chain.from_iterable(self._ready.values())])
        header = {
            "now": self.clock.now,
            "messages": self._messages,
            "replies": self._replies,
            "nodes": {str(i): [node.free_at, node.sent] for i, node in self.nodes.items()},
            "due": [[each.time, each.number, each.message_id] for each in due],
        }
        return {
            "about": json.dumps(header).encode(),
            **{f"state-{i}": records_to_bytes(n.context.state) for i, n in self.nodes.items()},
            **{f"reply-{each.number}": message_to_bytes(each.reply) for each in due},
        }

    def load_state(self, state: dict[str, bytes]) -> None:
        """Restore what :meth:`save_state` has returned; the app and the settings stay."""
        header = json.loads(state["about"])
        self.clock.now = header["now"]
        self._messages, self._replies = header["messages"], header["replies"]
        for key, (free_at, sent) in header["nodes"].items():
            node = self.nodes[int(key)]
            node.free_at, node.sent = free_at, sent
            node.context.state = records_from_bytes(state[f"state-{key}"])
        self._ready = {}
        self._due = [
            Due(time, number, message_id, message_from_bytes(state[f"reply-{number}"]))
            for time, number, message_id in header["due"]
        ]


def constant_duration(seconds: float) -> Duration:
    """Return the same duration for every message."""
    require_number("duration", seconds, at_least=0)
    return lambda partition_id, k: seconds
