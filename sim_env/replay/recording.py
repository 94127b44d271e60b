"""One world under one policy, recorded task by task."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sim_env.engine.observation import Observation
from sim_env.engine.state import BORN, ENDED, FINISHED, LOSSES, QUEUED, SENT_ON, SERVED
from sim_env.errors import require_seeds, require_whole
from sim_env.evaluation import LONGEST_DRAIN
from sim_env.policies.heuristics import Policy
from sim_env.scenario import Scenario
from sim_env.world import TRACE, World

LONGEST = 6000  # ticks, ten minutes of ticks of 0.1 s
BATCH = 2000  # decisions whose scores are computed at once
DRAIN = 50  # ticks between two checks for the end, as in an evaluation
EVENTS_OF_TASK = 64  # more than a task ever has
# Scores of the actions of R decisions: probabilities (R, K), and values (R, K) or None.
Scores = tuple[np.ndarray, np.ndarray | None]


class Decisions(NamedTuple):
    """D decisions with the scores of their M legal and illegal slots, one after another."""

    tick: np.ndarray  # int32 (D,)
    node: np.ndarray  # int32 (D,)
    task: np.ndarray  # int32 (D,): serial number
    first: np.ndarray  # int32 (D + 1,): of the slots of each among the M
    probability: np.ndarray  # float32 (M,)
    value: np.ndarray  # float32 (M,), or (0,) without values


@dataclass(frozen=True)
class Recording:
    """One world under one policy.

    Parameters
    ----------
    policy : str
        Name.
    seed : int
        Of the world.
    window : tuple of int
        First tick of the measured window, and the tick after it.
    ticks : int
        Length.
    complete : bool
        Whether all tasks born in the window have ended.
    events : array of int32, shape (E, 5)
        Tick, event, serial number of the task, node and value, in the order of ticks; see
        :data:`sim_env.engine.state.BORN` and those after it.
    nodes : array of int32, shape (C, 3)
        Changes of nodes: tick, node, 1 for a repair and 0 for a failure.
    links : array of int32, shape (C, 4)
        The same of links between two nodes.
    decisions : Decisions, optional
    """

    policy: str
    seed: int
    window: tuple[int, int]
    ticks: int
    complete: bool
    events: np.ndarray
    nodes: np.ndarray
    links: np.ndarray
    decisions: Decisions | None = None

    def of(self, event: int) -> np.ndarray:
        """Return the rows of one kind of event."""
        return self.events[self.events[:, 1] == event]

    def cohort(self) -> dict[str, int]:
        """Count the tasks born in the window: created, finished, and lost by kind."""
        born = self.of(BORN)
        inside = born[(born[:, 0] >= self.window[0]) & (born[:, 0] < self.window[1]), 2]
        ended = self.of(ENDED)
        outcome = ended[np.isin(ended[:, 2], inside), 4]
        kinds = {"finished": FINISHED, **LOSSES}
        counts = {name: int((outcome == column).sum()) for name, column in kinds.items()}
        return {"created": len(inside), **counts}

    def flights(self) -> np.ndarray:
        """Return the tasks that were sent on: tick, tick of arrival, sender and destination.

        Returns
        -------
        array of int32, shape (F, 4)
        """
        rows = self.events[np.argsort(self.events[:, 2], kind="stable")]  # task by task
        sent = np.flatnonzero(rows[:, 1] == SENT_ON)
        # The row before is the same task's: it was queued at the sender, or born there.
        return np.stack([rows[sent, 0], rows[sent, 4], rows[sent - 1, 3], rows[sent, 3]], axis=1)

    def counts(self, tick: int) -> dict[str, int]:
        """Count the tasks that were born, have finished and were lost up to the time `tick`."""
        so_far = self.events[self.events[:, 0] <= tick]
        outcome = so_far[so_far[:, 1] == ENDED, 4]
        finished = int((outcome == FINISHED).sum())
        born = int((so_far[:, 1] == BORN).sum())
        return {"born": born, "finished": finished, "lost": len(outcome) - finished}

    def lengths(self, num_nodes: int) -> np.ndarray:
        """Compute the tasks at each node after each tick, shape (ticks, N).

        The output of a task that was served is not at a node.
        """
        rows = self.events[np.argsort(self.events[:, 2], kind="stable")]  # task by task
        rows = rows[np.isin(rows[:, 1], (QUEUED, SENT_ON, SERVED, ENDED))]
        entry = np.flatnonzero(rows[:, 1] == QUEUED)
        leaves = entry[entry + 1 < len(rows)] + 1
        leaves = leaves[rows[leaves, 2] == rows[leaves - 1, 2]]
        change = np.zeros((self.ticks, num_nodes), np.int64)
        np.add.at(change, (rows[entry, 0], rows[entry, 3]), 1)
        # A task is lost at the end of a tick, which is the time of the next one.
        left = rows[leaves, 0] - (rows[leaves, 1] == ENDED)
        np.add.at(change, (left, rows[leaves - 1, 3]), -1)
        return change.cumsum(axis=0)


def record(
    scenario: Scenario,
    policy: Policy,
    seed: int,
    *,
    name: str,
    warmup: int = 600,
    window: int = 2000,
    longest: int = LONGEST,
    scores: Callable[[Observation], Scores] | None = None,
) -> Recording:
    """Record a policy in one world, until the tasks born in the window have ended.

    The world is that of :func:`sim_env.evaluation.run_policy` with the same seed, to the task, for
    policies whose random numbers come from the world.

    Parameters
    ----------
    scenario : Scenario
    policy : Policy
        Decides for all agents.
    seed : int
    name : str
        Of the policy.
    warmup, window : int, default 600 and 2000
        Ticks before the window, and of it.
    longest : int, default 6000
        Most ticks.
    scores : callable, optional
        Computes the probabilities, and perhaps the values, of the actions of an observation that
        the policy would choose from.

    Raises
    ------
    ValueError
        For impossible ticks or seeds.
    """
    require_whole("warmup", warmup, at_least=0)
    require_whole("window", window, at_least=1)
    world = World(scenario, [seed], trace=True)
    world.measure(warmup, warmup + window)
    rng = np.random.default_rng(require_seeds([seed]))
    watch, log = _Changes(world), _DecisionLog(world, scores)
    events = []
    end = min(longest, warmup + window)
    # No more ticks at once than the world has room for events.
    span = int(min(DRAIN, max(1.0, TRACE / (EVENTS_OF_TASK * max(scenario.net.births, 1e-9)))))
    while world.now < end:
        if scores is not None:
            log.add()
            span = 1
        world.run(policy, min(span, end - world.now, world.next_change - world.now), rng)
        events.append(world.events())
        watch.see()
        going_on = world.now == end and world.metrics().inside.any()
        if going_on and end < min(longest, warmup + window + LONGEST_DRAIN):
            end = min(longest, end + DRAIN)
    rows = np.concatenate(events)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]  # results at home are those of the next tick
    return Recording(
        policy=name,
        seed=seed,
        window=(warmup, warmup + window),
        ticks=world.now,
        complete=world.now >= warmup + window and not world.metrics().inside.any(),
        events=rows,
        nodes=np.array(watch.nodes, np.int32).reshape(-1, 3),
        links=np.array(watch.links, np.int32).reshape(-1, 4),
        decisions=log.decisions() if scores is not None else None,
    )


class _Changes:
    """Failures and repairs of the first of some worlds, tick by tick."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: list[tuple[int, ...]] = []
        self.links: list[tuple[int, ...]] = []
        own = np.repeat(np.arange(world.num_nodes), world.net.slots)
        self._ends = np.stack([own, world.net.neighbour], axis=1)
        self._once = np.flatnonzero(own < world.net.neighbour)
        self._up = np.ones(world.num_nodes, np.bool_)
        self._open = np.ones(len(self._once), np.bool_)
        self.see()

    def see(self) -> None:
        """Compare with the last time."""
        st, now = self.world.state, self.world.now
        for node in np.flatnonzero(st.up[0] != self._up):
            self.nodes.append((now, int(node), int(st.up[0, node])))
        self._up = st.up[0].copy()
        a, b = self._ends[self._once].T
        # A slot is closed by its link or by the node behind it; the latter is a change of a node.
        is_open = st.open[0, self._once] | ~self._up[b]
        for link in np.flatnonzero(is_open != self._open):
            self.links.append((now, int(a[link]), int(b[link]), int(is_open[link])))
        self._open = is_open


