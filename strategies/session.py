"""One training from its first message to its last: the event loop behind a strategy."""

from collections.abc import Iterable
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.buffer import Update
from strategies.configs import VersionConfig
from strategies.exchange import Exchange, Fields
from strategies.failures import TrainingFailedError
from strategies.flights import EVALUATE, TRAIN, Flight
from strategies.hooks import ON_VERSION, EvaluateFn, SessionStrategy, ShouldStop
from strategies.merge import Robust
from strategies.privacy import EPSILON, CentralPrivacy, LocalPrivacy
from strategies.reports import log_end, log_metrics, log_version, log_waiting
from strategies.result import NUM_ROUNDS, TIME_LIMIT, TrainingResult
from strategies.result import ON_VERSION as ON_VERSION_STOP
from strategies.sampling import discard
from strategies.session_privacy import SessionPrivacy
from strategies.versions import Versions


class Session(SessionPrivacy):
    """A training: the steps that change its state.

    Parameters
    ----------
    strategy : SessionStrategy
    grid : Grid
    initial_arrays : ArrayRecord
    train_config, evaluate_config : ConfigRecord
    evaluate_fn : callable, optional

    Attributes
    ----------
    share : float
        Weight of the version that is being made: less than 1 for the last one of a training that
        has run out of time.
    ended : bool
        Whether the training is over.
    """

    def __init__(
        self,
        strategy: SessionStrategy,
        grid: Grid,
        initial_arrays: ArrayRecord,
        train_config: ConfigRecord,
        evaluate_config: ConfigRecord,
        evaluate_fn: EvaluateFn | None,
    ) -> None:
        versions = Versions(initial_arrays)
        exchange = Exchange(strategy, grid, versions)
        super().__init__(strategy, exchange, versions, TrainingResult(arrays=initial_arrays))
        self.train_config = VersionConfig(train_config)
        self.evaluate_config = VersionConfig(evaluate_config)
        self.evaluate_fn = evaluate_fn
        self.share, self.ended = 1.0, False
        self.short, self.too_few = (0, 0), -1
        strategy.guard.begin(
            self.versions.layout,
            strategy.arrayrecord_key,
            strategy.weighted_by_key,
            strategy.compression,
            # With noise for what one member can change, it must not change what others count.
            compares=not isinstance(strategy.privacy, CentralPrivacy),
            initial_norm=versions.norm,
        )
        strategy.server_optimizer.state.clear()

    # ---- the loop ----------------------------------------------------------------------------

    def run(
        self, num_rounds: int, timeout: float, should_stop: ShouldStop | None
    ) -> TrainingResult:
        """Make versions until there are `num_rounds`, or a limit or a callback ends it."""
        self.goal, self.timeout, self.should_stop = num_rounds, timeout, should_stop
        try:
            if self.version == 0:
                self._on_version()
            while not self._is_over():
                before = self.version
                self.step()
                self.save(before)
                self._require_success()
            self._flush_at_end(num_rounds)
            self._finish_evaluation()
        finally:
            self.ended = True
        log_end(self.result, self.exchange.now())
        return self.result

    def step(self) -> None:
        """Send messages to idle nodes, receive what has arrived, or sleep."""
        if self.exchange.now() - self.last_refresh >= self.strategy.refresh_interval:
            self.wake, self.last_refresh = True, self.exchange.now()
            self.refresh()
        if self.wake:
            self.wake = False
            self.dispatch(training=self.version < self.goal)
        # Also before receiving: when nodes leave, a K that is a fraction decreases.
        flushed = self._flush_if_due()
        replies = self.exchange.pull()
        for reply in replies:
            self.receive(reply)
            self._flush_if_due()
        if self.version < self.goal and self._is_late():
            self.flush()
            flushed = True
        if replies or flushed:
            self.wake = True
        else:
            self.exchange.sleep()

    def _is_over(self) -> bool:
        if self.version >= self.goal:
            self.result.ended_by = self.result.ended_by or NUM_ROUNDS
        elif self.exchange.now() >= self.strategy.time_limit:
            self.result.ended_by = TIME_LIMIT
        return self.result.ended_by != ""

    def _flush_at_end(self, num_rounds: int) -> None:
        """Report that time has run out, and apply what has arrived for the next version.

        Each update moves the model as much as it does in a full buffer, not more: nobody must gain
        from being the only one in time.
        """
        if self.result.ended_by != TIME_LIMIT:
            return
        limit, before = self.strategy.time_limit, self.version
        made = f"{self.version} of {num_rounds} versions"
        log(WARNING, "training ends early, by time_limit = %g s: %s", limit, made)
        if self.strategy.flush_at_end and len(self.buffer):
            self.share = min(1.0, len(self.buffer) / self.needed)
            self.flush()
            self.save(before)
        self.stop(TIME_LIMIT)

    def _require_success(self) -> None:
        """Raise ``TrainingFailedError`` if every node that takes part fails or is silent."""
        now, most = self.exchange.now(), self.strategy.max_failures
        if now - self.last_success >= self.strategy.patience:
            online = [*self.present, *self.banned]
            failing = (i in self.banned or self.flights.failures(i) >= most for i in online)
            if online and all(failing):
                summary = f"all {len(online)} nodes have failed {most} messages in a row"
                raise TrainingFailedError(summary, self.exchange.reasons_of(online))
        if now - self.waiting_since >= self.timeout and not len(self.buffer):
            online = [*self.present, *self.banned]
            raise TrainingFailedError(
                f"no update has been accepted in timeout = {self.timeout:g} s, which must be more "
                f"than the longest training; {len(online)} nodes are online",
                self.exchange.reasons_of(online),
            )

    def _flush_if_due(self) -> bool:
        due = self.version < self.goal and 0 < self.needed <= len(self.buffer)
        if due:
            self.flush()
        return due

    def _is_late(self) -> bool:
        """Return whether a version is to be made of fewer updates than K."""
        if not len(self.buffer):
            return False
        now, wait = self.exchange.now(), self.strategy.flush_after
        if wait is not None and now - self.buffer.oldest >= wait:
            why = f"the first has waited {wait:.0f} s"
        elif now - self.waiting_since >= self.timeout:
            why = f"timeout = {self.timeout:g} s is over"
        else:
            return False
        text = "a version from %s updates instead of %s: %s"
        log(WARNING, text, len(self.buffer), self.needed, why)
        return True

    def drain(self, timeout: float) -> int:
        """Receive and discard the replies in flight; return how many messages are unanswered."""
        unanswered = self.exchange.drain(timeout, self.receive)
        self.buffer.clear()
        return unanswered

    # ---- sending -----------------------------------------------------------------------------

    def to_train(self) -> list[int]:
        """Return the nodes that are to be sent a train message now."""
        idle, member_of = self.idle, self.strategy.member_of
        if self.flights.any_lost:
            idle = sorted(idle, key=lambda node_id: self.flights.place(member_of(node_id)))
        free = self._free_places()
        if len(idle) <= free:
            return list(idle)
        return sorted(idle[i] for i in self.rng.choice(len(idle), free, replace=False))

    def _free_places(self) -> int:
        """Return how many nodes may be sent a train message now."""
        strategy, free = self.strategy, len(self.present)
        if strategy.concurrency is not None:
            free = strategy.concurrency - len(self.flights)
        if strategy.fraction_train < 1:
            # At least K: a synchronous training could not go on with fewer.
            places = max(strategy.nodes_at_once(len(self.present)), self.needed)
            reported = len(self.buffer) if strategy.refill == ON_VERSION else 0
            free = min(free, places - self.flights.training - reported)
        return max(free, 0)

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

    def refresh(self) -> None:
        """Look which nodes take part now, and at all of them: no other step does for each reply."""
        self.exchange.give_up()
        self.look()
        known = {*self.present, *self.banned}
        self.flights.forget_all_but(known, self.exchange.now())
        self.exchange.deadlines.forget_all_but(known)
        self.update_needed(len(self.present))
        if self.evaluation is not None:
            self.evaluation.drop(self.present)
        if not self.present and not len(self.buffer):
            self.waiting_since = self.exchange.now()

    def dispatch(self, training: bool) -> None:
        """Send evaluate messages to the nodes drawn for it, train messages to other idle ones."""
        grid = self.exchange.grid
        self.add_idle(self.flights.freed)
        self.flights.freed.clear()
        if self.evaluation is not None:
            version, arrays = self.evaluation.version, self.evaluation.arrays
            messages = self.strategy.configure_evaluate(
                version, arrays, self.evaluate_config.of(version), grid
            )
            for message in messages:
                self.evaluation.waiting.discard(message.metadata.dst_node_id)
                self._send(message, version, EVALUATE)
            self.close_evaluation()
        if not self._may_begin(len(self.present)):
            self._wait_for_nodes(len(self.present))
        elif training and self.idle:
            version = self.version + 1
            config = self.train_config.of(version)
            messages = list(
                self.strategy.configure_train(version, self.result.arrays, config, grid)
            )
            if self.charge_messages(messages):
                for message in messages:
                    self._send(message, self.version, TRAIN)

    def _send(self, message: Message, version: int, kind: str) -> None:
        discard(self.idle, message.metadata.dst_node_id)
        self.exchange.send(message, version, kind)

    def _may_begin(self, nodes: int) -> bool:
        begun = self.version > 0 or len(self.flights) > 0 or len(self.buffer) > 0
        return begun or nodes >= self.strategy.nodes_to_begin

    def _wait_for_nodes(self, nodes: int) -> None:
        self.waiting_since = self.exchange.now()
        if nodes != self.too_few:
            log_waiting(nodes, self.strategy.nodes_to_begin)
        self.too_few = nodes

    # ---- receiving ---------------------------------------------------------------------------

    def receive(self, reply: Message) -> None:
        """Validate a reply, and buffer its update or report why not."""
        self.exchange.accept(reply, self._receive_update, self.receive_evaluation)

    def _receive_update(self, reply: Message, flight: Flight, fields: Fields) -> None:
        # A buffered update is merged into the next version: its staleness will not change.
        self.strategy.check_staleness(fields["staleness"])
        base = self.versions.bases[flight.base_version]
        if isinstance(self.strategy.privacy, LocalPrivacy):
            self.strategy.privacy.check(reply)
        update = self.strategy.guard.check(reply, flight, base, self.exchange.now())
        replaced = self.buffer.put(update)
        self.last_success = self.exchange.trained(
            reply, flight, update.metrics, fields, replaced=replaced
        )

    # ---- versions ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Make the next version from the buffer, and empty it, if privacy allows one more."""
        if not self.charge_version(update.member for update in self.buffer):
            return
        strategy = self.strategy
        scaled = self.buffer.bound(strategy.weight_factor, self.most_norm)
        updates = self.buffer.in_order()
        fields = {
            "nodes": [update.node_id for update in updates],
            "members": [update.member for update in updates],
            "steps": [update.steps for update in updates],
            "staleness": [self.version - update.base_version for update in updates],
            "norms": [float(f"{update.norm:.4g}") for update in updates],
            "scaled_down": scaled,
            **self.privacy,
        }
        replies = [update.reply for update in updates]
        arrays, metrics = self.strategy.aggregate_train(self.version + 1, replies)
        self.buffer.clear()
        # With refill by version, these have been waiting for it.
        self.flights.freed.update(update.node_id for update in updates)
        self.waiting_since = self.exchange.now()
        if arrays is None:
            self.exchange.emit("discard", version=self.version, **fields)
            return
        before = self.version
        self.versions.add(arrays)
        self.versions.forget({before, *self.flights.released()} - self.flights.base_versions)
        self.result.arrays = arrays
        if self.ledger is not None:
            fields |= self.noise
            self.adapt_clip(updates)
            metrics = MetricRecord({**(metrics or {}), EPSILON: self.ledger.epsilon})
        if metrics is not None:
            self.result.train_metrics_clientapp[self.version] = metrics
        self.exchange.emit("flush", version=self.version, **fields)
        log_version(self.version, self.goal, len(updates), self.exchange.now())
        log_metrics("Aggregated MetricRecord", metrics)
        self._on_version()

    def updates(self, server_round: int, replies: Iterable[Message]) -> list[Update]:
        """Return the buffered updates that came with `replies`."""
        return self.buffer.find(replies)

    def _on_version(self) -> None:
        """Evaluate on the server, start the evaluation on the nodes, call the callbacks."""
        version, result = self.version, self.result
        metrics = self.evaluate_fn(version, result.arrays) if self.evaluate_fn else None
        if metrics is not None:
            result.evaluate_metrics_serverapp[version] = metrics
        if version == 0:
            if self.evaluate_fn:
                log(INFO, "Initial global evaluation results: %s", metrics)
            return
        result.versions = version
        log_metrics("Global evaluation, MetricRecord", metrics)
        self.open_evaluation()
        train_metrics = result.train_metrics_clientapp.get(version)
        # Any other value does not count: a callback that is a lambda returns something by chance.
        if self.strategy.on_version(version, result.arrays, train_metrics) is True:
            self.stop(ON_VERSION_STOP)
        if self.strategy.fraction_evaluate == 0:
            self.ask_to_stop(version)

    def _finish_evaluation(self) -> None:
        """After training, complete the open evaluation, and evaluate the last version if due."""
        due = self.strategy.fraction_evaluate > 0
        while self.exchange.now() < self.strategy.time_limit and (
            self.evaluation or (due and self.evaluated < self.version)
        ):
            self.open_evaluation()
            self.wake = True
            self.step()
