"""Co-simulation: all agents learn at once in one shared network, under one virtual clock.

:class:`CosimGrid` is a Flower grid. The strategy and the server are those of every other way to
run; behind the grid there is no engine but the simulated network itself: a train message travels
from the server's node to the agent's, the agent goes on acting in every tick and trains when its
rollout is full, its update takes the time that its node needs, and the reply travels back.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict

from fauno_flwr.config.settings import NOTHING, RunConfig
from fauno_flwr.cosim.transport import Transport
from fauno_flwr.federation.protocol import (
    ACTOR,
    ARRAYS,
    CONFIG,
    METRICS,
    NODE,
    QUERY,
    QUERY_ACTOR,
    ROUND,
    TRAIN,
    read,
    report,
    schema,
)
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.metrics import task_metrics, train_metrics
from fauno_flwr.learning.registry import make_population
from fauno_flwr.learning.rollout import Recorder
from fauno_flwr.learning.transitions import Decisions
from sim_env.engine.state import FINISHED, OUTBOUND, RESPONSE
from sim_env.scenario import Scenario
from sim_env.world import OUTCOMES, World
from strategies.arrays import to_arrays, to_record
from strategies.grids import (
    CLIENT_APP_RAISED,
    FIRST_NODE_ID,
    MESSAGE_UNAVAILABLE,
    NODE_UNAVAILABLE,
    LocalGrid,
)

POLL_INTERVAL = 1.0  # virtual seconds; a reply that comes earlier ends the wait
GOING, COLLECTING, TRAINING, RETURNING = "going", "collecting", "training", "returning"


@dataclass
class Job:
    """A train message, from the moment it is sent to its reply.

    Parameters
    ----------
    message : Message
    sent_at, expires : float
        Ticks.
    phase : str
        Where it is: on its way to the agent, collecting, training, on its way back.
    version : int
        Of the critic that it brings.
    due : int
        Tick in which the present rollout is full, or the update done.
    told : list of dict
        What each update told.
    rewards : list of float
        Mean reward of each rollout.
    before : array
        What had ended in the worlds when the message came.
    update : ArrayRecord
        What travels back.
    """

    message: Message
    sent_at: float
    expires: float
    version: int
    phase: str = GOING
    due: int = 0
    told: list[dict[str, float]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    before: np.ndarray = field(default_factory=lambda: np.zeros(0))
    update: ArrayRecord = field(default_factory=ArrayRecord)

    @property
    def base(self) -> dict[str, np.ndarray]:
        """The critic that it brings."""
        return to_arrays(self.message.content.array_records[ARRAYS])


class CosimClock:
    """Virtual time: it passes when somebody sleeps, and then the world runs."""

    def __init__(self, grid: "CosimGrid") -> None:
        self._grid = grid

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._grid.world.now * self._grid.tick

    def sleep(self, seconds: float) -> None:
        """Let the world run until a reply is there, for `seconds` at most, one tick at least."""
        self._grid.run_until(self._grid.world.now + max(1, math.ceil(seconds / self._grid.tick)))


class CosimGrid(LocalGrid):
    """One shared network in which all agents act, learn and report.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
        The compiled world of `config`.

    Attributes
    ----------
    clock : CosimClock
        Virtual time.
    poll_interval : float
        Virtual seconds between two looks for replies that suit this grid.
    """

    poll_interval = POLL_INTERVAL

    def __init__(self, config: RunConfig, scenario: Scenario) -> None:
        super().__init__()
        self.config, self.scenario = config, scenario
        self.tick = config.physics.tick
        agents = len(scenario.agents)
        seeds = np.random.SeedSequence([config.seed, 3]).generate_state(
            config.training.worlds, np.uint64
        )
        self.world = World(scenario, [int(seed) for seed in seeds])
        # Messages take their share of the links: the rates are this world's own.
        self.world.net = self.world.net._replace(rate=self.world.net.rate.copy())
        apart = self.world.net._replace(rate=self.world.net.rate.copy())
        self.population = make_population(agents, config, scenario)
        self._recorder = Recorder(self.world, agents, config.agent.hidden, config.training.ticks)
        self._weights = self.population.weights(scenario.agent_of_node, greedy=False)
        self._changed = False
        self._transport = Transport(self.world.net if config.cosim.share_with_tasks else apart)
        self._server = self._node_of_server()
        self._slowdown = config.cosim.slowdowns(scenario.topology.names)
        self._rngs = [np.random.default_rng([config.seed, agent, 2]) for agent in range(agents)]
        self._version = [-1] * agents
        self._compression = config.federation.build_compression()
        self._residuals: list[np.ndarray | None] = [None] * agents
        self._messages = [0] * agents
        self._jobs: dict[int, Job] = {}
        self._batches: dict[int, Decisions] = {}
        self._trained: dict[int, tuple[AgentStack, int]] = {}
        self._replies: list[Message] = []
        self._sent = 0
        self.clock = CosimClock(self)
        self._recorder.roll(self._weights, config.training.warmup)
        self._since = [0] * agents
        for agent in range(agents):
            self._begin_anew(agent)

    # ---- time ----------------------------------------------------------------------------------

    def run_until(self, end: int) -> None:
        """Let the world run up to tick `end`, or until one more reply has come."""
        replies = len(self._replies)
        self._step_jobs()
        while self.world.now < end and len(self._replies) == replies:
            span = 1 if self._transport.journeys else self._next_due(end) - self.world.now
            if self._changed:
                self._weights = self.population.weights(self.scenario.agent_of_node, greedy=False)
                self._changed = False
            self._recorder.roll(self._weights, span)
            st, transport = self.world.state, self._transport
            is_open = st.open[0] & st.up[0, transport.source]
            for key in transport.advance(span, is_open, self._tasks_on_links()):
                self._arrive(int(key))
            self._step_jobs()

    def _next_due(self, end: int) -> int:
        now = self.world.now
        due = [job.due for job in self._jobs.values() if job.phase in (COLLECTING, TRAINING)]
        expires = [math.ceil(job.expires) for job in self._jobs.values()]
        return max(now + 1, min([end, *due, *expires]))

    def _step_jobs(self) -> None:
        """Begin and finish the updates that are due, fail the messages that are too old."""
        now, up = self.world.now, self.world.state.up[0, self.scenario.agents]
        for agent, job in sorted(self._jobs.items()):
            if not up[agent] and job.phase != RETURNING:
                self._drop(agent, NODE_UNAVAILABLE, "the node has failed")
            elif job.phase == COLLECTING and job.due <= now:
                self._begin_update(agent, job)
        done = [
            (agent, job)
            for agent, job in sorted(self._jobs.items())
            if job.phase == TRAINING and job.due <= now
        ]
        if any(agent in self._batches for agent, _ in done):
            self._compute_updates()
        for agent, job in done:
            self._finish_update(agent, job)
        for agent, job in sorted(self._jobs.items()):
            if job.expires <= now:
                self._drop(agent, MESSAGE_UNAVAILABLE, "time-to-live is over")

    # ---- one agent -----------------------------------------------------------------------------

    def _arrive(self, agent: int) -> None:
        """A message has come through the network."""
        job = self._jobs.get(agent)
        if job is None:
            return
        if job.phase == RETURNING:
            del self._jobs[agent]
            self._replies.append(self._reply(agent, job))
            return
        # Asked to go on from a version it already has, the node keeps what it learned since.
        newer = job.version != self._version[agent] and self.config.federation.share != NOTHING
        if newer and self.population.set_shared(job.base, agent):
            self._begin_anew(agent)
        self._version[agent] = job.version
        job.before = self.world.state.total.sum(axis=0)
        self._collect(agent, job)

    def _begin_anew(self, agent: int) -> None:
        """What the agent has decided until now is not from the policy that it has now."""
        self._recorder.drop(agent)
        self._since[agent] = self.world.now
        self._changed = True

    def _collect(self, agent: int, job: Job) -> None:
        job.phase = COLLECTING
        job.due = max(self.world.now, self._since[agent] + self.config.training.ticks)

    def _begin_update(self, agent: int, job: Job) -> None:
        """The rollout is full; its update takes as long as the node's speed makes it."""
        batch = self._recorder.take(agent, self.world.now - self.config.training.ticks)
        self._batches[agent], self._since[agent] = batch, self.world.now
        job.rewards.append(float(batch.reward.mean()) if len(batch) else 0.0)
        node = self.scenario.agents[agent]
        cosim, passes = self.config.cosim, len(batch) * self.config.agent.epochs
        ticks = cosim.training_work * passes / self.scenario.net.speed[node]
        job.phase = TRAINING
        job.due = self.world.now + max(1, math.ceil(ticks * self._slowdown[node]))

    def _compute_updates(self) -> None:
        """All updates that have begun, side by side: their data and parameters stand since then."""
        agents = sorted(self._batches)
        versions = np.array([self._jobs[agent].version for agent in agents], float)
        rate = self.config.agent.learning_rate * (1 - versions / self.config.federation.versions)
        some = self.population.select(agents)
        told = some.update(
            [self._batches.pop(agent) for agent in agents],
            rate,
            [self._rngs[agent] for agent in agents],
        )
        for place, agent in enumerate(agents):
            self._jobs[agent].told.append(told[place])
            self._trained[agent] = some, place

    def _finish_update(self, agent: int, job: Job) -> None:
        self.population.put(agent, *self._trained.pop(agent))
        self._begin_anew(agent)
        if len(job.told) < self.config.training.rollouts:
            self._collect(agent, job)
            return
        job.phase = RETURNING
        self._messages[agent] += 1
        shared = self.population.get_shared(self.config.federation.share, agent)
        job.update, self._residuals[agent] = report(
            self._compression, shared, job.base, self._residuals[agent]
        )
        node = int(self.scenario.agents[agent])
        self._transport.send(str(agent), node, self._server, job.update.count_bytes())

    def _reply(self, agent: int, job: Job) -> Message:
        total = self.world.state.total.sum(axis=0) - job.before
        lost = sum(int(total[column]) for column in OUTCOMES.values())
        metrics = train_metrics(
            job.told,
            job.rewards,
            self._messages[agent],
            task_metrics(int(total[FINISHED]), lost, float(total[RESPONSE]) * self.tick),
            seconds=(self.world.now - job.sent_at) * self.tick,
        )
        content = RecordDict({ARRAYS: job.update, METRICS: metrics})
        return Message(content, reply_to=job.message)

    def _drop(self, agent: int, code: int, reason: str) -> None:
        """Fail the message of an agent, wherever it is; the agent itself stays as it is."""
        job = self._jobs.pop(agent)
        self._replies.append(Message(Error(code, reason), reply_to=job.message))
        self._batches.pop(agent, None)
        self._trained.pop(agent, None)
        self._transport.forget(str(agent))

    def _tasks_on_links(self) -> np.ndarray:
        """Tasks that travel on each link, the mean over the worlds, shape (L,)."""
        net, st = self.world.net, self.world.state
        counts = np.zeros(len(net.neighbour))
        if self.config.cosim.share_with_tasks:
            world, task = np.nonzero(st.kind == OUTBOUND)
            rows = self._transport.rows_between(st.sender[world, task], st.place[world, task])
            counts += np.bincount(rows, minlength=len(counts)) / self.world.num_worlds
        return counts

    def _node_of_server(self) -> int:
        topology, name = self.scenario.topology, self.config.cosim.server
        if name:
            return topology.names.index(name)
        servers = [node for node, role in enumerate(topology.roles) if role == "server"]
        return servers[0] if servers else int(np.argmax(topology.speed))

    # ---- Flower's interface ----------------------------------------------------------------------

    def get_node_ids(self) -> Iterable[int]:
        """Agents whose node is up."""
        up = self.world.state.up[0, self.scenario.agents]
        return [FIRST_NODE_ID + agent for agent in np.flatnonzero(up).tolist()]

    def get_all_node_ids(self) -> Iterable[int]:
        """All agents, also those whose node is down."""
        return range(FIRST_NODE_ID, FIRST_NODE_ID + len(self.scenario.agents))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let messages set out; an empty id stands for one to a node that is down or busy."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have come."""
        wanted = set(message_ids)
        mine = [r for r in self._replies if r.metadata.reply_to_message_id in wanted]
        self._replies = [r for r in self._replies if r not in mine]
        return mine

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send, and let the world run until all have answered or `timeout` is over."""
        waiting = {message_id for message_id in self.push_messages(messages) if message_id}
        end = math.inf if timeout is None else self.clock.monotonic() + timeout
        replies = list(self.pull_messages(waiting))
        while len(replies) < len(waiting) and self.clock.monotonic() < end:
            self.clock.sleep(1.0)
            replies += self.pull_messages(waiting)
        return replies

    def _push(self, message: Message) -> str:
        agent = message.metadata.dst_node_id - FIRST_NODE_ID
        kind = message.metadata.message_type
        if kind == TRAIN and (
            agent in self._jobs or agent + FIRST_NODE_ID not in self.get_node_ids()
        ):
            return ""
        self._sent += 1
        message_id = f"message-{self._sent}"
        message.metadata.__dict__["_message_id"] = message_id
        if kind == TRAIN:
            config = message.content.config_records[CONFIG]
            now = float(self.world.now)
            expires = now + message.metadata.ttl / self.tick
            self._jobs[agent] = Job(message, now, expires, read(config, ROUND, int))
            size = message.content.array_records[ARRAYS].count_bytes()
            node = int(self.scenario.agents[agent])
            self._transport.send(str(agent), self._server, node, size)
        elif kind in (QUERY, QUERY_ACTOR):
            self._replies.append(Message(self._describe(kind, agent), reply_to=message))
        else:
            reason = f"message type {kind!r} is not known: must be train, query or query.actor"
            self._replies.append(Message(Error(CLIENT_APP_RAISED, reason), reply_to=message))
        return message_id

    def _describe(self, kind: str, agent: int) -> RecordDict:
        """Who a node is, or its actor; asked before and after training, outside of the network."""
        about: dict[str, Any] = {"agent": agent}
        if kind == QUERY_ACTOR:
            actor = to_record(self.population.get_actor(agent))
            return RecordDict({NODE: ConfigRecord(about), ACTOR: actor})
        about["nodes"] = len(self.scenario.agents)
        about["critic"] = schema(self.population.get_shared(self.config.federation.share, agent))
        return RecordDict({NODE: ConfigRecord(about)})
