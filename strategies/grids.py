"""A grid without an engine: a whole federation in one process, under virtual time."""

import heapq
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from strategies.checks import require_choice, require_number
from strategies.clock import VirtualClock
from strategies.latency import Duration
from strategies.wire import (
    message_from_bytes,
    message_to_bytes,
    records_from_bytes,
    records_to_bytes,
)

# Flower's ErrorCode
CLIENT_APP_CRASHED, CLIENT_APP_RAISED, MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE = 0, 2, 3, 5
SERVER_ID, FIRST_NODE_ID = 1, 1000

RAISE, CRASH, DROP, SILENT = "raise", "crash", "drop", "silent"
LATE, DUPLICATE, FORGE, REFUSE = "late", "duplicate", "forge", "refuse"
FAULTS = (RAISE, CRASH, DROP, SILENT, LATE, DUPLICATE, FORGE, REFUSE)
FOREVER = float("inf")
LATENESS = 60.0

Fault = Callable[[int, int], str | None]


@dataclass
class Node:
    """A SuperNode from its start to its end; after a restart it is another one.

    Parameters
    ----------
    context : Context
    begin, end : float
        Virtual time.
    free_at : float
        When it is done with all that it was sent.
    sent : int
        Messages that it was sent.
    """

    context: Context
    begin: float
    end: float
    free_at: float = 0.0
    sent: int = 0

    @property
    def partition_id(self) -> int:
        """Which part of the data it has."""
        return int(self.context.node_config["partition-id"])


@dataclass(order=True)
class Due:
    """A reply that is ready at a virtual time; of equal times, the message sent first."""

    time: float
    number: int
    message_id: str = field(compare=False)
    reply: Message = field(compare=False)


class LocalGrid(Grid):
    """A grid without an engine: it has a run of its own, and how messages travel is up to it."""

    def __init__(self) -> None:
        # Outside of a Flower process nobody has set the identity that a Message is stamped with.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SERVER_ID, 1
        self._run = Run.create_empty(1)

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

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


class GridAround(Grid):
    """A grid that changes how the messages of another one come and go; the run is the other's.

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

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message (deprecated in Flower, but abstract there)."""
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)


