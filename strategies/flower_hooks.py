"""The hooks of Flower's ``Strategy``, as a running training or a wrapper calls them."""

from collections.abc import Callable, Iterable
from logging import ERROR, WARNING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.buffer import Update, most_weight
from strategies.checks import printable
from strategies.evaluation import mean_metrics
from strategies.failures import LONGEST
from strategies.guard import Guard, Metrics, RejectedError
from strategies.hooks import MetricsAggregation
from strategies.merge import MergeRule
from strategies.optimizers import ServerOptimizer
from strategies.rounds import Rounds
from strategies.session import Session

ROUND, BASE_VERSION = "server-round", "base-version"


class FlowerHooks(Strategy):
    """Hooks of a strategy whose attributes are those of :class:`strategies.BufferedAsync`.

    While :meth:`strategies.BufferedAsync.start` runs, they work on its session, asynchronously.
    Otherwise each pair of ``configure`` and ``aggregate`` is a synchronous round; see
    :mod:`strategies.rounds`.
    """

    weighted_by_key: str | None
    arrayrecord_key: str
    configrecord_key: str
    relative_to_newest: bool
    weight_factor: float
    guard: Guard
    merge: MergeRule
    server_optimizer: ServerOptimizer
    train_metrics_aggr_fn: MetricsAggregation | None
    evaluate_metrics_aggr_fn: MetricsAggregation | None
    time_to_live: Callable[[int], float]
    weights: Callable[[list[Update], int], np.ndarray]
    session: Session | None
    rounds: Rounds

    @property
    def running(self) -> Session | None:
        """The session of the training that is going on; None outside of one."""
        return None if self.session is None or self.session.ended else self.session

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a train message for every idle node that is to start now.

        Parameters
        ----------
        server_round : int
            The version to make, one more than that of `arrays`. It becomes ``server-round`` in the
            config of the message, that of `arrays` becomes ``base-version``.
        arrays : ArrayRecord
        config : ConfigRecord
        grid : Grid
        """
        session = self.running
        if session is not None:
            nodes = session.to_train()
        else:
            nodes = self.rounds.to_train(server_round, arrays, grid)
        numbers = server_round, server_round - 1
        return [self._message(MessageType.TRAIN, i, numbers, arrays, config) for i in nodes]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge the updates that came with `replies` into the next version.

        Parameters
        ----------
        server_round : int
            The version to make.
        replies : iterable of Message
            The newest reply of each member, all of them validated and in the buffer. In a
            synchronous round: whatever came back.

        Returns
        -------
        ArrayRecord or None, MetricRecord or None
            The new arrays, None if there are no updates or they would not be finite; and the mean
            of each metric, weighted like the arrays, over the nodes that sent it.
        """
        source = self.running or self.rounds
        updates = source.updates(server_round, replies)
        if not updates:
            return None, None
        # Those without weight are no votes in a median either.
        updates = [update for update in updates if update.steps > 0] or updates
        weights = self.weights(updates, server_round - 1) * source.share
        arrays = source.versions.merge(
            updates, weights, source.rule, self.server_optimizer, self.relative_to_newest
        )
        if arrays is None:
            return None, None
        if self.train_metrics_aggr_fn is not None:
            contents = [update.reply.content for update in updates]
            return arrays, self._aggregate(self.train_metrics_aggr_fn, contents, server_round)
        metrics = [update.metrics for update in updates]
        return arrays, mean_metrics(metrics, weights, self.weighted_by_key)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return an evaluate message for every idle node that was drawn for this version."""
        session = self.running
        nodes = self.rounds.to_evaluate(grid) if session is None else session.to_evaluate()
        numbers = server_round, server_round
        return [self._message(MessageType.EVALUATE, i, numbers, arrays, config) for i in nodes]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return the mean of each metric, weighted by ``weighted_by_key``; None without replies.

        No weight counts more than ``weight_factor`` times the median one, as in training.
        """
        if self.running is None:
            self.guard.weighted_by_key = self.weighted_by_key  # no training may have begun
        ordered = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        valid = [(reply, *checked) for reply in ordered if (checked := self._evaluation(reply))]
        if self.running is None:
            self.rounds.report("evaluate", ordered, len(valid))
        if not valid:
            return None
        if self.evaluate_metrics_aggr_fn is not None:
            contents = [reply.content for reply, _, _ in valid]
            return self._aggregate(self.evaluate_metrics_aggr_fn, contents, server_round)
        weights = np.array([weight for _, weight, _ in valid])
        weights = np.minimum(weights, most_weight(weights, self.weight_factor))
        metrics = [metrics for _, _, metrics in valid]
        return mean_metrics(metrics, weights / (weights.sum() or 1.0), self.weighted_by_key)

    def _evaluation(self, reply: Message) -> tuple[float, Metrics] | None:
        """Return weight and metrics of a reply; None for one that is an error or not valid."""
        if reply.has_error():
            return None
        try:
            return self.guard.check_metrics(reply)
        except RejectedError as error:
            log(WARNING, "node %s: evaluation rejected (%s)", reply.metadata.src_node_id, error)
            return None

    def _aggregate(
        self, function: MetricsAggregation, contents: list[RecordDict], server_round: int
    ) -> MetricRecord | None:
        """Aggregate metrics by a function that may fail: one odd reply must not end a training."""
        try:
            return function(contents, self.weighted_by_key or "")
        except Exception as error:
            reason = printable(f"{type(error).__name__}: {error}", LONGEST)
            log(
                ERROR,
                "no metrics of version %s, their aggregation failed: %s",
                server_round,
                reason,
            )
            return None

    def _message(
        self,
        message_type: str,
        node_id: int,
        numbers: tuple[int, int],
        arrays: ArrayRecord,
        config: ConfigRecord,
    ) -> Message:
        server_round, base_version = numbers
        sent_config = ConfigRecord({**config, ROUND: server_round, BASE_VERSION: base_version})
        return Message(
            RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: sent_config}),
            dst_node_id=node_id,
            message_type=message_type,
            ttl=self.time_to_live(node_id),
            group_id=str(server_round),
        )
