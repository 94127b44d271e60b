"""Co-simulation: all agents learn at once in one simulated network under one virtual clock.

:class:`CosimGrid` is a Flower grid, used by the same server and strategy as any other. Behind it
there is no engine but the simulated network: a train message travels from the server's node to that
of the agent; the agent keeps acting in every tick and trains when its rollout is complete; the
update takes the time that the node needs for it; the reply travels back.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from safetensors.numpy import load, save

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.agents import COLLECTING, RETURNING, UPDATING, Agent, RoundTrip
from fauno_flwr.cosim.transport import Transport
from fauno_flwr.cosim.updates import Updates
from fauno_flwr.federation.local_training import LocalTraining
from fauno_flwr.federation.protocol import (
    ACTOR,
    AGENT,
    ARRAYS,
    METRICS,
    NODE,
    QUERY,
    QUERY_ACTOR,
    TRAIN,
    node_record,
)
from fauno_flwr.learning.metrics import task_metrics
from fauno_flwr.learning.recorder import Recorder
from fauno_flwr.learning.registry import make_population
from sim_env.engine.state import FINISHED, LOSSES, RESPONSE
from sim_env.scenario import Scenario
from sim_env.world import World
from strategies.arrays import Arrays, to_record
from strategies.flower_internals import message_from_bytes, message_to_bytes, set_metadata
from strategies.grids import (
    CLIENT_APP_RAISED,
    FIRST_NODE_ID,
    MESSAGE_UNAVAILABLE,
    NODE_UNAVAILABLE,
    LocalGrid,
)

ACTING, LEARNING = "acting", "learning"
POLL_INTERVAL = 1.0  # virtual seconds; a reply that arrives earlier ends the wait


class CosimClock:
    """Virtual time, in which the world runs while the strategy sleeps.

    Parameters
    ----------
    now : callable
        Returns the current tick.
    run_until : callable
        Runs the world up to a tick.
    tick : float
        Seconds of a tick.
    """

    def __init__(
        self, now: Callable[[], int], run_until: Callable[[int], None], tick: float
    ) -> None:
        self._now, self._run_until, self._tick = now, run_until, tick

    def monotonic(self) -> float:
        """Return virtual seconds."""
        return self._now() * self._tick

    def sleep(self, seconds: float) -> None:
        """Run the world for `seconds`, at least a tick, or until a reply arrives."""
        self._run_until(self._now() + max(1, math.ceil(seconds / self._tick)))


class CosimGrid(LocalGrid):
    """One network in which all agents act, learn and report.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
        The compiled world of `config`.
    threads : int, default 0
        Threads that compute updates while the world goes on; results do not depend on them.

    Attributes
    ----------
    clock : CosimClock
        Virtual time.
    poll_interval : float
        Virtual seconds between two polls that suit this grid.
    seconds : dict of str to float
        Wall-clock time spent on ``acting``, the ticks of the world included, and on ``learning``,
        as far as the world has waited for it.
    on_takeover : callable
        Called with the arrays from which another node takes over the server; None: version 0.
    """

    poll_interval = POLL_INTERVAL

    def __init__(self, config: RunConfig, scenario: Scenario, threads: int = 0) -> None:
        super().__init__()
        self.config, self.scenario = config, scenario
        self.tick = config.physics.tick
        seeds = np.random.SeedSequence([config.seed, 3]).generate_state(
            config.training.worlds, np.uint64
        )
        self.world = World(scenario, [int(seed) for seed in seeds])
        # Messages reduce the rates of the links for tasks: this world has its own rates.
        self.world.net = self.world.net._replace(rate=self.world.net.rate.copy())
        apart = self.world.net._replace(rate=self.world.net.rate.copy())
        self._server, self._down_since, self._moved = self._node_of_server(), -1, False
        self.on_takeover: Callable[[ArrayRecord | None], None] = lambda arrays: None
        net = self.world.net if config.cosim.share_with_tasks else apart
        self._transport = Transport(net, self._server)
        self.clock = CosimClock(lambda: self.world.now, self.run_until, self.tick)

        slowdown = config.cosim.slowdowns(scenario.topology.names)
        self._agents = [
            Agent(i, int(node), slowdown[node], np.random.default_rng([config.seed, i, 2]))
            for i, node in enumerate(scenario.agents)
        ]
        agents, training = len(self._agents), config.training
        self.population = make_population(agents, config, scenario)
        self._updates = Updates(self.population, threads)
        self._recorder = Recorder(self.world, agents, training.ticks)
        self._weights = self.population.weights(scenario.agent_of_node, greedy=False)
        self._changed: set[int] = set()  # agents whose policies differ from the weights
        self._replies: list[Message] = []
        self._sent = 0
        self.seconds = dict.fromkeys((ACTING, LEARNING), 0.0)
        self._recorder.roll(self._weights, training.warmup)
        # A server that never returns is waited for until its training is over.
        self._last = self.world.now + math.ceil(config.federation.timeout / self.tick)
        for agent in self._agents:
            self._discard_decisions(agent)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - begin

    # ---- time ----------------------------------------------------------------------------------

    def run_until(self, end: int) -> None:
        """Run the world up to tick `end`, or until one more reply has arrived.

        If the server's node is down then, until it is back: a server that is down does nothing.
        """
        replies = len(self._replies)
        self._step_trips()
        while True:
            now = self.world.now
            if self._server_is_down():
                end = max(end, now + 1)
                if now >= self._last:
                    self._drop_all("the node of the server has failed")
                    break
                if self._move_server(now):
                    break
            else:
                self._down_since = -1
                if now >= end or len(self._replies) != replies:
                    break
            span = 1 if self._transport.journeys else self._next_due(end) - self.world.now
            if self._changed:
                self.population.refresh(self._weights, sorted(self._changed))
                self._changed.clear()
            with self._timed(ACTING):
                self._recorder.roll(self._weights, span)
            for key in self._transport.advance(span, self._open_links(), self._tasks_on_links()):
                self._deliver(key)
            self._step_trips()

    @property
    def seconds_beside(self) -> float:
        """Wall-clock seconds that threads have spent on learning, while the world went on."""
        return self._updates.beside

    def _server_is_down(self) -> bool:
        return not self.world.state.up[0, self._server]

    def _move_server(self, now: int) -> bool:
        """Move the server to the next node by rank, if that is due; return whether it is.

        Of the nodes that are up, that is the fastest, and of equally fast ones the one with most
        neighbours.

        What the old server was sent, and what it has sent, is lost.
        """
        wait = self.config.cosim.takeover
        self._down_since = now if self._down_since < 0 else self._down_since
        if not wait or (now - self._down_since) * self.tick < wait:
            return False
        up = [agent for agent in self._agents if self.world.state.up[0, agent.node]]
        if not up:
            return False
        net = self.scenario.net
        heir = max(up, key=lambda a: (net.speed[a.node], net.slots[a.node], -a.index))
        self._moved = True
        self._server, self._down_since = heir.node, -1
        self._drop_all("another node has taken over the server")
        self.on_takeover(heir.known)
        return True

    def _deliver(self, key: str) -> None:
        """Receive what has crossed the network, by the key under which it was sent."""
        self._arrive(self._agents[int(key)])

    def _trips(self) -> list[tuple[Agent, RoundTrip]]:
        """Return the round trips in the order of the agents."""
        return [(agent, agent.trip) for agent in self._agents if agent.trip is not None]

    def _next_due(self, end: int) -> int:
        trips = [trip for _, trip in self._trips()]
        due = [trip.due for trip in trips if trip.phase in (COLLECTING, UPDATING)]
        expires = [math.ceil(trip.expires) for trip in trips]
        return max(self.world.now + 1, min([end, *due, *expires]))

    def _step_trips(self) -> None:
        """Start and finish the updates that are due, and fail the messages that have expired."""
        now, up = self.world.now, self.world.state.up[0]
        trips = self._trips()
        for agent, trip in trips:
            if trip.phase != RETURNING and not up[agent.node]:
                self._drop(agent, trip, NODE_UNAVAILABLE, "the node has failed")
            elif trip.phase == COLLECTING and trip.due <= now:
                self._start_update(agent, trip)
        for agent, trip in trips:
            if agent.trip is trip and trip.phase == UPDATING and trip.due <= now:
                self._finish_update(agent, trip)
        for agent, trip in trips:
            if agent.trip is trip and trip.expires <= now:
                self._drop(agent, trip, MESSAGE_UNAVAILABLE, "time-to-live is over")

    # ---- the phases of a trip -------------------------------------------------------------------

    def _arrive(self, agent: Agent) -> None:
        """Receive a message at the node of an agent, or its reply at the server."""
        trip = agent.trip
        if trip is None:
            return
        if trip.phase == RETURNING:
            agent.trip = None
            self._replies.append(self._reply(trip))
            return
        agent.known = trip.message.content.array_records[ARRAYS]
        if trip.training.begin():
            self._discard_decisions(agent)
        trip.totals = self.world.state.total.sum(axis=0)
        self._collect(agent, trip)

    def _discard_decisions(self, agent: Agent) -> None:
        """Discard the decisions of an agent whose policy has changed."""
        self._recorder.drop(agent.index)
        agent.since = self.world.now
        self._changed.add(agent.index)

    def _collect(self, agent: Agent, trip: RoundTrip) -> None:
        trip.phase = COLLECTING
        trip.due = max(self.world.now, agent.since + self.config.training.ticks)

    def _start_update(self, agent: Agent, trip: RoundTrip) -> None:
        """Take the rollout; its update lasts as long as the speed of the node makes it."""
        now = self.world.now
        rollout = self._recorder.take(agent.index, now - self.config.training.ticks)
        agent.since = now
        passes = len(rollout) * self.config.agent.epochs
        ticks = self.config.cosim.training_work * passes / self.scenario.net.speed[agent.node]
        trip.rollout, trip.phase = rollout, UPDATING
        trip.due = now + max(1, math.ceil(ticks * agent.slowdown))
        self._updates.begin(agent, rollout, trip.training.learning_rate)

    def _finish_update(self, agent: Agent, trip: RoundTrip) -> None:
        assert trip.rollout is not None
        with self._timed(LEARNING):
            metrics = self._updates.finish(agent)
        trip.training.record(trip.rollout, metrics)
        trip.rollout = None
        self._discard_decisions(agent)
        if not trip.training.complete:
            self._collect(agent, trip)
            return
        self._report(agent, trip)

    def _report(self, agent: Agent, trip: RoundTrip) -> None:
        """Send the outcome of a training to the server."""
        trip.phase = RETURNING
        trip.update = trip.training.update_record()
        size = self._bytes(trip.update)
        self._transport.send(str(agent.index), agent.node, self._server, size, self._down())

    def _reply(self, trip: RoundTrip) -> Message:
        content = RecordDict({ARRAYS: trip.update, METRICS: self._metrics(trip)})
        return Message(content, reply_to=trip.message)

    def _metrics(self, trip: RoundTrip) -> MetricRecord:
        total = self.world.state.total.sum(axis=0) - trip.totals
        lost = sum(int(total[column]) for column in LOSSES.values())
        return trip.training.metrics(
            task_metrics(int(total[FINISHED]), lost, float(total[RESPONSE]) * self.tick),
            seconds=(self.world.now - trip.sent_at) * self.tick,
        )

    def _drop(self, agent: Agent, trip: RoundTrip, code: int, reason: str) -> None:
        """Fail a message, wherever it is; the agent itself does not change."""
        agent.trip = None
        self._updates.drop(agent)
        self._replies.append(Message(Error(code, reason), reply_to=trip.message))
        self._transport.forget(str(agent.index))

    def _drop_all(self, reason: str) -> None:
        for agent, trip in self._trips():
            self._drop(agent, trip, NODE_UNAVAILABLE, reason)

    # ---- checkpoints ---------------------------------------------------------------------------

    def save_state(self) -> dict[str, bytes]:
        """Serialise the world, the agents with their networks, and the messages in flight."""
        about = {
            "sent": self._sent,
            "replies": len(self._replies),
            "journeys": self._transport.snapshot(),
        }
        return {
            "about": json.dumps(about).encode(),
            "world": save(self.world.snapshot()),
            "recorder": save(self._recorder.snapshot()),
            "population": self.population.save(),
            **{f"reply-{i}": message_to_bytes(reply) for i, reply in enumerate(self._replies)},
            **{
                f"agent-{agent.index}.{name}": data
                for agent in self._agents
                for name, data in agent.snapshot().items()
            },
        }

    def load_state(self, state: dict[str, bytes]) -> None:
        """Restore what :meth:`save_state` of a grid with the same settings has returned."""
        about = json.loads(state["about"])
        self.world.restore(load(state["world"]))
        self._recorder.restore(load(state["recorder"]))
        self.population.load(state["population"])
        self._weights = self.population.weights(self.scenario.agent_of_node, greedy=False)
        for agent in self._agents:
            start = f"agent-{agent.index}."
            blobs = {n.removeprefix(start): b for n, b in state.items() if n.startswith(start)}
            agent.restore(blobs, partial(self._training, agent))
            trip = agent.trip
            if trip is not None and trip.rollout is not None:
                self._updates.begin(agent, trip.rollout, trip.training.learning_rate)
        self._sent = about["sent"]
        self._replies = [message_from_bytes(state[f"reply-{i}"]) for i in range(about["replies"])]
        self._transport.restore(about["journeys"])

    # ---- the network ---------------------------------------------------------------------------

    def _open_links(self) -> np.ndarray:
        """Return which links messages may enter, shape (L,)."""
        st = self.world.state
        return np.asarray(st.open[0] & st.up[0, self._transport.source])

    def _down(self) -> list[int]:
        """Return the nodes that are down."""
        return np.flatnonzero(~self.world.state.up[0]).tolist()

    def _tasks_on_links(self) -> np.ndarray:
        """Return how many tasks share each link with messages, shape (L,)."""
        if self.config.cosim.share_with_tasks:
            return self.world.tasks_on_links()
        return np.zeros(len(self.world.net.neighbour))

    def _node_of_server(self) -> int:
        topology, name = self.scenario.topology, self.config.cosim.server
        if name:
            return topology.names.index(name)
        servers = [node for node, role in enumerate(topology.roles) if role == "server"]
        return servers[0] if servers else int(np.argmax(topology.speed))

    # ---- Flower's interface --------------------------------------------------------------------

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the agents whose node is up.

        A node that has taken over the server counts those that it can reach, or it would wait for
        K of them in vain.
        """
        up = self.world.state.up[0]
        found = [agent for agent in self._agents if up[agent.node]]
        if self._moved:
            reachable = self._transport.reachable(self._server, self._down())
            found = [agent for agent in found if agent.node in reachable]
        return [FIRST_NODE_ID + agent.index for agent in found]

    def get_all_node_ids(self) -> Iterable[int]:
        """Return the ids of all agents, including those whose node is down."""
        return range(FIRST_NODE_ID, FIRST_NODE_ID + len(self._agents))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; the id is empty for one to a node that is down or busy."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived."""
        wanted = set(message_ids)
        found = [r for r in self._replies if r.metadata.reply_to_message_id in wanted]
        self._replies = [r for r in self._replies if r not in found]
        return found

    def _push(self, message: Message) -> str:
        agent = self._agents[message.metadata.dst_node_id - FIRST_NODE_ID]
        kind = message.metadata.message_type
        if kind == TRAIN and (agent.trip or not self.world.state.up[0, agent.node]):
            return ""
        self._sent += 1
        message_id = f"message-{self._sent}"
        set_metadata(message, message_id=message_id)
        if kind == TRAIN:
            self._send(agent, message)
        elif kind in (QUERY, QUERY_ACTOR):
            self._replies.append(Message(self._answer(kind, agent), reply_to=message))
        else:
            reason = f"message type {kind!r} is not known: must be train, query or query.actor"
            self._replies.append(Message(Error(CLIENT_APP_RAISED, reason), reply_to=message))
        return message_id

    def _send(self, agent: Agent, message: Message) -> None:
        content, now = message.content, float(self.world.now)
        training = self._training(agent, content)
        agent.trip = RoundTrip(message, training, now, now + message.metadata.ttl / self.tick)
        size = self._bytes(content.array_records[ARRAYS])
        self._transport.send(str(agent.index), self._server, agent.node, size, self._down())

    def _bytes(self, arrays: ArrayRecord) -> int:
        """Return the size of a message in the network."""
        return math.ceil(arrays.count_bytes() * self.config.cosim.message_factor)

    def _training(self, agent: Agent, content: RecordDict) -> LocalTraining:
        # No data of anyone: under virtual time, the noise too is the same in each run.
        seed = [self.config.seed, agent.index]
        return LocalTraining(
            self.config, self.population, agent.index, agent.progress, content, seed
        )

    def get_actors(self) -> dict[int, Arrays]:
        """Return the present actors by agent; no time passes."""
        return {agent.index: self.population.get_actor(agent.index) for agent in self._agents}

    def _answer(self, kind: str, agent: Agent) -> RecordDict:
        """Answer a query; queries precede or follow the training and do not use the network."""
        if kind == QUERY_ACTOR:
            actor = to_record(self.population.get_actor(agent.index))
            return RecordDict({NODE: ConfigRecord({AGENT: agent.index}), ACTOR: actor})
        shared = self.population.get_shared(self.config.federation.share, agent.index)
        messages = agent.progress.messages
        return RecordDict({NODE: node_record(agent.index, len(self._agents), shared, messages)})
