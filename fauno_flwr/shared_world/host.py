"""A world that goes on by itself, and the agents that nodes have put into it.

The world belongs to one thread. Whoever wants something of it hands that thread a function and
waits for the result; between two of them the world ticks.
"""

import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from logging import INFO
from typing import Any, TypeVar

import numpy as np
from flwr.common.logger import log

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.registry import make_population
from fauno_flwr.learning.rollout import Recorder
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.shared_world.table import joint_table
from fauno_flwr.shared_world.wire import Arrays, Schema, require_arrays
from sim_env.engine.net import NO_DEADLINE
from sim_env.engine.state import FINISHED, NEVER, RESPONSE
from sim_env.policies.compiled import CODES
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import Scenario
from sim_env.world import OUTCOMES, World

T = TypeVar("T")
STRETCH = 32  # ticks between two looks at what nodes want
LONGEST_LIFE = NEVER - NO_DEADLINE - 2**20  # ticks; those of a world are 32-bit integers
RECENT, RECENT_PARTS = 20_000, 10  # ticks that the table calls recent, and its resolution
CALL_TIMEOUT = 30.0


class SessionError(Exception):
    """A node speaks for an agent that it has not joined as, or of a world that is no more."""


class StoppedError(RuntimeError):
    """The world does not tick any more."""


@dataclass
class Member:
    """What the world keeps of an agent, beside its actor and its decisions.

    Parameters
    ----------
    session : str
        Of the node that joined last; only that one may deploy and collect.
    joined, deployed, collected : int
        How often a node has joined, deployed an actor and collected; decisions collected.
    deployed_at : int
        Tick of the last actor of this session, -1 for none.
    since : int
        Tick from which on decisions are the session's to collect.
    """

    session: str = ""
    joined: int = 0
    deployed: int = 0
    collected: int = 0
    deployed_at: int = -1
    since: int = 0


