"""Co-simulation without a server: nodes send their updates to each other over the network."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fauno_flwr.config import rules
from fauno_flwr.config.agent import NOTHING
from fauno_flwr.config.federation import GOSSIP, RANDOM, RING
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.agents import Agent, RoundTrip
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.federation.protocol import ARRAYS, BASE_VERSION, CONFIG, TRAIN
from fauno_flwr.learning.metrics import STEPS
from sim_env.scenario import Scenario
from strategies.arrays import Arrays, to_arrays, to_record
from strategies.buffer import updates_needed
from strategies.buffered_async import ON_VERSION
from strategies.gossip import ring
from strategies.gossip_node import PUSH_SUM, GossipNode, Letter
from strategies.grids import FIRST_NODE_ID

NEVER = 2.0**53  # ticks; nobody waits for the end of a training, so it has no time-to-live
Report = Callable[[str, int, dict[str, Any]], None]


class GossipGrid(CosimGrid):
    """One network in which the agents act and learn, and merge each other's updates.

    A node that has trained sends its update, hop by hop, to its neighbours, except those that its
    last one is still on the way to; one that waits for a link that is down is replaced. It merges
    what its neighbours have sent as soon as K of them are in its buffer, and trains again, at once
    or, with ``federation.refill=version``, when it has merged. Letters to a node that is down wait;
    when it is up again it goes on.

    Parameters
    ----------
    config, scenario, threads
        As of :class:`CosimGrid`.

    Attributes
    ----------
    nodes : list of GossipNode
        By agent, once training has begun.
    """

    def __init__(self, config: RunConfig, scenario: Scenario, threads: int = 0) -> None:
        super().__init__(config, scenario, threads)
        federation, count = config.federation, len(self._agents)
        self.neighbours = neighbours_of(config, scenario)
        self.nodes: list[GossipNode] = []
        self._peers = [np.random.default_rng([config.seed, i, 4]) for i in range(count)]
        self._staleness = rules.build(rules.STALENESS, federation.staleness)
        self._letters: dict[str, tuple[int, Letter]] = {}
        self._idle_since = [0] * count
        self._began = [False] * count
        self._record = ConfigRecord()
        self._tell: Report = lambda event, agent, fields: None

    def begin(self, shared: Arrays, record: ConfigRecord, tell: Report) -> None:
        """Begin to train, every node from the same shared parameters.

        Parameters
        ----------
        shared : dict of str to array
        record : ConfigRecord
            Settings that a train message has.
        tell : callable
            ``tell(event, agent, fields)`` is called for every event.
        """
        self._record, self._tell = record, tell
        federation = self.config.federation
        self.nodes = [
            GossipNode(
                agent.index,
                shared,
                self._degree(agent.index),
                mixing=federation.mixing,
                staleness=self._staleness,
            )
            for agent in self._agents
        ]
        if federation.share != NOTHING:
            for agent in self._agents:
                self._adopt(agent)

    def models(self) -> dict[int, Arrays]:
        """Return the newest shared parameters of each agent."""
        return {node.number: node.model for node in self.nodes}

    # ---- training ------------------------------------------------------------------------------

    def _server_is_down(self) -> bool:
        return False  # there is none

    def _step_trips(self) -> None:
        super()._step_trips()
        for node in self.nodes:
            agent = self._agents[node.number]
            if agent.trip is None and self.world.state.up[0, agent.node]:
                self._go_on(agent, node)

    def _go_on(self, agent: Agent, node: GossipNode) -> None:
        """Merge the buffer if it is full, and train again unless the node waits for that."""
        federation, degree = self.config.federation, self._degree(agent.index)
        waits = federation.refill == ON_VERSION and degree > 0 and self._began[agent.index]
        staleness: list[int] = []
        if node.inbox and len(node.inbox) >= updates_needed(federation.buffer_size, degree):
            staleness = node.merge()
            if federation.share != NOTHING:
                self._adopt(agent)
        elif waits and self.world.now - self._idle_since[agent.index] < federation.ttl / self.tick:
            return
        self._train(agent, node, staleness)

    def _adopt(self, agent: Agent) -> None:
        model = self.nodes[agent.index].model
        if self.population.set_shared(model, agent.index):
            self._discard_decisions(agent)

    def _train(self, agent: Agent, node: GossipNode, staleness: list[int]) -> None:
        self._began[agent.index] = True
        # As with a manager: the learning rate falls with what all have trained, as a node knows it.
        version = min(int(node.age), self.config.federation.versions - 1)
        record = ConfigRecord({**self._record, BASE_VERSION: version})
        content = RecordDict({ARRAYS: to_record(node.model), CONFIG: record})
        message = Message(content, FIRST_NODE_ID + agent.index, TRAIN)
        training = self._training(agent, content)
        agent.progress.version = version
        agent.trip = RoundTrip(message, training, float(self.world.now), NEVER)
        agent.trip.totals = self.world.state.total.sum(axis=0)
        self._collect(agent, agent.trip)
        self._tell("dispatch", agent.index, {"version": version, "staleness": staleness})

    def _report(self, agent: Agent, trip: RoundTrip) -> None:
        """Send the outcome of a training to the neighbours."""
        node, agent.trip = self.nodes[agent.index], None
        base = to_arrays(trip.message.content.array_records[ARRAYS])
        update = trip.training.update_record()
        metrics: MetricRecord = self._metrics(trip)
        node.trained(to_arrays(update), float(metrics[STEPS]))  # type: ignore[arg-type]
        self._idle_since[agent.index] = self.world.now
        receivers = self._receivers(agent.index)
        letter = node.letter(len(receivers))
        for receiver in receivers:
            key = f"{agent.index}-{receiver}"
            self._letters[key] = receiver, letter
            target = self._agents[receiver].node
            self._transport.send(key, agent.node, target, self._bytes(update), self._down())
        fields = {
            "version": trip.training.version,
            "latency": round((self.world.now - trip.sent_at) * self.tick, 4),
            "metrics": dict(metrics),
            "bytes": update.count_bytes() * len(receivers),
            "norm": norm_of(base, node.model),
        }
        self._tell("reply", agent.index, fields)

    def _drop(self, agent: Agent, trip: RoundTrip, code: int, reason: str) -> None:
        """End a training whose node has failed; the agent itself does not change."""
        agent.trip = None
        self._tell("error", agent.index, {"reason": reason, "code": code})

    # ---- letters -------------------------------------------------------------------------------

    def _deliver(self, key: str) -> None:
        receiver, letter = self._letters.pop(key)
        self.nodes[receiver].receive(letter)

    def _receivers(self, agent: int) -> list[int]:
        """Return those that an update is sent to: none that the last one is on the way to.

        One that is held up returns to its sender, whose mass it has with push-sum.
        """
        if self.config.federation.graph == RANDOM:
            others = [other for other in range(len(self._agents)) if other != agent]
            chosen = self._peers[agent].permutation(others)[: self._degree(agent)].tolist()
        else:
            chosen = sorted(self.neighbours[agent])
        is_open = self._open_links()
        for key in [f"{agent}-{other}" for other in chosen]:
            if key in self._letters and self._transport.is_held(key, is_open):
                _, letter = self._letters.pop(key)
                self._transport.forget(key)
                if self.config.federation.mixing == PUSH_SUM:
                    self.nodes[agent].receive(letter)
        return [other for other in chosen if f"{agent}-{other}" not in self._letters]

    def _degree(self, agent: int) -> int:
        if self.config.federation.graph == RANDOM:
            return min(self.config.federation.peers, len(self._agents) - 1)
        return len(self.neighbours[agent])


def neighbours_of(config: RunConfig, scenario: Scenario) -> dict[int, set[int]]:
    """Return the neighbours of each agent, none if they are drawn for each update.

    In the graph of the topology, agents are neighbours if there is a link between them, or a way
    over nodes that do not learn.
    """
    agents = range(len(scenario.agents))
    if config.federation.graph == RING:
        return ring(agents)
    found: dict[int, set[int]] = {agent: set() for agent in agents}
    if config.federation.graph == RANDOM:
        return found
    rows = scenario.topology.neighbours
    agent_at = {int(node): agent for agent, node in enumerate(scenario.agents)}
    for agent in agents:
        seen, way = {int(scenario.agents[agent])}, [int(scenario.agents[agent])]
        while way:
            for other in map(int, rows[way.pop()]):
                if other in seen:
                    continue
                seen.add(other)
                if other in agent_at:
                    found[agent].add(agent_at[other])
                else:
                    way.append(other)
    return found


def norm_of(base: Arrays, arrays: Arrays) -> float:
    """Return the Euclidean norm of an update."""
    squares = (np.square(arrays[name] - base[name], dtype=np.float64).sum() for name in base)
    return float(np.sqrt(sum(squares)))


def make_grid(config: RunConfig, scenario: Scenario, threads: int = 0) -> CosimGrid:
    """Make the co-simulation that ``federation.merging`` asks for; see :class:`CosimGrid`."""
    kind = GossipGrid if config.federation.merging == GOSSIP else CosimGrid
    return kind(config, scenario, threads)
