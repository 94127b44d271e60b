"""One training, from its first message to its last: the event loop behind a strategy."""

import math
import time
from collections.abc import Callable
from logging import ERROR, INFO, WARNING
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from strategies.arrays import Layout, to_arrays, to_record
from strategies.buffer import Buffer, Update
from strategies.clock import Clock
from strategies.evaluation import Evaluation
from strategies.flights import EVALUATE, TRAIN, Flight, Flights
from strategies.freeze import freeze, thaw
from strategies.guard import RejectedError
from strategies.wire import size_of_arrays

if TYPE_CHECKING:
    from strategies.buffered_async import BufferedAsync

# The engine answers for a lost node when the message's time-to-live is over; some never do.
GRACE = 5.0

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class Session:
    """What is true at this moment of a training, and the steps that change it.

    Parameters
    ----------
    strategy : BufferedAsync
        Settings and hooks.
    grid : Grid
    initial_arrays : ArrayRecord
    train_config, evaluate_config : ConfigRecord
    evaluate_fn : callable, optional
    """

    def __init__(
        self,
        strategy: "BufferedAsync",
        grid: Grid,
        initial_arrays: ArrayRecord,
        train_config: ConfigRecord,
        evaluate_config: ConfigRecord,
        evaluate_fn: EvaluateFn | None,
    ) -> None:
        self.strategy, self.grid = strategy, grid
        self.train_config, self.evaluate_config = train_config, evaluate_config
        self.evaluate_fn = evaluate_fn
        self.clock: Clock = strategy.clock or getattr(grid, "clock", None) or time
        self.zero = self.clock.monotonic()
        arrays = to_arrays(initial_arrays)
        self.layout = Layout(arrays)
        self.version = 0
        self.bases = {0: self.layout.flatten(arrays)}
        if not np.all(np.isfinite(self.bases[0])):
            raise ValueError("initial_arrays holds a value that is not finite")
        self.result = Result(arrays=initial_arrays)
        self.buffer = Buffer()
        self.flights = Flights(strategy.backoff, strategy.max_backoff)
        self.rng = np.random.default_rng(strategy.seed)
        self.evaluation: Evaluation | None = None
        self.evaluated = 0
        self.merging: dict[str, Update] = {}
        self.unmatched = 0
        self.present: list[int] = []
        self.needed, self.short = 0, (0, 0)
        self.wake, self.last_look = True, -math.inf
        strategy.guard.begin(
            self.layout, strategy.arrayrecord_key, strategy.weighted_by_key, strategy.compression
        )
        strategy.server_optimizer.state.clear()

    # ---- time and talk -----------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since training began."""
        return self.clock.monotonic() - self.zero

    def emit(self, event: str, **values: Any) -> None:
        """Tell the strategy's listener."""
        self.strategy.on_event({"t": round(self.now(), 4), "event": event, **values})

    # ---- the loop ----------------------------------------------------------------------------

    def run(self, num_rounds: int, timeout: float) -> Result:
        """Make versions until there are `num_rounds` or `timeout` seconds have passed."""
        if self.version == 0:
            self._look_at_version()
        while self.version < num_rounds and self.now() < timeout:
            before = self.version
            self.step(num_rounds)
            self._save(before)
        if self.version < num_rounds:
            log(
                WARNING,
                "timeout after %.0f s: %s of %s versions",
                timeout,
                self.version,
                num_rounds,
            )
        self._finish_evaluation(timeout)
        return self.result

    def step(self, num_rounds: int) -> None:
        """Send what can be sent, take what has come, or wait a moment."""
        if self.wake or self.now() - self.last_look >= self.strategy.refresh_interval:
            self.wake, self.last_look = False, self.now()
            self.dispatch(training=self.version < num_rounds)
        # Nodes that leave make a K that is a fraction smaller.
        flushed = self._flush_if_due(num_rounds)
        replies = self.pull()
        for reply in replies:
            self.receive(reply)
            self._flush_if_due(num_rounds)
        if self.version < num_rounds and self._is_late():
            self.flush()
            flushed = True
        if replies or flushed:
            self.wake = True
        else:
            self.clock.sleep(self.strategy.poll_interval)

    def _flush_if_due(self, num_rounds: int) -> bool:
        due = self.version < num_rounds and 0 < self.needed <= len(self.buffer)
        if due:
            self.flush()
        return due

    def _is_late(self) -> bool:
        wait = self.strategy.flush_after
        late = wait is not None and self.now() - self.buffer.oldest >= wait
        if late:
            log(
                WARNING,
                "a version from %s updates instead of %s: the first has waited %.0f s",
                len(self.buffer),
                self.needed,
                wait,
            )
        return late

    def drain(self, timeout: float) -> int:
        """Wait for the messages in flight; returns how many have not been answered."""
        end = self.now() + timeout
        while len(self.flights) and self.now() < end:
            replies = self.pull()
            for reply in replies:
                self.receive(reply)
            if not replies:
                self.clock.sleep(self.strategy.poll_interval)
        self.buffer = Buffer()
        return len(self.flights)

    # ---- sending -----------------------------------------------------------------------------

    def idle(self, node_ids: list[int]) -> list[int]:
        """Which of these nodes may be sent a message now."""
        now = self.now()
        return [node_id for node_id in node_ids if self.flights.may_start(node_id, now)]

    def count(self, nodes: int) -> None:
        """Work out K for the nodes that take part."""
        needed = self.strategy.updates_needed(nodes)
        if needed > nodes and (needed, nodes) != self.short:
            wait = self.strategy.flush_after
            log(
                WARNING,
                "K is %s, but only %s nodes take part: %s",
                needed,
                nodes,
                "waiting for more" if wait is None else f"flushing after {wait:g} s",
            )
        if needed != self.needed:
            log(INFO, "K is %s of the %s nodes that take part", needed, nodes)
        self.short = (needed, nodes)
        self.needed = needed

    def dispatch(self, training: bool) -> None:
        """Evaluate on the nodes that are asked for it; send the other idle ones on to train."""
        self.present = sorted(self.strategy.nodes(self.grid))
        self.flights.forget_all_but(set(self.present), self.now())
        self.count(len(self.present))
        if self.evaluation is not None:
            patience = max(map(self.strategy.time_to_live, self.evaluation.waiting), default=0.0)
            expired = self.now() - self.evaluation.opened_at > patience
            self.evaluation.drop(self.present, expired)
            messages = self.strategy.configure_evaluate(
                self.evaluation.version, self.evaluation.arrays, self.evaluate_config, self.grid
            )
            for message in messages:
                self._send(message, self.evaluation.version, EVALUATE)
            self._close_evaluation()
        if training and self._may_begin(len(self.present)):
            for message in self.strategy.configure_train(
                self.version, self.result.arrays, self.train_config, self.grid
            ):
                self._send(message, self.version, TRAIN)

    def _may_begin(self, nodes: int) -> bool:
        begun = self.version > 0 or len(self.flights) > 0 or len(self.buffer) > 0
        return begun or nodes >= self.strategy.min_available_nodes

    def _send(self, message: Message, version: int, kind: str) -> None:
        node_id = message.metadata.dst_node_id
        if kind == EVALUATE and self.evaluation is not None:
            self.evaluation.waiting.discard(node_id)
        # One message per call: the grids disagree on what stands for one that was refused.
        pushed = [message_id for message_id in self.grid.push_messages([message]) if message_id]
        if not pushed:
            self.fail(node_id, "error", "the message could not be sent", kind=kind)
            return
        member, ttl = self.strategy.member_of(node_id), message.metadata.ttl
        self.flights.open(Flight(pushed[0], node_id, member, version, self.now(), ttl, kind))
        about = {"version": version, "message": pushed[0], "kind": kind}
        self.emit("dispatch", node=node_id, bytes=size_of_arrays(message), **about)

    # ---- receiving ---------------------------------------------------------------------------

    def pull(self) -> list[Message]:
        """Replies that are there; flights that nobody will answer any more are closed."""
        for flight in self.flights.overdue(self.now(), GRACE):
            self.flights.close(flight)
            self.fail(flight.node_id, "error", "no answer in its time", **self._about(flight))
        return list(self.grid.pull_messages(self.flights.message_ids)) if len(self.flights) else []

    def receive(self, reply: Message) -> None:
        """Buffer one reply, or say why not."""
        # By message: the source of an error reply is the SuperLink, not the node.
        flight = self.flights.get(reply.metadata.reply_to_message_id)
        forged = flight and not reply.has_error() and reply.metadata.src_node_id != flight.node_id
        if flight is None or forged:
            self.unmatched += 1
            self.emit("unmatched", message=reply.metadata.reply_to_message_id)
            return
        self.flights.close(flight)
        about = self._about(flight)
        if reply.has_error():
            reason = str(reply.error.reason)[:300]
            self.fail(flight.node_id, "error", reason, code=reply.error.code, **about)
            return
        guard = self.strategy.guard
        try:
            if flight.kind == EVALUATE:
                self._receive_evaluation(reply, flight)
            else:
                self._receive_update(reply, flight, about)
        except RejectedError as rejection:
            guard.reject(rejection.check, flight.node_id)
            check = rejection.check
            self.fail(flight.node_id, "reject", str(rejection), check=check, **about)
            return
        guard.accepted[flight.node_id] += 1

    def _about(self, flight: Flight) -> dict[str, Any]:
        return {
            "kind": flight.kind,
            "message": flight.message_id,
            "version": flight.base_version,
            "staleness": self.version - flight.base_version,
            "latency": round(self.now() - flight.sent_at, 4),
        }

    def _receive_update(self, reply: Message, flight: Flight, about: dict[str, Any]) -> None:
        # An update that is buffered is merged before the next version: its staleness is final.
        self.strategy.check_staleness(about["staleness"])
        base = self.bases[flight.base_version]
        update = self.strategy.guard.check(reply, flight, base, self.now())
        # Not for an evaluation: whoever answers those may still fail in training.
        self.flights.succeeded(flight.node_id)
        replaced = self.buffer.put(update)
        told = {"metrics": dict(update.metrics), "bytes": size_of_arrays(reply)}
        self.emit("reply", node=flight.node_id, replaced=replaced, **told, **about)

    def fail(self, node_id: int, event: str, reason: str, *, kind: str, **values: Any) -> None:
        """Tell of a failure; one in training costs the node a pause, unless it was only slow."""
        offence = kind == TRAIN and values.get("check") != "stale"
        pause = self.flights.failed(node_id, self.now()) if offence else 0.0
        self.emit(event, node=node_id, pause=pause, reason=reason, kind=kind, **values)
        log(WARNING, "node %s: %s (%s); pause %.0f s", node_id, event, reason, pause)

    # ---- versions ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Make the next version from the buffer."""
        updates = self.buffer.take_all()
        staleness = [self.version - update.base_version for update in updates]
        self.merging = {update.flight.message_id: update for update in updates}
        about = {
            "nodes": [update.node_id for update in updates],
            "members": [update.member for update in updates],
            "steps": [update.steps for update in updates],
            "staleness": staleness,
        }
        arrays, metrics = self.strategy.aggregate_train(
            self.version + 1, [update.reply for update in updates]
        )
        self.merging = {}
        if arrays is None:
            self.emit("discard", version=self.version, **about)
            return
        self.version += 1
        self.result.arrays = arrays
        if metrics is not None:
            self.result.train_metrics_clientapp[self.version] = metrics
        self.bases[self.version] = self.layout.flatten(to_arrays(arrays))
        self._forget_bases()
        self.emit("flush", version=self.version, **about)
        log(INFO, "version %s from %s nodes at %.1f s", self.version, len(updates), self.now())
        self._look_at_version()

    def merge(self, updates: list[Update]) -> ArrayRecord | None:
        """Arrays of the next version; None if they would not be finite."""
        strategy = self.strategy
        theta = self.bases[self.version].astype(np.float64)
        deltas = [update.delta for update in updates]
        if strategy.relative_to_newest:
            deltas = [u.delta + (self.bases[u.base_version] - theta) for u in updates]
        with np.errstate(over="ignore", invalid="ignore"):
            delta = strategy.merge(deltas, strategy.weights(updates, self.version))
            state = {name: array.copy() for name, array in strategy.server_optimizer.state.items()}
            stepped = strategy.server_optimizer.step(theta, delta)
            arrays = self.layout.unflatten(stepped)
        if not all(np.all(np.isfinite(array)) for array in arrays.values()):
            log(ERROR, "version %s would not be finite: its updates are left out", self.version + 1)
            strategy.server_optimizer.state.clear()
            strategy.server_optimizer.state.update(state)
            return None
        return to_record(arrays)

    def _forget_bases(self) -> None:
        in_use = self.flights.base_versions | self.buffer.base_versions | {self.version}
        self.bases = {version: base for version, base in self.bases.items() if version in in_use}

    def _look_at_version(self) -> None:
        """Evaluate on the server, ask nodes to evaluate, call back."""
        metrics = self.evaluate_fn(self.version, self.result.arrays) if self.evaluate_fn else None
        if metrics is not None:
            self.result.evaluate_metrics_serverapp[self.version] = metrics
        if self.version > 0:
            self._open_evaluation()
            train_metrics = self.result.train_metrics_clientapp.get(self.version)
            self.strategy.on_version(self.version, self.result.arrays, train_metrics)

    # ---- evaluation on the nodes -------------------------------------------------------------

    def _open_evaluation(self) -> None:
        """Draw nodes for the newest version, unless an older one is still on its way."""
        fraction = self.strategy.fraction_evaluate
        if fraction == 0 or self.evaluation is not None:
            return
        present = sorted(self.strategy.nodes(self.grid))
        drawn = self.rng.permutation(len(present))[: math.ceil(fraction * len(present))]
        waiting = {present[i] for i in drawn}
        self.evaluation = Evaluation(self.version, self.result.arrays, waiting, self.now())
        self.evaluated = self.version

    def _receive_evaluation(self, reply: Message, flight: Flight) -> None:
        self.strategy.guard.check_metrics(reply)
        if self.evaluation is not None and self.evaluation.version == flight.base_version:
            self.evaluation.replies.append(reply)
        self.emit("evaluation", node=flight.node_id, **self._about(flight))

    def _close_evaluation(self) -> None:
        evaluation = self.evaluation
        if evaluation is None or evaluation.waiting or self.flights.evaluating:
            return
        self.evaluation = None
        metrics = self.strategy.aggregate_evaluate(evaluation.version, evaluation.replies)
        if metrics is not None:
            self.result.evaluate_metrics_clientapp[evaluation.version] = metrics
        self.emit("evaluated", version=evaluation.version, nodes=len(evaluation.replies))

    def _finish_evaluation(self, timeout: float) -> None:
        """Hear the nodes on the last version, training being over."""
        if self.strategy.fraction_evaluate == 0:
            return
        while self.now() < timeout and (self.evaluation or self.evaluated < self.version):
            self._open_evaluation()
            self.wake = True
            self.step(self.version)

    # ---- checkpoints -------------------------------------------------------------------------

    def _save(self, before: int) -> None:
        checkpoints = self.strategy.checkpoint
        # One look for replies may make several versions.
        if (
            checkpoints is not None
            and self.version // checkpoints.every > before // checkpoints.every
        ):
            checkpoints.save(self.version, *freeze(self), self.layout.describe())

    def resume(self) -> None:
        """Go on from the newest checkpoint, if the strategy is to and there is one."""
        checkpoints = self.strategy.checkpoint
        found = checkpoints.begin(self.layout.describe()) if checkpoints is not None else None
        if found is not None:
            thaw(self, *found)
            self.emit("resume", version=self.version)