class WorldHost:
    """One world, ticking in a thread of its own from :meth:`start` to :meth:`stop`.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
        The compiled world of `config`.
    pace : float, default 0
        Ticks per second; 0: as many as the machine makes.
    """

    def __init__(self, config: RunConfig, scenario: Scenario, pace: float = 0.0) -> None:
        self.config, self.scenario, self.pace = config, scenario, pace
        self.names = [scenario.topology.names[node] for node in scenario.agents]
        one = make_population(1, config, scenario)
        self._template = one.weights(np.zeros(0), greedy=False)
        self.schema: Schema = {
            name: (value.shape[1:], value.dtype)
            for name, value in self._template._asdict().items()
            if isinstance(value, np.ndarray) and name != "agent_of_node"
        }
        self._wanted: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        self._lives = 0
        self._begin()

    def start(self) -> None:
        """Let the world tick."""
        self._thread.start()

    def stop(self) -> None:
        """Stop it for good; what is still wanted of it fails."""
        self._stopping.set()
        self._wanted.put((lambda: None, Future()))  # wakes it
        if self._thread.is_alive():
            self._thread.join()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the world has stopped; raises what stopped it, if anything did."""
        self._thread.join(timeout)
        if self.failure is not None:
            raise self.failure
        return not self._thread.is_alive()

    def call(self, function: Callable[[], T]) -> T:
        """Result of a function that the world's thread calls between two ticks."""
        if not self._thread.is_alive():
            raise StoppedError("the world has stopped")
        result: Future[T] = Future()
        self._wanted.put((function, result))
        return result.result(CALL_TIMEOUT)

    # ---- the thread of the world -----------------------------------------------------------------

    def _begin(self) -> None:
        """An empty world, without any agent's actor."""
        agents, nodes = len(self.scenario.agents), self.scenario.topology.num_nodes
        seed = np.random.SeedSequence([self.config.seed, 5, self._lives]).generate_state(
            1, np.uint64
        )
        self._lives += 1
        self.life = secrets.token_hex(8)
        self.world = World(self.scenario, [int(seed[0])])
        self.world.measure(0, NEVER, exchange=True)
        self.members = [Member() for _ in range(agents)]
        self.recorder = Recorder(
            self.world, agents, self.config.agent.hidden, self.config.world.keep
        )
        actors: dict[str, Any] = {
            name: np.zeros((agents, *shape), dtype) for name, (shape, dtype) in self.schema.items()
        }
        self.weights = self._template._replace(
            **actors,
            agent_of_node=np.full(nodes, -1, np.int32),
            otherwise=CODES[POLICIES[self.config.world.heuristic]],
        )
        self._before = np.zeros((agents, self.world.state.total.shape[1]), np.int64)
        self._snapshots: deque[tuple[int, np.ndarray]] = deque(maxlen=RECENT_PARTS + 1)
        self._snapshots.append((0, self.world.state.total.sum(axis=0)))
        self._started = self._paced_from = time.monotonic()
        self._paced_tick = 0

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                ticks, wait = self._due()
                self._serve(wait)
                if ticks:
                    self.recorder.roll(self.weights, ticks)
                    self._after_ticks()
                    time.sleep(0)  # lets the threads of the service have their turn
        except BaseException as error:
            self.failure = error
        finally:
            self._stopping.set()
            self._refuse_all()

    def _due(self) -> tuple[int, float]:
        """Ticks to make now, and seconds to wait for nodes if there are none."""
        if not self.pace:
            return STRETCH, 0.0
        ahead = self._paced_tick + (time.monotonic() - self._paced_from) * self.pace
        due = int(ahead) - self.world.now
        if due > max(STRETCH, self.pace):  # more than a second behind: lost time stays lost
            self._paced_from, self._paced_tick = time.monotonic(), self.world.now + STRETCH
            due = STRETCH
        return min(max(due, 0), STRETCH), 0.0 if due > 0 else (1.0 + int(ahead) - ahead) / self.pace

    def _serve(self, wait: float) -> None:
        """Do what nodes want; with nothing to do, wait for it so many seconds."""
        while True:
            try:
                function, result = (
                    self._wanted.get(timeout=wait) if wait else self._wanted.get_nowait()
                )
            except queue.Empty:
                return
            wait = 0.0
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(function())
                except Exception as error:
                    result.set_exception(error)

    def _refuse_all(self) -> None:
        while True:
            try:
                _, result = self._wanted.get_nowait()
            except queue.Empty:
                return
            result.set_exception(StoppedError("the world has stopped"))

    def _after_ticks(self) -> None:
        now = self.world.now
        if now - self._snapshots[-1][0] >= RECENT // RECENT_PARTS:
            self._snapshots.append((now, self.world.state.total.sum(axis=0)))
        if now >= LONGEST_LIFE:
            log(INFO, "after %s ticks the world starts anew, all nodes have to join again", now)
            self._begin()

    # ---- what nodes may want; called in the thread of the world ----------------------------------

    def join(self, agent: int) -> dict[str, Any]:
        """Begin a session of an agent; the one before it ends.

        Raises
        ------
        ValueError
            If there is no such agent.
        """
        if not 0 <= agent < len(self.members):
            raise ValueError(
                f"agent is {agent}: must be from 0 to {len(self.members) - 1}, the nodes that "
                f"decide in this world"
            )
        member = self.members[agent]
        member.session, member.deployed_at = f"{self.life}.{secrets.token_hex(16)}", -1
        member.joined += 1
        log(INFO, "%s has joined as agent %s", self.names[agent], agent)
        return {"session": member.session, "tick": self.world.now, "pace": self.pace}

    def _member(self, agent: int, session: str) -> Member:
        if session.partition(".")[0] != self.life:
            raise SessionError("this world has started anew: join it again")
        if not 0 <= agent < len(self.members) or not secrets.compare_digest(
            session.encode(), self.members[agent].session.encode()
        ):
            raise PermissionError(
                f"another node has joined as agent {agent} since: each needs a partition-id of "
                f"its own"
            )
        return self.members[agent]

    def deploy(self, agent: int, session: str, actor: Arrays) -> dict[str, Any]:
        """Let an actor decide for an agent from this tick on.

        Raises
        ------
        ValueError
            If the arrays are not those of an actor of this world, or not finite.
        SessionError, PermissionError
            If the node has to join (again), or another one has joined instead.
        """
        member = self._member(agent, session)
        require_arrays("an actor", actor, self.schema)
        for name, array in actor.items():
            getattr(self.weights, name)[agent] = array
        self.weights.agent_of_node[self.scenario.agents[agent]] = agent
        self.recorder.drop(agent)
        member.deployed += 1
        member.deployed_at = member.since = self.world.now
        self._before[agent] = self.world.state.total.sum(axis=0)
        return {"tick": self.world.now}

    def collect(
        self, agent: int, session: str, ticks: int
    ) -> tuple[dict[str, Any], Decisions | None]:
        """What an agent has decided in the last ticks, all by the actor that this session deployed.

        Parameters
        ----------
        agent : int
        session : str
        ticks : int

        Returns
        -------
        dict
            ``left``: ticks still to go until there are so many since the actor was deployed, or
            since they were collected last. At 0, what has happened since then in the world:
            ``finished`` and ``lost`` tasks, ``response`` of the former in ticks.
        Decisions or None
            None while some ticks are left.
        """
        member = self._member(agent, session)
        if member.deployed_at < 0:
            raise ValueError(f"agent {agent} has no actor of this session: deploy one first")
        if not 1 <= ticks <= self.config.world.keep:
            raise ValueError(
                f"ticks is {ticks}: must be from 1 to world.keep = {self.config.world.keep} of "
                f"this world"
            )
        now = self.world.now
        left = member.since + ticks - now
        if left > 0:
            return {"left": left, "speed": self.speed}, None
        taken = self.recorder.take(agent, now - ticks)
        member.since = now
        member.collected += len(taken)
        total = self.world.state.total.sum(axis=0)
        since, self._before[agent] = total - self._before[agent], total
        return {"left": 0, "tick": now, **ended(since)}, taken

    @property
    def speed(self) -> float:
        """Ticks per second since this world began."""
        return self.world.now / max(time.monotonic() - self._started, 1e-3)

    def status(self) -> dict[str, Any]:
        """The joint table, and what each node has done here."""
        then, before = self._snapshots[0]
        recent = ended(self.world.state.total.sum(axis=0) - before)
        forgotten = self.recorder.forgotten.tolist()
        nodes = {
            name: {
                **{key: value for key, value in asdict(member).items() if key != "session"},
                "dropped": forgotten[agent],
            }
            for agent, (name, member) in enumerate(zip(self.names, self.members, strict=True))
        }
        return {
            "life": self.life,
            "tick": self.world.now,
            "ticks_per_second": self.speed,
            "heuristic": self.config.world.heuristic,
            "nodes": nodes,
            "recent": {"ticks": self.world.now - then, **recent},
            "table": joint_table(self.world),
        }


def ended(total: np.ndarray) -> dict[str, int]:
    """Tasks that ended, from the counters of a world."""
    lost = sum(int(total[column]) for column in OUTCOMES.values())
    return {"finished": int(total[FINISHED]), "lost": lost, "response": int(total[RESPONSE])}
