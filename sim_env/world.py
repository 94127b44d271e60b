"""B parallel worlds of one scenario, and their metrics."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sim_env.audit import audit
from sim_env.engine import events, kernel
from sim_env.engine.compilation import Loop
from sim_env.engine.features import NUM_DESTINATION
from sim_env.engine.observation import Observation, empty_observation, observe
from sim_env.engine.reward import OUTCOME, SPARSE, collect
from sim_env.engine.state import (
    CREATED,
    EVENT_COLUMNS,
    FINISHED,
    LOSSES,
    RESPONSE,
    State,
    grow,
    new_state,
)
from sim_env.errors import require_kind, require_seeds
from sim_env.memory import TASK_BYTES, require_memory, require_worlds
from sim_env.network.failures import LINK
from sim_env.policies.compiled import HEURISTICS, code_of, own_loop
from sim_env.policies.heuristics import Policy, choose_actions
from sim_env.scenario import Scenario, as_scenario
from sim_env.workload.schedule import multipliers

FIRST_POOL = 512
TRACE = 2**17  # events of tasks that are kept until they are read
AHEAD = 2**16  # ticks whose rate multipliers are computed at once
TRACED = ("trace", "traced")  # of a state, what its future does not depend on
SLOT_BYTES = 8 * NUM_DESTINATION + 9  # of an observation: raw columns, reward and mask


@dataclass(frozen=True)
class Metrics:
    """Counts over the cohort (tasks born in the measured window) of each of B worlds.

    A task is lost by *overflow* (the queue was full), by its *deadline* (cancelled while waiting,
    travelling or in service), at the *client* (its output came home too late) or by the *failure*
    of a node (the one that held it, its destination, or its origin).

    Parameters
    ----------
    created, finished, overflow, deadline, client, failure, inside : array of int64, shape (B,)
        ``created = finished + overflow + deadline + client + failure + inside``.
    response_sum : array of int64, shape (B,)
        Ticks from birth to the output's return, over finished tasks.
    histogram : array of int64, shape (B, 4096)
        Responses by tick.
    born_at, finished_at, served_by : array of int64, shape (B, N)
        By origin, by origin, and by the node that served.
    tick : float
        Seconds of a tick.
    """

    created: np.ndarray
    finished: np.ndarray
    overflow: np.ndarray
    deadline: np.ndarray
    client: np.ndarray
    failure: np.ndarray
    inside: np.ndarray
    response_sum: np.ndarray
    histogram: np.ndarray
    born_at: np.ndarray
    finished_at: np.ndarray
    served_by: np.ndarray
    tick: float

    @property
    def finished_ratio(self) -> np.ndarray:
        """Finished / created of each world; NaN where nothing was born."""
        return np.divide(
            self.finished, self.created, out=_nan(self.created), where=self.created > 0
        )

    @property
    def mean_response(self) -> np.ndarray:
        """Mean response of finished tasks of each world, in seconds; NaN where none finished."""
        total = self.response_sum * self.tick
        return np.divide(total, self.finished, out=_nan(total), where=self.finished > 0)

    def response_quantile(self, q: float) -> float:
        """Compute a quantile of the response of the finished tasks of all worlds, in seconds."""
        counts = self.histogram.sum(axis=0)
        if counts.sum() == 0:
            return float("nan")
        return float(np.searchsorted(counts.cumsum(), q * counts.sum()) * self.tick)

    @property
    def fairness(self) -> float:
        """Jain's index of the finished ratio over the origins, all worlds together."""
        born = self.born_at.sum(axis=0)
        ratio = self.finished_at.sum(axis=0)[born > 0] / born[born > 0]
        return float(ratio.sum() ** 2 / (len(ratio) * (ratio**2).sum())) if ratio.any() else 0.0


def _nan(like: np.ndarray) -> np.ndarray:
    return np.full(like.shape, np.nan)


def require_room(scenario: Scenario, worlds: int) -> None:
    """Raise ``ValueError`` if so many parallel worlds would not fit into the free memory."""
    net = scenario.net
    rows, streams = len(net.neighbour), int(net.streams[-1])
    require_worlds(worlds, len(net.speed), rows, streams, net.information_delay, FIRST_POOL)


