"""A world that runs by itself, and the agents that nodes have deployed in it.

One thread owns the world. Other threads pass it functions to call and wait for the results; the
world ticks between these calls.
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
from fauno_flwr.learning.recorder import Recorder
from fauno_flwr.learning.registry import make_population
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.shared_world.table import joint_table
from fauno_flwr.shared_world.wire import Arrays, Schema, require_arrays
from sim_env.engine.net import NO_DEADLINE
from sim_env.engine.state import FINISHED, LOSSES, NEVER, RESPONSE
from sim_env.policies.compiled import CODES
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import Scenario
from sim_env.world import World

T = TypeVar("T")
STRETCH = 32  # ticks between two polls for requests
LONGEST_LIFE = NEVER - NO_DEADLINE - 2**20  # ticks; those of a world are 32-bit integers
RECENT, RECENT_PARTS = 20_000, 10  # ticks that the table calls recent, and its resolution
CALL_TIMEOUT = 30.0


class SessionError(Exception):
    """The session of a request is of a world that has been replaced."""


class StoppedError(RuntimeError):
    """The world has stopped."""


@dataclass
class Member:
    """The record of an agent, beside its actor and its decisions.

    Parameters
    ----------
    session : str
        Of the node that joined last; only this node may deploy and collect.
    joined, deployed, collected : int
        Counts: joins, deployed actors, collected decisions.
    deployed_at : int
        Tick at which the last actor of this session was deployed, -1 for none.
    since : int
        Tick of the first decision that the session may collect.
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
        Ticks per second; 0: as many as possible.
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
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        self._lives = 0
        self._begin()

    def start(self) -> None:
        """Let the world tick."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the world for good; pending calls fail."""
        self._stopping.set()
        self._calls.put((lambda: None, Future()))  # wakes it
        if self._thread.is_alive():
            self._thread.join()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the world has stopped, raising the error that stopped it, if any."""
        self._thread.join(timeout)
        if self.failure is not None:
            raise self.failure
        return not self._thread.is_alive()

    def call(self, function: Callable[[], T]) -> T:
        """Let the thread of the world call a function between two ticks; return its result."""
        if not self._thread.is_alive():
            raise StoppedError("the world has stopped")
        result: Future[T] = Future()
        self._calls.put((function, result))
        return result.result(CALL_TIMEOUT)

    # ---- the thread of the world -----------------------------------------------------------------

    def _begin(self) -> None:
        """Start an empty world without any actors."""
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
                    time.sleep(0)  # lets the threads of the service run
        except BaseException as error:
            self.failure = error
        finally:
            self._stopping.set()
            self._refuse_all()

    def _due(self) -> tuple[int, float]:
        """Return the ticks to run now and, if there are none, the seconds to wait for requests."""
        if not self.pace:
            return STRETCH, 0.0
        ahead = self._paced_tick + (time.monotonic() - self._paced_from) * self.pace
        due = int(ahead) - self.world.now
        if due > max(STRETCH, self.pace):  # more than a second behind: the delay is not made up
            self._paced_from, self._paced_tick = time.monotonic(), self.world.now + STRETCH
            due = STRETCH
        return min(max(due, 0), STRETCH), 0.0 if due > 0 else (1.0 + int(ahead) - ahead) / self.pace

    def _serve(self, wait: float) -> None:
        """Process the pending calls; wait for the first one so many seconds."""
        while True:
            try:
                function, result = (
                    self._calls.get(timeout=wait) if wait else self._calls.get_nowait()
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
                _, result = self._calls.get_nowait()
            except queue.Empty:
                return
            result.set_exception(StoppedError("the world has stopped"))

    def _after_ticks(self) -> None:
        now = self.world.now
        if now - self._snapshots[-1][0] >= RECENT // RECENT_PARTS:
            self._snapshots.append((now, self.world.state.total.sum(axis=0)))
        if now >= LONGEST_LIFE:
            log(INFO, "after %s ticks the world restarts, all nodes have to join again", now)
            self._begin()

    # ---- requests; called in the thread of the world ---------------------------------------------

    def join(self, agent: int) -> dict[str, Any]:
        """Begin a session of an agent; its previous session ends.

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
            raise SessionError("this world has restarted: join it again")
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
            If the node has to join again, or another one has joined instead.
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
        """Return the last decisions of an agent, all of the actor that this session deployed.

        Parameters
        ----------
        agent : int
        session : str
        ticks : int

        Returns
        -------
        dict
            ``left``: ticks that are missing since the actor was deployed, or since decisions were
            collected last. If 0, also the tasks of the world that ended since then: ``finished``
            and ``lost``, and the sum of the ``response`` of the former in ticks.
        Decisions or None
            None while ticks are missing.
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
        """Return the joint table and the record of each node."""
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
    """Return the tasks that ended, from the counters of a world."""
    lost = sum(int(total[column]) for column in LOSSES.values())
    return {"finished": int(total[FINISHED]), "lost": lost, "response": int(total[RESPONSE])}
