"""Grids without an engine: a whole federation in one process, under virtual time."""

import heapq
import itertools
from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

CLIENT_APP_RAISED = 2  # flwr's ErrorCode.CLIENT_APP_RAISED_EXCEPTION
MESSAGE_UNAVAILABLE = 3  # flwr's ErrorCode.MESSAGE_UNAVAILABLE
FIRST_NODE_ID = 1000


class VirtualClock:
    """A clock that stands still until somebody sleeps.

    Parameters
    ----------
    next_event : callable
        Time of the next thing that will happen, None if nothing will.
    """

    def __init__(self, next_event: Callable[[], float | None]) -> None:
        self._now, self._next_event = 0.0, next_event

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Jump by `seconds`, or to the next event if that comes earlier."""
        event = self._next_event()
        end = self._now + seconds
        self._now = end if event is None else max(min(event, end), self._now)


class InMemoryGrid(Grid):
    """A federation of `num_nodes` nodes that run `client_app` in this process.

    Parameters
    ----------
    client_app : ClientApp
    num_nodes : int
        Node i has the node config ``partition-id = i`` and ``num-partitions = num_nodes``.
    duration : callable, optional
        ``duration(partition_id, k)``: virtual seconds that the node takes for its k-th message;
        default: 1 for all. Longer than the message's time-to-live is no answer.
    faults : callable, optional
        ``faults(partition_id, k)``: ``None``, ``"raise"`` (the app raises) or ``"drop"`` (no
        answer until the message's time-to-live is over); default: none.
    run_config : dict, optional
        The ``context.run_config`` of every node.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        *,
        duration: Callable[[int, int], float] = lambda partition_id, k: 1.0,
        faults: Callable[[int, int], str | None] = lambda partition_id, k: None,
        run_config: dict[str, bool | float | int | str] | None = None,
    ) -> None:
        # Outside of a Flower process nobody has set the identity that a Message is stamped with.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.client_app, self.duration, self.faults = client_app, duration, faults
        self.contexts = {
            FIRST_NODE_ID + i: Context(
                run_id=1,
                node_id=FIRST_NODE_ID + i,
                node_config={"partition-id": i, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for i in range(num_nodes)
        }
        self.clock = VirtualClock(self.next_event)
        self._run = Run.create_empty(1)
        self._counter = itertools.count()
        self._sent = dict.fromkeys(self.contexts, 0)
        self._due: list[tuple[float, int, Message]] = []

    def next_event(self) -> float | None:
        """Virtual time at which the next reply is ready."""
        return self._due[0][0] if self._due else None

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

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run each message on its node at once; the reply is ready when its time has come."""
        ids = []
        for message in messages:
            node_id, number = message.metadata.dst_node_id, next(self._counter)
            message_id = f"message-{number}"
            message.metadata.__dict__["_message_id"] = message_id
            context, k = self.contexts[node_id], self._sent[node_id]
            self._sent[node_id] += 1
            partition_id = int(context.node_config["partition-id"])
            fault, wait = self.faults(partition_id, k), self.duration(partition_id, k)
            if fault == "drop" or wait > message.metadata.ttl:
                wait = message.metadata.ttl
                reply = Message(
                    Error(MESSAGE_UNAVAILABLE, "time-to-live is over"), reply_to=message
                )
            elif fault == "raise":
                reply = Message(Error(CLIENT_APP_RAISED, "scripted fault"), reply_to=message)
            else:
                reply = self._answer(message, context)
            heapq.heappush(self._due, (self.clock.monotonic() + wait, number, reply))
            ids.append(message_id)
        return ids

    def _answer(self, message: Message, context: Context) -> Message:
        try:
            return self.client_app(message, context)
        except Exception as error:  # as every runtime of Flower does
            return Message(Error(CLIENT_APP_RAISED, f"{type(error)}: {error}"), reply_to=message)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are ready, in the order of their times."""
        wanted = set(message_ids)
        ready: list[tuple[float, int, Message]] = []
        later: list[tuple[float, int, Message]] = []
        for entry in sorted(self._due, key=lambda entry: entry[:2]):
            mine = entry[2].metadata.reply_to_message_id in wanted
            (ready if mine and entry[0] <= self.clock.monotonic() else later).append(entry)
        self._due = later
        return [reply for _, _, reply in ready]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send, and let time pass until all have answered or `timeout` is over."""
        waiting = set(self.push_messages(messages))
        end = float("inf") if timeout is None else self.clock.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (event := self.next_event()) is not None and event <= end:
            self.clock.sleep(event - self.clock.monotonic())
            got = list(self.pull_messages(waiting))
            replies += got
            waiting -= {reply.metadata.reply_to_message_id for reply in got}
        return replies