@runtime_checkable
class Driver(Protocol):
    """A policy that advances a world itself, by :meth:`World.drive`."""

    def drive(self, world: "World", ticks: int) -> None:
        """Advance a world by `ticks`."""


class World:
    """B worlds that tick together.

    Parameters
    ----------
    scenario : Scenario or str
        Compiled scenario or the name of one.
    seeds : sequence of int
        One per world; the arrivals of a world depend on its seed and nothing else.
    trace : bool, default False
        Record the events of the tasks of the first world, for :meth:`events`.
    """

    def __init__(
        self, scenario: Scenario | str, seeds: Sequence[int], *, trace: bool = False
    ) -> None:
        self.scenario = as_scenario(scenario)
        self.net = self.scenario.net
        self._trace = trace
        self.reset(seeds)

    @property
    def num_worlds(self) -> int:
        """Number of parallel worlds, B."""
        return len(self.state.service)

    @property
    def num_nodes(self) -> int:
        """Number of nodes, N."""
        return len(self.net.speed)

    def reset(self, seeds: Sequence[int]) -> None:
        """Empty all worlds and restart their arrivals."""
        require_kind("seeds", seeds, (Sequence, np.ndarray), "a sequence of whole numbers")
        require_room(self.scenario, len(seeds))
        self.now = 0
        self._factors, self._factors_from = np.ones(0), 0
        first = self._factors_of(0, 1)[0]
        self.state = new_state(self.net, require_seeds(seeds), FIRST_POOL, first)
        if self._trace:
            self.state = self.state._replace(
                trace=np.zeros((1, TRACE, EVENT_COLUMNS), np.int32), traced=np.zeros(1, np.int64)
            )
        self._outages = self.scenario.outages(seeds)
        self._link_up = np.ones((len(seeds), len(self._outages.links) + 1), np.bool_)
        self._change()
        while self.net.events and not events.begin(self.net, self.state, first):
            self._grow()
        self._actions = np.zeros((self.num_worlds, self.num_nodes), np.int32)
        self._rows: Observation | None = None
        self._filled = np.zeros(0, np.int32)
        self._one = self._room_for(1)

    def keep(self, worlds: np.ndarray) -> None:
        """Go on with some of the worlds only.

        Parameters
        ----------
        worlds : array of int
            Which, ascending; numbered from 0 from now on. No world is traced then.
        """
        fields, whole = self.state._asdict(), {"window": self.state.window}
        nothing = {name: fields[name][:0] for name in TRACED}
        each = {n: array[worlds] for n, array in fields.items() if n not in whole | nothing}
        self.state = State(**each, **whole, **nothing)
        self._link_up = self._link_up[worlds]
        self._outages.keep(worlds)
        self._actions, self._rows = self._actions[worlds], None

    def measure(self, start: int, stop: int, exchange: bool = False) -> None:
        """Measure the tasks born in the ticks ``start <= tick < stop``; call this before `start`.

        With `exchange`, ``state.exchange`` counts from now on which node served the tasks of which
        origin: a number for each pair of nodes.
        """
        self.state.window[:] = start, stop
        for name in ("cohort", "histogram", "born_at", "finished_at", "served_by"):
            getattr(self.state, name)[:] = 0
        pairs = (self.num_worlds, *[self.num_nodes if exchange else 0] * 2)
        self.state = self.state._replace(exchange=np.zeros(pairs, np.int64))

    @property
    def next_change(self) -> int:
        """Tick of the next failure or repair of a node or link; later than any if there is none."""
        return self._outages.next_tick

    def events(self) -> np.ndarray:
        """Return the events of the first world since the last call, and forget them.

        Of a world that was made with `trace`; it keeps 131,072 events.

        Returns
        -------
        array of int32, shape (E, 5)
            Tick, event, serial number of the task, node and value of each, in order: see
            :data:`sim_env.engine.state.BORN` and those after it.
        """
        recorded = self.state.trace[0, : self.state.traced[0]].copy()
        self.state.traced[0] = 0
        return recorded

    def tasks_on_links(self) -> np.ndarray:
        """Count the tasks on their way to a neighbour: by link, mean of the worlds, shape (L,)."""
        counts = np.zeros(len(self.net.neighbour))
        kernel.count_on_links(self.net, self.state, counts)
        return counts / self.num_worlds

    def step(self, actions: np.ndarray) -> None:
        """Advance by one tick.

        Parameters
        ----------
        actions : array of int32, shape (B, N)
            Slot for the first undecided task of each agent: 0 keeps it, k > 0 sends it to the
            k-th neighbour. An illegal action keeps the task and is counted.
        """
        advance = events.event_tick if self.net.events else kernel.tick
        factors = self._factors_of(self.now, 2)
        while not advance(self.net, self.state, self.now, actions, *factors):
            self._grow()
        self.now += 1
        self._change()

    def run(self, policy: Policy, ticks: int, rng: np.random.Generator) -> None:
        """Advance under a policy that decides for all agents.

        The built-in heuristics, policies with a compiled twin and those that are a :class:`Driver`
        run compiled, with their own random streams, which depend only on the seed of a world; any
        other policy is called in every tick with a decision.

        Parameters
        ----------
        policy : Policy
        ticks : int
        rng : numpy.random.Generator
            Passed to the policy.

        Raises
        ------
        ValueError
            If the policy does not return one whole number for each decision.
        """
        end, row = self.now + ticks, self._one
        scratch = row.local[0], row.destination[0], row.mask[0]
        code, twin = code_of(policy), getattr(policy, "compiled", None)
        if code is not None:
            self.drive(HEURISTICS, ticks, code, *scratch)
        elif twin is not None:
            self.drive(own_loop(twin), ticks, *scratch)
        elif isinstance(policy, Driver):
            policy.drive(self, ticks)
        while self.now < end:
            seen = self.observe()
            self._actions[:] = 0
            if len(seen):
                self._actions[seen.world, seen.node] = choose_actions(policy, seen, rng)
            self.step(self._actions)

    def drive(self, loop: Loop, ticks: int, *arguments: Any) -> None:
        """Advance by a compiled loop.

        Parameters
        ----------
        loop : Loop
            Called as ``loop(net, state, now, factors, actions, *arguments)`` for one tick less
            than there are `factors` (multipliers of the arrival rates); returns the number of ticks
            until there was too little room for tasks.
        ticks : int
        *arguments
            Passed to the loop. A function is called with the state before, and again when there is
            room for more tasks: scratch space that grows with it.
        """
        end = self.now + ticks
        advance = loop.events if self.net.events else loop.plain
        while self.now < end:
            until = min(end, self._outages.next_tick)
            factors = self._factors_of(self.now, until - self.now + 1)
            passed = (each(self.state) if callable(each) else each for each in arguments)
            self.now += advance(self.net, self.state, self.now, factors, self._actions, *passed)
            if self.now < until:
                self._grow()
            self._change()

    def _grow(self) -> None:
        tasks = 2 * self.state.kind.shape[1]
        require_memory(
            f"room for {tasks:,} tasks in each of {self.num_worlds:,} worlds",
            TASK_BYTES * tasks * self.num_worlds,
        )
        self.state = grow(self.state)

    def _change(self) -> None:
        """Apply the failures and repairs of nodes and links before this tick."""
        st, outages = self.state, self._outages
        for change in outages.due(self.now):
            b = change.world
            if change.kind == LINK:
                self._link_up[b, change.index] = change.up
            else:
                st.up[b, change.index] = change.up
                if not change.up:
                    kernel.fail(st, b, change.index, self.now)
            st.open[b] = st.up[b, self.net.neighbour] & self._link_up[b, outages.link_of]

    def _factors_of(self, tick: int, count: int) -> np.ndarray:
        """Return the multipliers of the arrival rates in `count` ticks from `tick` on."""
        first = tick - self._factors_from
        if not 0 <= first <= len(self._factors) - count:
            spec = self.scenario.spec
            ahead = max(AHEAD, count)
            self._factors = multipliers(spec.workload.schedule, ahead, spec.physics.tick, tick)
            self._factors_from, first = tick, 0
        return self._factors[first : first + count]

    def _room_for(self, rows: int) -> Observation:
        return empty_observation(rows, int(self.net.slots.max()), self.scenario.encoding)

    def observe(self) -> Observation:
        """Observe the agents that have an undecided task.

        Returns
        -------
        Observation
            A row per decision, ordered by world and node; the next call overwrites its arrays.

        Raises
        ------
        ValueError
            If a reward of your own does not return a finite number for every action.
        """
        rows = self._rows
        if rows is None:
            count, slots = self.num_worlds * int(self.net.is_agent.sum()), int(self.net.slots.max())
            require_memory(
                f"the observation of {count:,} agents of up to {slots:,} slots each",
                count * slots * SLOT_BYTES,
            )
            rows = self._rows = self._room_for(count)
            self._filled = np.zeros(count, np.int32)
        count = observe(
            self.net,
            self.state,
            self.now,
            rows.world,
            rows.node,
            rows.local,
            rows.destination,
            rows.mask,
            rows.reward,
            self._filled,
        )
        seen = rows[:count]
        if count and self.scenario.decision_reward is not None:
            seen.reward[:] = self.scenario.decision_reward(seen)
        return seen

    def collect(self) -> np.ndarray:
        """Return what each node earned by the ends of tasks since the last call, shape (B, N).

        See :func:`sim_env.engine.reward.collect`; zeros under a reward that decisions earn.
        """
        if self.net.reward.kind in (SPARSE, OUTCOME):
            return collect(self.net.reward, self.state.ends)
        return np.zeros((self.num_worlds, self.num_nodes))

    def metrics(self) -> Metrics:
        """Return the counts of the measured cohort so far."""
        st, cohort = self.state, self.state.cohort
        lost = {name: cohort[:, column].copy() for name, column in LOSSES.items()}
        created, finished = cohort[:, CREATED].copy(), cohort[:, FINISHED].copy()
        return Metrics(
            created=created,
            finished=finished,
            inside=created - finished - sum(lost.values()),
            **lost,
            response_sum=cohort[:, RESPONSE].copy(),
            histogram=st.histogram.copy(),
            born_at=st.born_at.copy(),
            finished_at=st.finished_at.copy(),
            served_by=st.served_by.copy(),
            tick=self.scenario.spec.physics.tick,
        )

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return copies of all that the future of the worlds depends on, by name.

        A world of the same scenario with as many worlds goes on from there after :meth:`restore`,
        to the byte.
        """
        outages = json.dumps(self._outages.snapshot()).encode()
        return {
            "now": np.array(self.now),
            "link_up": self._link_up.copy(),
            "outages": np.frombuffer(outages, np.uint8),
            **{
                f"state.{name}": array.copy()
                for name, array in self.state._asdict().items()
                if name not in TRACED
            },
        }

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Continue from a snapshot.

        Parameters
        ----------
        snapshot : mapping of str to array
            Returned by :meth:`snapshot` of a world of the same scenario.

        Raises
        ------
        ValueError
            If it is of other numbers of worlds, nodes or links.
        """
        held, own = snapshot["link_up"].shape, self._link_up.shape
        nodes = snapshot["state.up"].shape[1]
        if (held, nodes) != (own, self.num_nodes):
            raise ValueError(
                f"the snapshot has {held[0]} worlds, {nodes} nodes and {held[1] - 1} links: must "
                f"have {own[0]}, {self.num_nodes} and {own[1] - 1}, as this world"
            )
        self.now = int(snapshot["now"])
        fields = [name for name in State._fields if name not in TRACED]
        self.state = self.state._replace(**{n: snapshot[f"state.{n}"].copy() for n in fields})
        self._link_up = snapshot["link_up"].copy()
        self._outages.restore(json.loads(snapshot["outages"].tobytes()))

    def audit(self) -> dict[str, bool]:
        """Check the invariants of a correct world; see :func:`sim_env.audit.audit`."""
        return audit(self.net, self.state, self.now)