class _DecisionLog:
    """The decisions in the first of some worlds, with their scores, computed many at once."""

    def __init__(self, world: World, scores: Callable[[Observation], Scores] | None) -> None:
        self.world, self._scores = world, scores
        self._rows: list[tuple[np.ndarray, ...]] = []
        self._seen: list[Observation] = []
        self._unscored = 0
        self._probability: list[np.ndarray] = []
        self._value: list[np.ndarray] = []

    def add(self) -> None:
        """Add the decisions of the next tick."""
        seen = self.world.observe()
        if not len(seen):
            return
        seen = seen[np.arange(len(seen))]  # a copy: the next one overwrites it
        st, nodes = self.world.state, seen.node
        task = np.where(st.pending_head[0] >= 0, st.pending_head[0], st.intake_head[0])[nodes]
        tick = np.full(len(nodes), self.world.now, np.int32)
        slots = self.world.net.slots[nodes]
        self._rows.append((tick, nodes, st.serial[0, task].astype(np.int32), slots))
        self._seen.append(seen)
        self._unscored += len(seen)
        if self._unscored >= BATCH:
            self._score()

    def _score(self) -> None:
        """Compute the scores of what was seen since the last time."""
        assert self._scores is not None
        columns = ("world", "node", "local", "destination", "mask", "reward")
        joined = {c: np.concatenate([getattr(seen, c) for seen in self._seen]) for c in columns}
        seen = Observation(**joined, encoding=self._seen[0].encoding)
        self._seen, self._unscored = [], 0
        own = np.arange(seen.mask.shape[1]) < self.world.net.slots[seen.node][:, None]
        probability, value = self._scores(seen)
        self._probability.append(probability[own].astype(np.float32))
        if value is not None:
            self._value.append(value[own].astype(np.float32))

    def decisions(self) -> Decisions:
        """Return all of them."""
        nothing = np.zeros(0, np.float32)
        if not self._rows:
            none = np.zeros(0, np.int32)
            return Decisions(none, none, none, np.zeros(1, np.int32), nothing, nothing)
        if self._seen:
            self._score()
        tick, node, task, slots = map(np.concatenate, zip(*self._rows, strict=True))
        first = np.append(0, slots.cumsum()).astype(np.int32)
        value = np.concatenate(self._value) if self._value else nothing
        return Decisions(tick, node, task, first, np.concatenate(self._probability), value)
