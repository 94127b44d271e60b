"""The part of a training that evaluates versions on the nodes while they train."""

import math
from collections.abc import Iterable
from logging import INFO

from flwr.app import Message
from flwr.common.logger import log

from strategies.evaluation import Evaluation
from strategies.exchange import Exchange, Fields
from strategies.flights import Flight
from strategies.hooks import ON_VERSION, SessionStrategy, ShouldStop
from strategies.reports import log_metrics
from strategies.result import SHOULD_STOP, TrainingResult
from strategies.sampling import add, draw
from strategies.session_state import SessionState
from strategies.versions import Versions


class SessionEvaluation(SessionState):
    """Evaluate a version on the nodes that are drawn for it, one version at a time.

    Attributes
    ----------
    goal : int
        Version at which training ends.
    timeout : float
        Seconds to wait for a version, or for an evaluation.
    """

    def __init__(
        self,
        strategy: SessionStrategy,
        exchange: Exchange,
        versions: Versions,
        result: TrainingResult,
    ) -> None:
        super().__init__(strategy, exchange, versions, result)
        self.should_stop: ShouldStop | None = None
        self.goal, self.timeout = 0, math.inf

    def stop(self, why: str) -> None:
        """Make no more versions."""
        self.goal, self.result.ended_by = self.version, why

    def look(self) -> None:
        """Find out which nodes take part now, which of them are banned, and which are idle."""
        online = sorted(self.strategy.nodes(self.exchange.grid))
        self.banned = self.exchange.banned(online)
        banned = set(self.banned)
        self.present = [node_id for node_id in online if node_id not in banned]
        self.taking_part = set(self.present)
        self.idle = [i for i in self.exchange.idle(self.present) if not self._reported(i)]

    def add_idle(self, node_ids: Iterable[int]) -> None:
        """Add those of these nodes that take part and may be sent a message to the idle ones."""
        for node_id in self.exchange.idle(node_ids):
            banned = self.exchange.is_banned(node_id)
            if node_id in self.taking_part and not banned and not self._reported(node_id):
                add(self.idle, node_id)

    def _reported(self, node_id: int) -> bool:
        """Return whether a node waits for the version to which it has reported."""
        waits = self.strategy.refill == ON_VERSION
        return waits and self.strategy.member_of(node_id) in self.buffer

    def to_evaluate(self) -> list[int]:
        """Return the nodes that are to be sent an evaluate message now."""
        waiting = self.evaluation.waiting if self.evaluation else set()
        return [node_id for node_id in self.idle if node_id in waiting]

    def open_evaluation(self) -> None:
        """Draw nodes for the newest version, unless another one is being evaluated."""
        fraction = self.strategy.fraction_evaluate
        if fraction == 0 or self.evaluation is not None:
            return
        self.look()
        waiting = draw(self.present, fraction, self.strategy.min_evaluate_nodes, self.rng)
        self.evaluation = Evaluation(self.version, self.result.arrays, waiting, self.exchange.now())
        self.evaluated = self.version

    def receive_evaluation(self, reply: Message, flight: Flight, fields: Fields) -> None:
        """Validate and keep a reply, if it is about the version that is being evaluated."""
        self.strategy.guard.check_size(reply)
        self.strategy.guard.check_metrics(reply)
        if self.evaluation is not None and self.evaluation.version == flight.base_version:
            self.evaluation.replies.append(reply)
        self.exchange.emit("evaluation", node=flight.node_id, **fields)

    def close_evaluation(self) -> None:
        """Aggregate the open evaluation once all have answered, or its time is over."""
        evaluation = self.evaluation
        if evaluation is None:
            return
        end = evaluation.opened_at + self.timeout
        if not self.exchange.has_evaluated(evaluation.waiting, end):
            return
        self.evaluation, version = None, evaluation.version
        metrics = self.strategy.aggregate_evaluate(version, evaluation.replies)
        if metrics is not None:
            self.result.evaluate_metrics_clientapp[version] = metrics
            log(
                INFO,
                "[ROUND %s/%s] evaluated on %s nodes",
                version,
                self.goal,
                len(evaluation.replies),
            )
            log_metrics("Aggregated MetricRecord", metrics)
            self.strategy.on_evaluation(version, metrics)
        self.exchange.emit("evaluated", version=version, nodes=len(evaluation.replies))
        self.ask_to_stop(version)

    def ask_to_stop(self, version: int) -> None:
        """Ask ``should_stop``, about a version that is complete with all its metrics."""
        if self.should_stop is not None and self.should_stop(version, self.result):
            self.stop(SHOULD_STOP)
