"""Messages to nodes, and their replies, matched by the server's own record."""

import math
from collections.abc import Callable, Collection, Iterable
from logging import ERROR, WARNING
from typing import Any, Protocol

from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.arrays import size_of_arrays
from strategies.checks import printable
from strategies.deadlines import Deadlines
from strategies.failures import LONGEST, readable
from strategies.flights import EVALUATE, TRAIN, Flight, Flights
from strategies.grid_protocols import clock_of
from strategies.guard import STALE, Metrics, RejectedError
from strategies.hooks import ExchangeStrategy

# Seconds after its time-to-live at which a message is given up: usually the engine has reported
# the failure by then, but not always.
GRACE = 5.0
MOST_FAILURES = 50  # messages in a row, after which a node is banned: hours, with the longest pause


Fields = dict[str, Any]  # what an event tells about a message in flight
Read = Callable[[Message, Flight, Fields], None]


class Numbered(Protocol):
    """What is trained: the versions of a model, or the rounds of several."""

    newest: int


class Exchange:
    """Send messages, match replies to them, and report every event to the strategy.

    Parameters
    ----------
    strategy : ExchangeStrategy
    grid : Grid
    versions : Numbered
        Source of the staleness in the events.

    Attributes
    ----------
    flights : Flights
    deadlines : Deadlines
        What it has learned of the nodes' latencies.
    zero : float
        Time of the clock at which training began.
    unmatched : int
        Replies that answered no message in flight, or came from another node.
    reasons : dict of int to str
        The last failure of each node.
    """

    def __init__(self, strategy: ExchangeStrategy, grid: Grid, versions: Numbered) -> None:
        self.strategy, self.grid, self.versions = strategy, grid, versions
        self.clock = strategy.clock or clock_of(grid)
        self.zero = self.clock.monotonic()
        self.flights = Flights(strategy.backoff, strategy.max_backoff)
        self.deadlines = Deadlines()
        self.unmatched = 0
        self.reasons: dict[int, str] = {}
        self._banned: set[int] = set()

    def now(self) -> float:
        """Return the seconds since training began."""
        return self.clock.monotonic() - self.zero

    def sleep(self) -> None:
        """Wait until the next poll."""
        self.clock.sleep(self.strategy.poll_interval)

    def emit(self, event: str, **values: Any) -> None:
        """Report an event to the strategy's listener."""
        self.strategy.on_event({"t": round(self.now(), 4), "event": event, **values})

    def idle(self, node_ids: Iterable[int]) -> list[int]:
        """Return the nodes among these that may be sent a message now."""
        return self.flights.idle(node_ids, self.now())

    def send(self, message: Message, version: int, kind: str) -> None:
        """Send a message with the arrays of a version, and record it as in flight."""
        node_id = message.metadata.dst_node_id
        # One message per call: grids disagree on what stands for one that was refused.
        pushed = [message_id for message_id in self.grid.push_messages([message]) if message_id]
        if not pushed:
            self.fail(node_id, "error", "the message could not be sent", kind=kind)
            return
        member, ttl = self.strategy.member_of(node_id), message.metadata.ttl
        self.flights.open(Flight(pushed[0], node_id, member, version, self.now(), ttl, kind))
        fields = {"version": version, "message": pushed[0], "kind": kind}
        self.emit("dispatch", node=node_id, bytes=size_of_arrays(message), **fields)

    def give_up(self) -> None:
        """Give up the messages that are overdue."""
        for flight in self.flights.overdue(self.now(), GRACE, self.give_up_after):
            self.flights.close(flight)
            reason = f"no reply in {self.now() - flight.sent_at:.0f} s"
            self._fail(flight, reason)

    def pull(self) -> list[Message]:
        """Return the replies that have arrived."""
        return list(self.grid.pull_messages(self.flights.message_ids)) if len(self.flights) else []

    def match(self, reply: Message) -> Flight | None:
        """Close the flight that a reply answers, and return it.

        Returns
        -------
        Flight or None
            None if the reply answers no message in flight, comes from another node than the one
            addressed, or is an error; this is reported.
        """
        # Matched by message: the source of an error reply is the SuperLink, not the node.
        flight = self.flights.get(reply.metadata.reply_to_message_id)
        forged = flight and not reply.has_error() and reply.metadata.src_node_id != flight.node_id
        if flight is None or forged:
            self.unmatched += 1
            self.emit("unmatched", message=reply.metadata.reply_to_message_id)
            return None
        self.flights.close(flight)
        if reply.has_error():
            reason, code = readable(reply.error.reason), reply.error.code
            self._fail(flight, reason, code=code)
            return None
        return flight

    def accept(self, reply: Message, train: Read, evaluate: Read) -> None:
        """Hand a reply to one of two functions; report it if that raises ``RejectedError``.

        Parameters
        ----------
        reply : Message
        train, evaluate : callable
            ``f(reply, flight, fields)``, with what an event tells about the flight.
        """
        flight = self.match(reply)
        if flight is None:
            return
        fields, guard = self.fields(flight), self.strategy.guard
        read = evaluate if flight.kind == EVALUATE else train
        try:
            read(reply, flight, fields)
        except RejectedError as error:
            guard.reject(error.check, flight.node_id)
            self.fail(flight.node_id, "reject", str(error), check=error.check, **fields)
            return
        guard.accepted[flight.node_id] += 1

    def trained(
        self, reply: Message, flight: Flight, metrics: Metrics, fields: Fields, **further: Any
    ) -> float:
        """Report a valid reply of a node that has trained; return the seconds since training began.

        An evaluation does not count: a node that can evaluate may still fail in training.
        """
        now = self.now()
        self.flights.succeeded(flight.node_id)
        self.deadlines.answered(flight.node_id, now - flight.sent_at)
        sent = {"metrics": dict(metrics), "bytes": size_of_arrays(reply)}
        self.emit("reply", node=flight.node_id, **further, **sent, **fields)
        return now

    def has_evaluated(self, waiting: Collection[int], end: float) -> bool:
        """Return whether an evaluation is over: all have answered, or so many seconds are over.

        Parameters
        ----------
        waiting : collection of int
            Those to whom no message has been sent yet.
        end : float
            Seconds since training began.
        """
        return self.now() >= end or not (waiting or self.flights.evaluating)

    def drain(self, timeout: float, receive: Callable[[Message], None]) -> int:
        """Hand what arrives to `receive` until nothing is in flight; return what still is.

        Parameters
        ----------
        timeout : float
            Longest wait in seconds.
        receive : callable
        """
        end = self.now() + timeout
        while len(self.flights) and self.now() < end:
            replies = self.pull()
            for reply in replies:
                receive(reply)
            if not replies:
                self.sleep()
        return len(self.flights)

    def give_up_after(self, node_id: int) -> float:
        """Return the seconds after which a message to a node is given up, whatever its ttl."""
        return self.deadlines.of(node_id) if self.strategy.ttl is None else math.inf

    def _fail(self, flight: Flight, reason: str, **values: Any) -> None:
        self.deadlines.failed(flight.node_id, self.now() - flight.sent_at)
        self.fail(flight.node_id, "error", reason, **values, **self.fields(flight))

    def fail(self, node_id: int, event: str, reason: str, *, kind: str, **values: Any) -> None:
        """Report a failure; in training it costs the node a pause, unless it was only too slow."""
        reason = printable(reason, LONGEST)
        offence = kind == TRAIN and values.get("check") != STALE
        pause = self.flights.failed(node_id, self.now()) if offence else 0.0
        self.flights.freed.add(node_id)
        self.reasons[node_id] = reason
        self.emit(event, node=node_id, pause=pause, reason=reason, kind=kind, **values)
        log(WARNING, "node %s: %s (%s); pause %.0f s", node_id, event, reason, pause)
        if self.is_banned(node_id) and node_id not in self._banned:
            self._banned.add(node_id)
            count = self.strategy.guard.offences[node_id]
            self.emit("ban", node=node_id, offences=count, reason=reason)
            text = "node %s is banned from this training after %s offences; the last: %s"
            log(ERROR, text, node_id, count or self.flights.failures(node_id), reason)

    def is_banned(self, node_id: int) -> bool:
        """Return whether a node is to be sent no more messages."""
        return bool(self.banned([node_id]))

    def banned(self, node_ids: Iterable[int]) -> list[int]:
        """Return the nodes among these that are to be sent no more messages."""
        by_guard, failing = self.strategy.guard.is_banned, self.flights.failing(MOST_FAILURES)
        return [node_id for node_id in node_ids if node_id in failing or by_guard(node_id)]

    def reasons_of(self, node_ids: Iterable[int]) -> dict[int, str]:
        """Return what is wrong with each node: its last failure, or its silence."""
        silent = {
            i: f"no reply for {seconds:.0f} s"
            for i, seconds in self.flights.waiting(self.now()).items()
        }
        known = {**silent, **self.reasons}
        return {i: known.get(i, "unknown") for i in node_ids}

    def fields(self, flight: Flight) -> Fields:
        """Return what an event tells about a message in flight."""
        return {
            "kind": flight.kind,
            "message": flight.message_id,
            "version": flight.base_version,
            "staleness": self.versions.newest - flight.base_version,
            "latency": round(self.now() - flight.sent_at, 4),
        }
