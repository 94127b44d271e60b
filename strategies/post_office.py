"""One training without a global model: the server carries each node's model to its neighbours."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.arrays import to_arrays, to_record
from strategies.buffer import most_weight
from strategies.evaluation import mean_metrics
from strategies.exchange import Exchange, Fields
from strategies.failures import TrainingFailedError
from strategies.flights import EVALUATE, TRAIN, Flight
from strategies.gossip import (
    GOSSIP,
    MERGED,
    Neighbours,
    add_letters,
    mean_distance,
    merge_models,
    metropolis_weights,
)
from strategies.guard import STALE, Metrics, RejectedError
from strategies.hooks import EvaluateFn, ExchangeStrategy, ShouldStop
from strategies.neighbourhood import Neighbourhood
from strategies.reports import log_end, log_metrics, log_version, log_waiting
from strategies.result import NUM_ROUNDS, SHOULD_STOP, TrainingResult
from strategies.sampling import draw
from strategies.versions import read_initial

MOST_STEPS = 10.0  # times the median that count in a mean, as by default in BufferedAsync


class GossipStrategy(ExchangeStrategy, Protocol):
    """Settings of a strategy, as :class:`PostOffice` uses them; see :class:`strategies.Gossip`."""

    buffer_size: float
    graph: Neighbours | Callable[[list[int]], Neighbours]
    identify: Callable[[int], int] | None
    fraction_evaluate: float
    min_available_nodes: int
    weighted_by_key: str | None
    arrayrecord_key: str
    configrecord_key: str
    refresh_interval: float
    max_failures: int
    patience: float
    seed: int

    def time_to_live(self, node_id: int) -> float:
        """Return the time-to-live of messages to a node, in seconds."""


@dataclass(repr=False)
class GossipResult(TrainingResult):
    """The result of a training without a global model.

    ``versions`` are rounds, and ``arrays`` is the mean of the models, weighted by steps. It is
    computed when training is over, and has no part in it.

    Attributes
    ----------
    models : dict of int to ArrayRecord
        The newest model of each member that is known at the end.
    """

    models: dict[int, ArrayRecord] = field(default_factory=dict)


@dataclass
class Evaluation:
    """A round that nodes evaluate, each with its own model.

    Parameters
    ----------
    round : int
    opened_at : float
        Seconds since training began.
    waiting : set of int
        Members to whose nodes no message has been sent yet, since they are busy.
    found : list of (float, dict)
        Weight and metrics of each valid reply.
    """

    round: int
    opened_at: float
    waiting: set[int]
    found: list[tuple[float, Metrics]] = field(default_factory=list)


class PostOffice:
    """A training by gossip, as its server sees it.

    Parameters
    ----------
    strategy : GossipStrategy
    grid : Grid
    initial_arrays : ArrayRecord
    train_config, evaluate_config : ConfigRecord
    evaluate_fn : callable, optional

    Attributes
    ----------
    places : Neighbourhood
    banned : list of int
        Nodes that are online but sent no more messages.
    newest : int
        Rounds that are complete.
    """

    def __init__(
        self,
        strategy: GossipStrategy,
        grid: Grid,
        initial_arrays: ArrayRecord,
        train_config: ConfigRecord,
        evaluate_config: ConfigRecord,
        evaluate_fn: EvaluateFn | None,
    ) -> None:
        self.layout, _ = read_initial(initial_arrays)
        self.strategy, self.initial, self.newest = strategy, initial_arrays, 0
        self.train_config, self.evaluate_config = train_config, evaluate_config
        self.evaluate_fn = evaluate_fn
        strategy.guard.begin(self.layout, strategy.arrayrecord_key, strategy.weighted_by_key)
        self.exchange = Exchange(strategy, grid, self)
        self.result = GossipResult(arrays=initial_arrays)
        self.places = Neighbourhood(strategy.graph, strategy.identify, initial_arrays)
        self.banned: list[int] = []
        self.trained: list[tuple[float, Metrics]] = []  # steps and metrics in this round
        self.evaluation: Evaluation | None = None
        self.evaluated = 0
        self.rng = np.random.default_rng(strategy.seed)
        self.last_refresh = self.last_success = -math.inf
        self.waiting_since = 0.0
        self.too_few = -1
        self.goal, self.timeout = 0, math.inf
        self.should_stop: ShouldStop | None = None

    # ---- the loop ----------------------------------------------------------------------------

    def run(self, num_rounds: int, timeout: float, should_stop: ShouldStop | None) -> GossipResult:
        """Carry models until the rounds are over, or `should_stop` ends them."""
        self.goal, self.timeout, self.should_stop = num_rounds, timeout, should_stop
        result = self.result
        if self.evaluate_fn is not None:
            metrics = self.evaluate_fn(0, self.initial)
            log(INFO, "Initial global evaluation results: %s", metrics)
            if metrics is not None:
                result.evaluate_metrics_serverapp[0] = metrics
        while self.newest < num_rounds and not result.ended_by:
            self.step(training=True)
            if not result.ended_by and 0 < len(self.places.online) <= len(self.trained):
                self.end_round()
            self.require_success()
        result.ended_by = result.ended_by or NUM_ROUNDS
        # Now: a node that is still training may reply while others evaluate.
        result.models, result.arrays = self.models(), self.mean_model()
        due = self.strategy.fraction_evaluate > 0
        while self.evaluation or (due and self.evaluated < self.newest):
            self.open_evaluation()
            self.step(training=False)
        log_end(result, self.exchange.now())
        return result

    def step(self, training: bool) -> None:
        """Send what may be sent and receive what has arrived, or sleep."""
        if self.exchange.now() - self.last_refresh >= self.strategy.refresh_interval:
            self.refresh()
        self.dispatch(training)
        replies = self.exchange.pull()
        for reply in replies:
            self.receive(reply)
        if not replies:
            self.exchange.sleep()

    def require_success(self) -> None:
        """Raise ``TrainingFailedError`` if every node fails, or all are silent for too long."""
        now, nodes = self.exchange.now(), [*self.places.online.values(), *self.banned]
        if not nodes:
            self.waiting_since = now
            return
        impatient = now - self.last_success >= self.strategy.patience
        if impatient and all(i in self.banned or self.is_failing(i) for i in nodes):
            most = self.strategy.max_failures
            text = f"all {len(nodes)} nodes are banned or have failed {most} messages"
            raise TrainingFailedError(f"{text} in a row", self.exchange.reasons_of(nodes))
        if now - max(self.last_success, self.waiting_since) >= self.timeout:
            waiting = self.idle()
            if not waiting:
                text = f"no model has been accepted in timeout = {self.timeout:g} s"
                summary = f"{text}; {len(nodes)} nodes are online"
                raise TrainingFailedError(summary, self.exchange.reasons_of(nodes))
            text = "%s nodes train without news of K neighbours: timeout = %g s is over"
            log(WARNING, text, len(waiting), self.timeout)
            self.waiting_since = now
            for node_id in waiting:
                self.send(node_id, TRAIN)

    def is_failing(self, node_id: int) -> bool:
        """Return whether a node has failed too many messages in a row to be waited for."""
        return self.exchange.flights.failures(node_id) >= self.strategy.max_failures

    def refresh(self) -> None:
        """Find out which nodes take part now, and who is whose neighbour."""
        exchange = self.exchange
        exchange.give_up()
        self.last_refresh = exchange.now()
        found = sorted(self.strategy.nodes(exchange.grid))
        self.banned = exchange.banned(found)
        exchange.flights.forget_all_but(found, exchange.now())
        exchange.deadlines.forget_all_but(found)
        self.places.update([node_id for node_id in found if node_id not in self.banned])
        if self.evaluation is not None:
            self.evaluation.waiting &= self.places.online.keys()

    def drain(self, timeout: float) -> int:
        """Receive and discard the replies in flight; return how many messages are unanswered."""
        return self.exchange.drain(timeout, self.receive)

    # ---- sending -----------------------------------------------------------------------------

    def idle(self) -> list[int]:
        """Return the nodes that take part and may be sent a message now."""
        idle = self.exchange.idle(sorted(self.places.member_at))
        banned = self.exchange.banned(idle)  # perhaps since the last look
        return [node_id for node_id in idle if node_id not in banned]

    def dispatch(self, training: bool) -> None:
        """Send a message to each idle node that is to evaluate or may train."""
        places, size = self.places, self.strategy.buffer_size
        # Messages that ended, and rounds that no message is from any more: asked by nobody here.
        self.exchange.flights.freed.clear()
        self.exchange.flights.released()
        if not self._may_begin(len(places.online)):
            return
        for node_id in self.idle():
            member = places.member_at[node_id]
            if self.evaluation is not None and member in self.evaluation.waiting:
                self.evaluation.waiting.discard(member)
                self.send(node_id, EVALUATE)
            elif training and places.may_train(member, size, self.is_failing):
                self.send(node_id, TRAIN)
        self.close_evaluation()

    def _may_begin(self, nodes: int) -> bool:
        least = self.strategy.min_available_nodes
        if nodes >= least or self.last_success > -math.inf or len(self.exchange.flights):
            return True
        self.waiting_since = self.exchange.now()
        if nodes != self.too_few:
            log_waiting(nodes, least)
        self.too_few = nodes
        return False

    def send(self, node_id: int, kind: str) -> None:
        """Send a node its own model and the news of its neighbours."""
        member = self.places.member_at[node_id]
        if kind == TRAIN:
            version, number = self.newest, self.places.members[member].trainings + 1
            content = self.letters(member, self.train_config, number)
        else:
            version = self.newest if self.evaluation is None else self.evaluation.round
            content = self.letters(member, self.evaluate_config, version)
        ttl = self.strategy.time_to_live(node_id)
        message_type = MessageType.TRAIN if kind == TRAIN else MessageType.EVALUATE
        self.exchange.send(Message(content, node_id, message_type, ttl=ttl), version, kind)

    def letters(self, member: int, config: ConfigRecord, number: int) -> RecordDict:
        """Return a message with a member's own model and the news of its neighbours."""
        members, neighbours = self.places.members, self.places.neighbours
        state, news = members[member], self.places.news(member)
        if state.trainings:
            known = [(len(neighbours[j]), members[j].steps) for j in news]
            weights = metropolis_weights(len(neighbours[member]), state.steps, known)
        elif news:  # it starts where the others are: in their mean, as none of its own counts
            state.model = members[news[0]].model  # with which its first model is compared
            weights = [1.0 / len(news) for _ in news]
        else:
            weights = []
        state.sent = {other: members[other].number for other in news}
        sent = ConfigRecord({**config, "server-round": number})
        keys = self.strategy.arrayrecord_key, self.strategy.configrecord_key
        content = RecordDict(dict(zip(keys, (state.model, sent), strict=True)))
        return add_letters(content, [members[j].model for j in news], weights)

    # ---- receiving ---------------------------------------------------------------------------

    def receive(self, reply: Message) -> None:
        """Validate a reply, and keep its model for the neighbours."""
        self.exchange.accept(reply, self.receive_model, self.receive_evaluation)

    def receive_evaluation(self, reply: Message, flight: Flight, fields: Fields) -> None:
        """Validate and keep metrics, if they are of the round that is being evaluated."""
        self.strategy.guard.check_size(reply)
        found = self.strategy.guard.check_metrics(reply)
        if self.evaluation is not None and self.evaluation.round == flight.base_version:
            self.evaluation.found.append(found)
        self.exchange.emit("evaluation", node=flight.node_id, **fields)

    def receive_model(self, reply: Message, flight: Flight, fields: Fields) -> None:
        """Replace the model of a member by the one in a reply."""
        state = self.places.members.get(flight.member)
        if state is None or state.node_id != flight.node_id:
            raise RejectedError(STALE, "the node has left, and has no place in the graph any more")
        if MERGED not in reply.content.config_records.get(GOSSIP, {}):
            raise RejectedError(
                GOSSIP, "the app merges no neighbours: must be ClientApp(mods=[gossip_mod()])"
            )
        guard = self.strategy.guard
        base = self.layout.flatten(to_arrays(state.model))
        update = guard.check(reply, flight, base, self.exchange.now())
        # As decoded: neighbours get the types of the initial arrays, and no bytes of its own.
        record = reply.content.array_records[guard.record_name(reply)]
        self.places.receive(flight.member, to_record(guard.decode(record)), update.steps)
        self.trained.append((update.steps, update.metrics))
        self.last_success = self.exchange.trained(reply, flight, update.metrics, fields)

    # ---- rounds ------------------------------------------------------------------------------

    def end_round(self) -> None:
        """Report on as many trainings as members are online, and have them evaluated."""
        self.newest += 1
        result, count, metrics = self.result, len(self.trained), self.mean(self.trained)
        self.trained = []
        result.versions = self.newest
        result.models = self.models()
        result.train_metrics_clientapp[self.newest] = metrics
        apart = mean_distance(result.models, self.places.neighbours)
        self.exchange.emit("round", version=self.newest, trainings=count, distance=apart)
        log_version(self.newest, self.goal, count, self.exchange.now())
        log_metrics("Aggregated MetricRecord", metrics)
        if self.evaluate_fn is not None:
            found = self.evaluate_fn(self.newest, self.mean_model())
            log_metrics("Global evaluation, MetricRecord", found)
            if found is not None:
                result.evaluate_metrics_serverapp[self.newest] = found
        self.open_evaluation()
        if self.strategy.fraction_evaluate == 0:
            self.ask_to_stop(self.newest)

    def open_evaluation(self) -> None:
        """Draw nodes for the newest round, unless another one is being evaluated."""
        fraction = self.strategy.fraction_evaluate
        if fraction == 0 or self.evaluation is not None:
            return
        waiting = draw(sorted(self.places.online), fraction, 1, self.rng)
        self.evaluation = Evaluation(self.newest, self.exchange.now(), waiting)
        self.evaluated = self.newest

    def close_evaluation(self) -> None:
        """Average the metrics of the open evaluation once all have answered, or time is over."""
        evaluation = self.evaluation
        if evaluation is None:
            return
        end = evaluation.opened_at + self.timeout
        if not self.exchange.has_evaluated(evaluation.waiting, end):
            return
        self.evaluation = None
        if evaluation.found:
            metrics = self.mean(evaluation.found)
            self.result.evaluate_metrics_clientapp[evaluation.round] = metrics
            log_metrics("Aggregated MetricRecord of the evaluation", metrics)
        nodes = len(evaluation.found)
        self.exchange.emit("evaluated", version=evaluation.round, nodes=nodes)
        self.ask_to_stop(evaluation.round)

    def ask_to_stop(self, number: int) -> None:
        """Ask ``should_stop``, about a round that is complete with all its metrics."""
        if self.should_stop is not None and self.should_stop(number, self.result):
            self.result.ended_by = SHOULD_STOP

    def models(self) -> dict[int, ArrayRecord]:
        """Return the newest model of each member."""
        return {member: state.model for member, state in sorted(self.places.members.items())}

    def mean_model(self) -> ArrayRecord:
        """Compute the mean of the members' models, weighted by steps; nobody trains from it."""
        trained = self.places.trained()
        if not trained:
            return self.initial
        models = [to_arrays(state.model) for state in trained]
        weights = shares([state.steps for state in trained])
        if not weights.any():
            weights = np.full(len(trained), 1 / len(trained))
        return to_record(merge_models(models[0], models[1:], weights[1:].tolist()))

    def mean(self, found: Collection[tuple[float, Metrics]]) -> MetricRecord:
        """Return the mean of each metric, weighted by steps."""
        weights = shares([weight for weight, _ in found])
        return mean_metrics([each for _, each in found], weights, self.strategy.weighted_by_key)


def shares(steps: Sequence[float]) -> np.ndarray:
    """Return the weights of a mean; nobody's steps count more than ten times the median.

    A node reports them itself.
    """
    counted = np.minimum(steps, most_weight(steps, MOST_STEPS))
    return np.asarray(counted / (counted.sum() or 1.0))
