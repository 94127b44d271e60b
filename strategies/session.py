"""One training from its first message to its last: the event loop behind a strategy."""

import math
from logging import INFO, WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from strategies.arrays import size_of_arrays
from strategies.evaluation import Evaluation
from strategies.exchange import Exchange
from strategies.failures import TrainingFailedError
from strategies.flights import EVALUATE, TRAIN, Flight
from strategies.guard import RejectedError
from strategies.hooks import EvaluateFn, SessionStrategy
from strategies.merge import Robust
from strategies.session_state import SessionState
from strategies.versions import Versions


class Session(SessionState):
    """A training: the steps that change its state.

    Parameters
    ----------
    strategy : SessionStrategy
    grid : Grid
    initial_arrays : ArrayRecord
    train_config, evaluate_config : ConfigRecord, optional
    evaluate_fn : callable, optional
    """

    def __init__(
        self,
        strategy: SessionStrategy,
        grid: Grid,
        initial_arrays: ArrayRecord,
        train_config: ConfigRecord | None,
        evaluate_config: ConfigRecord | None,
        evaluate_fn: EvaluateFn | None,
    ) -> None:
        versions = Versions(initial_arrays)
        exchange = Exchange(strategy, grid, versions)
        super().__init__(strategy, exchange, versions, Result(arrays=initial_arrays))
        self.train_config = train_config or ConfigRecord()
        self.evaluate_config = evaluate_config or ConfigRecord()
        self.evaluate_fn = evaluate_fn
        self.present: list[int] = []
        self.banned: list[int] = []
        self.short = (0, 0)
        strategy.guard.begin(
            self.versions.layout,
            strategy.arrayrecord_key,
            strategy.weighted_by_key,
            strategy.compression,
        )
        strategy.server_optimizer.state.clear()

    # ---- the loop ----------------------------------------------------------------------------

    def run(self, num_rounds: int, timeout: float) -> Result:
        """Make versions until there are `num_rounds` or `timeout` seconds have passed."""
        if self.version == 0:
            self._on_version()
        while self.version < num_rounds and self.exchange.now() < timeout:
            before = self.version
            self.step(num_rounds)
            self.save(before)
            self._require_success()
        if self.version < num_rounds:
            made = f"{self.version} of {num_rounds} versions"
            log(WARNING, "timeout after %.0f s: %s", timeout, made)
        self._finish_evaluation(timeout)
        return self.result

    def step(self, num_rounds: int) -> None:
        """Send messages to idle nodes, receive what has arrived, or sleep."""
        if self.wake or self.exchange.now() - self.last_refresh >= self.strategy.refresh_interval:
            self.wake, self.last_refresh = False, self.exchange.now()
            self.dispatch(training=self.version < num_rounds)
        # Also before receiving: when nodes leave, a K that is a fraction decreases.
        flushed = self._flush_if_due(num_rounds)
        replies = self.exchange.pull()
        for reply in replies:
            self.receive(reply)
            self._flush_if_due(num_rounds)
        if self.version < num_rounds and self._is_late():
            self.flush()
            flushed = True
        if replies or flushed:
            self.wake = True
        else:
            self.exchange.sleep()

    def _require_success(self) -> None:
        """Raise ``TrainingFailedError`` if every node that takes part keeps failing."""
        most, online = self.strategy.max_failures, [*self.present, *self.banned]
        silent = self.exchange.now() - self.last_success >= self.strategy.patience
        failing = (i in self.banned or self.flights.failures(i) >= most for i in online)
        if silent and online and all(failing):
            reasons = self.exchange.reasons
            raise TrainingFailedError(most, {i: reasons.get(i, "unknown") for i in online})

    def _flush_if_due(self, num_rounds: int) -> bool:
        due = self.version < num_rounds and 0 < self.needed <= len(self.buffer)
        if due:
            self.flush()
        return due

    def _is_late(self) -> bool:
        wait = self.strategy.flush_after
        late = wait is not None and self.exchange.now() - self.buffer.oldest >= wait
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
        """Receive and discard the replies in flight; return how many messages are unanswered."""
        end = self.exchange.now() + timeout
        while len(self.flights) and self.exchange.now() < end:
            replies = self.exchange.pull()
            for reply in replies:
                self.receive(reply)
            if not replies:
                self.exchange.sleep()
        self.buffer.clear()
        return len(self.flights)

    # ---- sending -----------------------------------------------------------------------------

    def update_needed(self, nodes: int) -> None:
        """Compute K for the nodes that take part, and log when it changes or is out of reach."""
        needed = self._reachable(self.strategy.updates_needed(nodes))
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
            self._warn_of_a_rule_without_effect(needed)
        self.short = (needed, nodes)
        self.needed = needed

    def _reachable(self, needed: int) -> int:
        """Return K without the nodes that are banned: the others must not wait for them."""
        return min(needed, max(len(self.present), 1)) if self.banned else needed

    def _warn_of_a_rule_without_effect(self, needed: int) -> None:
        rule = self.strategy.merge
        if isinstance(rule, Robust) and not rule.cuts(needed):
            enough = next((k for k in range(needed, 10 * needed + 100) if rule.cuts(k)), None)
            log(
                WARNING,
                "K is %s, of which %s discards nothing: one bad update is as bad as in the mean%s",
                needed,
                rule,
                f"; it needs {enough} or more" if enough else "",
            )

    def dispatch(self, training: bool) -> None:
        """Send evaluate messages to the nodes drawn for it, train messages to other idle ones."""
        grid = self.exchange.grid
        self._look()
        self.flights.forget_all_but({*self.present, *self.banned}, self.exchange.now())
        self.update_needed(len(self.present))
        if self.evaluation is not None:
            patience = max(map(self.strategy.time_to_live, self.evaluation.waiting), default=0.0)
            expired = self.exchange.now() - self.evaluation.opened_at > patience
            self.evaluation.drop(self.present, expired)
            messages = self.strategy.configure_evaluate(
                self.evaluation.version, self.evaluation.arrays, self.evaluate_config, grid
            )
            for message in messages:
                self.evaluation.waiting.discard(message.metadata.dst_node_id)
                self.exchange.send(message, self.evaluation.version, EVALUATE)
            self._close_evaluation()
        if training and self._may_begin(len(self.present)):
            for message in self.strategy.configure_train(
                self.version + 1, self.result.arrays, self.train_config, grid
            ):
                self.exchange.send(message, self.version, TRAIN)

    def _look(self) -> None:
        """Find out which nodes take part now, and which ones of them are banned."""
        online = sorted(self.strategy.nodes(self.exchange.grid))
        self.banned = [node_id for node_id in online if self.exchange.is_banned(node_id)]
        self.present = [node_id for node_id in online if node_id not in self.banned]

    def _may_begin(self, nodes: int) -> bool:
        begun = self.version > 0 or len(self.flights) > 0 or len(self.buffer) > 0
        return begun or nodes >= self.strategy.min_available_nodes

    # ---- receiving ---------------------------------------------------------------------------

    def receive(self, reply: Message) -> None:
        """Validate a reply, and buffer its update or report why not."""
        flight = self.exchange.match(reply)
        if flight is None:
            return
        fields, guard = self.exchange.fields(flight), self.strategy.guard
        try:
            if flight.kind == EVALUATE:
                self._receive_evaluation(reply, flight)
            else:
                self._receive_update(reply, flight, fields)
        except RejectedError as error:
            guard.reject(error.check, flight.node_id)
            self.exchange.fail(flight.node_id, "reject", str(error), check=error.check, **fields)
            return
        guard.accepted[flight.node_id] += 1

    def _receive_update(self, reply: Message, flight: Flight, fields: dict[str, Any]) -> None:
        # A buffered update is merged into the next version: its staleness will not change.
        self.strategy.check_staleness(fields["staleness"])
        base = self.versions.bases[flight.base_version]
        update = self.strategy.guard.check(reply, flight, base, self.exchange.now())
        # Not after an evaluation: a node that can evaluate may still fail in training.
        self.flights.succeeded(flight.node_id)
        self.last_success = self.exchange.now()
        fields = {"metrics": dict(update.metrics), "bytes": size_of_arrays(reply), **fields}
        self.exchange.emit("reply", node=flight.node_id, replaced=self.buffer.put(update), **fields)

    # ---- versions ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Make the next version from the buffer, and empty it."""
        strategy = self.strategy
        scaled = self.buffer.bound(strategy.weight_factor, strategy.guard.most_norm)
        updates = self.buffer.in_order()
        fields = {
            "nodes": [update.node_id for update in updates],
            "members": [update.member for update in updates],
            "steps": [update.steps for update in updates],
            "staleness": [self.version - update.base_version for update in updates],
            "norms": [float(f"{update.norm:.4g}") for update in updates],
            "scaled_down": scaled,
        }
        replies = [update.reply for update in updates]
        arrays, metrics = self.strategy.aggregate_train(self.version + 1, replies)
        self.buffer.clear()
        if arrays is None:
            self.exchange.emit("discard", version=self.version, **fields)
            return
        self.versions.add(arrays)
        self.versions.forget_all_but(self.flights.base_versions)
        self.result.arrays = arrays
        if metrics is not None:
            self.result.train_metrics_clientapp[self.version] = metrics
        self.exchange.emit("flush", version=self.version, **fields)
        log(
            INFO,
            "version %s from %s nodes at %.1f s",
            self.version,
            len(updates),
            self.exchange.now(),
        )
        self._on_version()

    def _on_version(self) -> None:
        """Evaluate on the server, start the evaluation on the nodes, call ``on_version``."""
        metrics = self.evaluate_fn(self.version, self.result.arrays) if self.evaluate_fn else None
        if metrics is not None:
            self.result.evaluate_metrics_serverapp[self.version] = metrics
        if self.version > 0:
            self._open_evaluation()
            train_metrics = self.result.train_metrics_clientapp.get(self.version)
            self.strategy.on_version(self.version, self.result.arrays, train_metrics)

    # ---- evaluation on the nodes -------------------------------------------------------------

    def _open_evaluation(self) -> None:
        """Draw nodes for the newest version, unless another one is being evaluated."""
        fraction = self.strategy.fraction_evaluate
        if fraction == 0 or self.evaluation is not None:
            return
        self._look()
        count = len(self.present)
        drawn = self.rng.permutation(count)[: math.ceil(fraction * count)]
        waiting = {self.present[i] for i in drawn}
        self.evaluation = Evaluation(self.version, self.result.arrays, waiting, self.exchange.now())
        self.evaluated = self.version

    def _receive_evaluation(self, reply: Message, flight: Flight) -> None:
        self.strategy.guard.check_size(reply)
        self.strategy.guard.check_metrics(reply)
        if self.evaluation is not None and self.evaluation.version == flight.base_version:
            self.evaluation.replies.append(reply)
        self.exchange.emit("evaluation", node=flight.node_id, **self.exchange.fields(flight))

    def _close_evaluation(self) -> None:
        evaluation = self.evaluation
        if evaluation is None or evaluation.waiting or self.flights.evaluating:
            return
        self.evaluation = None
        metrics = self.strategy.aggregate_evaluate(evaluation.version, evaluation.replies)
        if metrics is not None:
            self.result.evaluate_metrics_clientapp[evaluation.version] = metrics
        self.exchange.emit("evaluated", version=evaluation.version, nodes=len(evaluation.replies))

    def _finish_evaluation(self, timeout: float) -> None:
        """After training, complete the open evaluation, and evaluate the last version if due."""
        due = self.strategy.fraction_evaluate > 0
        while self.exchange.now() < timeout and (
            self.evaluation or (due and self.evaluated < self.version)
        ):
            self._open_evaluation()
            self.wake = True
            self.step(self.version)
