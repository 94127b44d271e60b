"""One training without a global model: the server carries each node's model to its neighbours."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.arrays import Layout, to_arrays, to_record
from strategies.buffer import updates_needed
from strategies.evaluation import mean_metrics
from strategies.exchange import Exchange
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
    places,
)
from strategies.guard import Metrics, RejectedError
from strategies.hooks import EvaluateFn, ExchangeStrategy, ShouldStop
from strategies.reports import log_end, log_metrics, log_version
from strategies.result import NUM_ROUNDS, SHOULD_STOP, TrainingResult
from strategies.sampling import sample_size

MOST_GONE = 10  # members that have left and whose models are kept, beside as many as are online


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
class Member:
    """What the server knows of a place in the graph.

    Parameters
    ----------
    model : ArrayRecord
        Its newest model.

    Attributes
    ----------
    node_id : int
        The node that had the place last.
    trainings : int
        Trainings so far: the number of its model.
    steps : float
        Steps of its last training.
    merged : dict of int to int
        Number of the model of each neighbour that it has merged last.
    sent : dict of int to int
        Those in the message that it was sent last.
    """

    model: ArrayRecord
    node_id: int = -1
    trainings: int = 0
    steps: float = 0.0
    merged: dict[int, int] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)


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
    members : dict of int to Member
    online : dict of int to int
        The node of each member that is online.
    member_at : dict of int to int
        The member that each of these nodes is.
    banned : set of int
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
        start = to_arrays(initial_arrays)
        self.layout = Layout(start)
        if not all(np.all(np.isfinite(array)) for array in start.values()):
            raise ValueError("initial_arrays holds a value that is not finite")
        self.strategy, self.initial, self.newest = strategy, initial_arrays, 0
        self.train_config, self.evaluate_config = train_config, evaluate_config
        self.evaluate_fn = evaluate_fn
        strategy.guard.begin(self.layout, strategy.arrayrecord_key, strategy.weighted_by_key)
        self.exchange = Exchange(strategy, grid, self)
        self.result = GossipResult(arrays=initial_arrays)
        self.members: dict[int, Member] = {}
        self.online: dict[int, int] = {}
        self.member_at: dict[int, int] = {}
        self.banned: set[int] = set()
        self.neighbours: dict[int, set[int]] = {}
        self.trained: list[tuple[float, Metrics]] = []  # steps and metrics in this round
        self.to_evaluate: set[int] = set()
        self.evaluated: list[tuple[float, Metrics]] = []
        self.rng = np.random.default_rng(strategy.seed)
        self.last_refresh = self.last_success = -math.inf
        self.waiting_since = 0.0
        self.homeless = 0

    # ---- the loop ----------------------------------------------------------------------------

    def run(self, num_rounds: int, timeout: float, should_stop: ShouldStop | None) -> GossipResult:
        """Carry models until the rounds are over, or `should_stop` ends them."""
        result = self.result
        if self.evaluate_fn is not None:
            metrics = self.evaluate_fn(0, self.initial)
            log(INFO, "Initial global evaluation results: %s", metrics)
            if metrics is not None:
                result.evaluate_metrics_serverapp[0] = metrics
        while self.newest < num_rounds and not result.ended_by:
            self.step(training=True)
            if self.online and len(self.trained) >= len(self.online):
                self.end_round(num_rounds)
                if should_stop is not None and should_stop(self.newest, result):
                    result.ended_by = SHOULD_STOP
            self.require_success(timeout)
        result.ended_by = result.ended_by or NUM_ROUNDS
        while self.to_evaluate & self.online.keys() or self.exchange.flights.evaluating:
            self.step(training=False)
        self.close_evaluation()
        result.arrays = self.mean_model()
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

    def require_success(self, timeout: float) -> None:
        """Raise ``TrainingFailedError`` if every node fails, or all are silent for too long."""
        now, nodes = self.exchange.now(), [*self.online.values(), *self.banned]
        if not nodes:
            self.waiting_since = now
            return
        failures, reasons = self.exchange.flights.failures, self.exchange.reasons
        known = {i: reasons.get(i, "no reply") for i in nodes}
        most = self.strategy.max_failures
        failing = all(i in self.banned or failures(i) >= most for i in nodes)
        if failing and now - self.last_success >= self.strategy.patience:
            text = f"all {len(nodes)} nodes are banned or have failed {most} messages"
            raise TrainingFailedError(f"{text} in a row", known)
        if now - max(self.last_success, self.waiting_since) >= timeout:
            text = f"no model has been accepted in timeout = {timeout:g} s"
            raise TrainingFailedError(f"{text}; {len(nodes)} nodes are online", known)

    # ---- nodes and places --------------------------------------------------------------------

    def refresh(self) -> None:
        """Find out which nodes take part now, and who is whose neighbour."""
        exchange, strategy = self.exchange, self.strategy
        exchange.give_up()
        self.last_refresh = exchange.now()
        found = sorted(strategy.nodes(exchange.grid))
        self.banned = {*exchange.banned(found)}
        exchange.flights.forget_all_but(found, exchange.now())
        self.online = self.assign([node_id for node_id in found if node_id not in self.banned])
        self.member_at = {node_id: member for member, node_id in self.online.items()}
        for member, node_id in self.online.items():
            self.members.setdefault(member, Member(self.initial)).node_id = node_id
        if len(self.members) > 2 * len(self.online) + MOST_GONE:
            self.members = {m: self.members[m] for m in self.online}
        self.neighbours = self.both_ways()

    def assign(self, present: list[int]) -> dict[int, int]:
        """Return the node of each member, for the nodes that are present."""
        graph, identify = self.strategy.graph, self.strategy.identify
        if identify is not None:
            return {identify(node_id): node_id for node_id in present}
        if callable(graph):
            return {node_id: node_id for node_id in present}
        before = {state.node_id: member for member, state in self.members.items()}
        online = {before[node_id]: node_id for node_id in present if node_id in before}
        # First the places that nobody has had: who is offline may return.
        free = [m for m in places(graph) if m not in online]
        free.sort(key=lambda m: m in self.members)
        newcomers = [node_id for node_id in present if node_id not in before]
        online.update(zip(free, newcomers, strict=False))
        homeless = max(len(newcomers) - len(free), 0)
        if homeless > self.homeless:
            log(WARNING, "%s nodes have no place in the graph and do not take part", homeless)
        self.homeless = homeless
        return online

    def both_ways(self) -> dict[int, set[int]]:
        """Return the neighbours of each member, in both directions."""
        graph = self.strategy.graph
        given = graph(sorted(self.online)) if callable(graph) else graph
        found: dict[int, set[int]] = {member: set() for member in self.members}
        for member in given:
            for other in given[member]:
                if member != other and member in found and other in found:
                    found[member].add(other)
                    found[other].add(member)
        return found

    # ---- sending -----------------------------------------------------------------------------

    def news(self, member: int) -> list[int]:
        """Return the neighbours whose newest model a member has not merged."""
        merged = self.members[member].merged
        return sorted(
            other
            for other in self.neighbours[member]
            if self.members[other].trainings > merged.get(other, 0)
        )

    def may_train(self, member: int) -> bool:
        """Return whether a member has news of K neighbours; for its first training of none."""
        online = len(self.neighbours[member] & self.online.keys())
        if self.members[member].trainings == 0 or not online:
            return True
        needed = updates_needed(self.strategy.buffer_size, online)
        return len(self.news(member)) >= min(needed, online)

    def dispatch(self, training: bool) -> None:
        """Send a message to each idle member that is to evaluate or may train."""
        begun = any(state.trainings for state in self.members.values())
        if not begun and len(self.online) < self.strategy.min_available_nodes:
            self.waiting_since = self.exchange.now()
            return
        for node_id in self.exchange.idle(sorted(self.member_at)):
            member = self.member_at[node_id]
            if member in self.to_evaluate:
                self.to_evaluate.discard(member)
                content = self.letters(member, self.evaluate_config, self.newest)
                self.send(node_id, MessageType.EVALUATE, content, EVALUATE)
            elif training and self.may_train(member):
                content = self.letters(
                    member, self.train_config, self.members[member].trainings + 1
                )
                self.send(node_id, MessageType.TRAIN, content, TRAIN)

    def letters(self, member: int, config: ConfigRecord, number: int) -> RecordDict:
        """Return a message with a member's own model and the news of its neighbours."""
        state, news = self.members[member], self.news(member)
        if state.trainings:
            known = [(len(self.neighbours[j]), self.members[j].steps) for j in news]
            weights = metropolis_weights(len(self.neighbours[member]), state.steps, known)
        else:  # it starts where the others are, if they have trained
            weights = [1.0 / len(news) for _ in news]
        state.sent = {other: self.members[other].trainings for other in news}
        sent = ConfigRecord({**config, "server-round": number})
        keys = self.strategy.arrayrecord_key, self.strategy.configrecord_key
        content = RecordDict(dict(zip(keys, (state.model, sent), strict=True)))
        return add_letters(content, [self.members[j].model for j in news], weights)

    def send(self, node_id: int, message_type: str, content: RecordDict, kind: str) -> None:
        """Send a message to a node."""
        ttl = self.strategy.time_to_live(node_id)
        self.exchange.send(Message(content, node_id, message_type, ttl=ttl), self.newest, kind)

    # ---- receiving ---------------------------------------------------------------------------

    def receive(self, reply: Message) -> None:
        """Validate a reply, and keep its model for the neighbours."""
        flight = self.exchange.match(reply)
        if flight is None or flight.member not in self.members:
            return
        guard, fields = self.strategy.guard, self.exchange.fields(flight)
        try:
            if flight.kind == EVALUATE:
                guard.check_size(reply)
                self.evaluated.append(guard.check_metrics(reply))
            else:
                self.receive_model(reply, flight)
        except RejectedError as error:
            guard.reject(error.check, flight.node_id)
            self.exchange.fail(flight.node_id, "reject", str(error), check=error.check, **fields)
            return
        guard.accepted[flight.node_id] += 1
        self.exchange.emit("reply", node=flight.node_id, **fields)

    def receive_model(self, reply: Message, flight: Flight) -> None:
        """Replace the model of a member by the one in a reply."""
        if MERGED not in reply.content.config_records.get(GOSSIP, {}):
            raise RejectedError(
                GOSSIP, "the app merges no neighbours: must be ClientApp(mods=[gossip_mod()])"
            )
        state, guard, now = self.members[flight.member], self.strategy.guard, self.exchange.now()
        base = self.layout.flatten(to_arrays(state.model))
        update = guard.check(reply, flight, base, now)
        state.model = reply.content.array_records[guard.record_name(reply)]
        state.trainings, state.steps = state.trainings + 1, update.steps
        state.merged.update(state.sent)  # not before: a training that fails has merged nothing
        self.trained.append((update.steps, update.metrics))
        self.last_success = now
        self.exchange.flights.succeeded(flight.node_id)
        self.exchange.deadlines.answered(flight.node_id, now - flight.sent_at)

    # ---- rounds ------------------------------------------------------------------------------

    def end_round(self, num_rounds: int) -> None:
        """Report on as many trainings as members are online, and draw who evaluates."""
        self.close_evaluation()
        self.newest += 1
        result, count, metrics = self.result, len(self.trained), self.mean(self.trained)
        self.trained = []
        result.versions = self.newest
        result.models = {member: self.members[member].model for member in sorted(self.members)}
        result.train_metrics_clientapp[self.newest] = metrics
        vectors = {m: self.layout.flatten(to_arrays(each)) for m, each in result.models.items()}
        apart = mean_distance(vectors, self.neighbours)
        self.exchange.emit("round", version=self.newest, trainings=count, distance=apart)
        log_version(self.newest, num_rounds, count, self.exchange.now())
        log_metrics("Aggregated MetricRecord", metrics)
        if self.evaluate_fn is not None:
            found = self.evaluate_fn(self.newest, self.mean_model())
            log_metrics("Global evaluation, MetricRecord", found)
            if found is not None:
                result.evaluate_metrics_serverapp[self.newest] = found
        members = sorted(self.online)
        drawn = sample_size(self.strategy.fraction_evaluate, 1, len(members))
        self.to_evaluate = {members[i] for i in self.rng.permutation(len(members))[:drawn]}

    def close_evaluation(self) -> None:
        """Average what nodes have sent about their models; the others are not waited for."""
        if self.evaluated:
            metrics = self.mean(self.evaluated)
            self.result.evaluate_metrics_clientapp[self.newest] = metrics
            log_metrics("Aggregated MetricRecord of the evaluation", metrics)
        self.evaluated, self.to_evaluate = [], set()

    def mean_model(self) -> ArrayRecord:
        """Compute the mean of the members' models, weighted by steps; nobody trains from it."""
        trained = [state for state in self.members.values() if state.trainings]
        if not trained:
            return self.initial
        models = [to_arrays(state.model) for state in trained]
        steps = np.array([state.steps for state in trained])
        shares = steps / steps.sum() if steps.sum() > 0 else np.full(len(steps), 1 / len(steps))
        return to_record(merge_models(models[0], models[1:], shares[1:].tolist()))

    def mean(self, found: Collection[tuple[float, Metrics]]) -> MetricRecord:
        """Return the mean of each metric, weighted by steps."""
        weights = np.array([weight for weight, _ in found])
        shares = weights / (weights.sum() or 1.0)
        return mean_metrics([each for _, each in found], shares, self.strategy.weighted_by_key)