class InMemoryGrid(LocalGrid):
    """A federation of `num_nodes` nodes that run `client_app` in this process.

    A client is run when its message is sent, on the arrays of the message, and its reply is
    handed out when its virtual time has come. A node does one message at a time. Time stands
    still until ``grid.clock.sleep`` or ``send_and_receive`` let it pass.

    Parameters
    ----------
    client_app : ClientApp
    num_nodes : int
        Node i has the node config ``partition-id = i`` and ``num-partitions = num_nodes``.
    duration : callable or float, default 1.0
        Virtual seconds that a node takes for a message: for all, or ``duration(partition_id, k)``
        for the k-th message of a node, such as a :class:`strategies.latency.Latency`. Longer than
        the message's time-to-live is no answer.
    faults : callable or mapping, optional
        ``faults(partition_id, k)`` gives what goes wrong with the k-th message of a node: None, or

        - ``"raise"``: the app raises an exception (error code 2);
        - ``"crash"``: its process dies (code 0);
        - ``"drop"``: no answer until the time-to-live is over (code 3);
        - ``"silent"``: no answer ever, as of a node that hangs;
        - ``"late"``: the reply comes only a minute after its time-to-live;
        - ``"duplicate"``: the reply comes twice;
        - ``"forge"``: another reply comes first, which claims to be of another node;
        - ``"refuse"``: the message cannot be sent.

        A mapping gives their probabilities, drawn by `seed`.
    run_config : dict, optional
        The ``context.run_config`` of every node.
    seed : int, default 0
        Of the random faults.
    presence : mapping, optional
        ``{partition_id: [(begin, end), ...]}``: virtual times at which a node is there; others
        always are. A message in flight when its node leaves is lost (code 5). A node that comes
        back has a new id and an empty state, like a SuperNode that restarts without a key.
    """

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
            stays = (presence or {}).get(i, [(0.0, FOREVER)])
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
        """Virtual time at which the next reply is ready, None if there is none."""
        # A reply that is ready may be one that nobody wants: time must pass it by.
        self._settle()
        return self._due[0].time if self._due else None

    def _settle(self) -> None:
        now = self.clock.monotonic()
        while self._due and self._due[0].time <= now:
            due = heapq.heappop(self._due)
            self._ready.setdefault(due.message_id, []).append(due)

    # ---- Flower's interface ------------------------------------------------------------------

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are there now."""
        now = self.clock.monotonic()
        return [node_id for node_id, node in self.nodes.items() if node.begin <= now < node.end]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run each message on its node; an empty id stands for one that could not be sent."""
        present = set(self.get_node_ids())
        return [
            self._push(message) if message.metadata.dst_node_id in present else ""
            for message in messages
        ]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are ready, in the order of their times."""
        self._settle()
        found = [self._ready.pop(message_id, []) for message_id in message_ids]
        return [due.reply for due in sorted(itertools.chain.from_iterable(found))]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send, and let time pass until all have answered or `timeout` is over."""
        waiting = {message_id for message_id in self.push_messages(messages) if message_id}
        end = FOREVER if timeout is None else self.clock.monotonic() + timeout
        replies: list[Message] = []
        while waiting:
            got = list(self.pull_messages(waiting))
            replies += got
            waiting -= {reply.metadata.reply_to_message_id for reply in got}
            due = min((d.time for d in self._due if d.message_id in waiting), default=FOREVER)
            if due > end or due == FOREVER:
                break
            self.clock.now = due
        if waiting and end < FOREVER:
            self.clock.now = max(self.clock.now, end)
        return replies

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
        message.metadata.__dict__["_message_id"] = message_id
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
                forged.metadata.__dict__["_src_node_id"] = node_id + 1
                self._answer_at(ready, message_id, forged)
            self._answer_at(over + LATENESS if fault == LATE else ready, message_id, reply)
            if fault == DUPLICATE:
                self._answer_at(ready, message_id, reply)
        return message_id

    def _answer(self, message: Message, context: Context) -> Message:
        # The engines serialise: a client that changes its message must change nobody else's.
        copy = message_from_bytes(message_to_bytes(message))
        try:
            return self.client_app(copy, context)
        except Exception as error:  # as every runtime of Flower does
            return Message(Error(CLIENT_APP_RAISED, f"{type(error)}: {error}"), reply_to=message)

    def _fail(self, message: Message, time: float, code: int, reason: str) -> None:
        reply = Message(Error(code, reason), reply_to=message)
        if code in (MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE):  # the SuperLink says so
            reply.metadata.__dict__["_src_node_id"] = SERVER_ID
        self._answer_at(time, message.metadata.message_id, reply)

    def _answer_at(self, time: float, message_id: str, reply: Message) -> None:
        self._replies += 1
        heapq.heappush(self._due, Due(time, self._replies, message_id, reply))

    # ---- checkpoints -------------------------------------------------------------------------

    def save_state(self) -> dict[str, bytes]:
        """Clock, nodes with their state, and replies that are on their way."""
        due = sorted([*self._due, *itertools.chain.from_iterable(self._ready.values())])
        about = {
            "now": self.clock.now,
            "messages": self._messages,
            "replies": self._replies,
            "nodes": {str(i): [node.free_at, node.sent] for i, node in self.nodes.items()},
            "due": [[each.time, each.number, each.message_id] for each in due],
        }
        return {
            "about": json.dumps(about).encode(),
            **{f"state-{i}": records_to_bytes(n.context.state) for i, n in self.nodes.items()},
            **{f"reply-{each.number}": message_to_bytes(each.reply) for each in due},
        }

    def load_state(self, state: dict[str, bytes]) -> None:
        """Go on from what :meth:`save_state` has returned; the app and the settings are ours."""
        about = json.loads(state["about"])
        self.clock.now = about["now"]
        self._messages, self._replies = about["messages"], about["replies"]
        for key, (free_at, sent) in about["nodes"].items():
            node = self.nodes[int(key)]
            node.free_at, node.sent = free_at, sent
            node.context.state = records_from_bytes(state[f"state-{key}"])
        self._ready = {}
        self._due = [
            Due(time, number, message_id, message_from_bytes(state[f"reply-{number}"]))
            for time, number, message_id in about["due"]
        ]


def constant_duration(seconds: float) -> Duration:
    """The same time for every message."""
    require_number("duration", seconds, at_least=0)
    return lambda partition_id, k: seconds


def random_faults(probabilities: Mapping[str, float], seed: int) -> Fault:
    """Faults that depend on ``(seed, partition_id, k)`` alone."""
    for kind, probability in probabilities.items():
        require_choice("a fault", kind, FAULTS)
        require_number(f"the probability of {kind}", probability, at_least=0, at_most=1)
    require_number("the sum of the probabilities", sum(probabilities.values()), at_most=1)
    kinds, limits = list(probabilities), np.cumsum(list(probabilities.values()))

    def fault(partition_id: int, k: int) -> str | None:
        if not kinds:
            return None
        place = int(
            np.searchsorted(limits, np.random.default_rng([seed, partition_id, k]).random())
        )
        return kinds[place] if place < len(kinds) else None

    return fault
