"""The recorder: decisions of all agents of a world, taken agent by agent."""

from collections.abc import Mapping, Sequence

import numpy as np

from fauno_flwr.learning.rollout import Rows, Weights, advance, make_rows, make_scratch
from fauno_flwr.learning.transitions import Decisions
from sim_env.world import World

CHUNK = 32  # ticks for which room is reserved at once
PER_SLOT = ("destination", "legal")  # columns with a row for each slot, not for each decision


class Recorder:
    """Record of the decisions of agents of B worlds, until each agent's are taken.

    Parameters
    ----------
    world : World
    agents : int
        A; agents from A on act, but are not recorded.
    keep : int
        Ticks after which a decision that has not been taken may be discarded.
    nodes : sequence of int, optional
        Nodes of the A agents; default: all that decide.

    Attributes
    ----------
    forgotten : array of int64, shape (A,)
        Number of discarded decisions of each agent.
    """

    def __init__(
        self, world: World, agents: int, keep: int, nodes: Sequence[int] | None = None
    ) -> None:
        self.world, self.agents, self.keep = world, agents, keep
        net, self._encoding = world.net, world.scenario.encoding
        deciding = np.flatnonzero(net.is_agent) if nodes is None else np.asarray(nodes)
        self._rows_per_tick = world.num_worlds * len(deciding)
        self._slots_per_tick = world.num_worlds * int(net.slots[deciding].sum())
        self._slots = int(net.slots.max())
        self._rows = make_rows(self._encoding, world.num_worlds, agents, 0, 0)
        self._start = np.zeros(agents, np.int64)
        self.forgotten = np.zeros(agents, np.int64)

    def roll(self, weights: Weights, ticks: int) -> None:
        """Advance the worlds by `ticks` under the actors."""
        scratch = make_scratch(self._encoding, self._slots, weights.bias.shape[1])
        while ticks > 0:
            some = min(ticks, CHUNK)
            self._reserve(some)
            advance(self.world, some, weights, scratch, self._rows)
            ticks -= some

    def take(self, agent: int, since: int = 0) -> Decisions:
        """Take the decisions of an agent since the last call; by world, then in order of time.

        Decisions before tick `since`, which may be at most ``keep`` ticks ago, are left out.
        """
        rows, start = self._rows, int(self._start[agent])
        end = int(rows.used[0])
        new = slice(start, end)
        mine = start + np.flatnonzero((rows.agent[new] == agent) & (rows.tick[new] >= since))
        mine = mine[np.argsort(rows.world[mine], kind="stable")]
        slots = rows.slots[mine]
        widest = int(slots.max(initial=1))
        destination = np.zeros((len(mine), widest, self._encoding.destinations), np.float32)
        mask = np.zeros((len(mine), widest), np.bool_)
        row = np.repeat(np.arange(len(mine)), slots)
        column = np.arange(len(row)) - np.repeat(np.cumsum(slots) - slots, slots)
        place = rows.first[mine][row] + column
        destination[row, column], mask[row, column] = rows.destination[place], rows.legal[place]
        world = rows.world[mine]
        taken = Decisions(
            rows.local[mine],
            destination,
            mask,
            rows.action[mine].astype(np.int64),
            rows.reward[mine].astype(np.float32),
            np.append(np.diff(world) != 0, True)[: len(mine)],
        )
        self.drop(agent)
        return taken

    def drop(self, agent: int) -> None:
        """Discard the decisions of an agent until now."""
        self._start[agent] = self._rows.used[0]
        self._rows.newest[:, agent] = -1
        self._forget()

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return copies of the recorded decisions and of what else the recorder remembers."""
        rows, slots = (int(count) for count in self._rows.used)
        columns = {
            name: (array if name in ("newest", "used") else array[:rows]).copy()
            for name, array in self._rows._asdict().items()
            if name not in PER_SLOT
        }
        columns |= {name: getattr(self._rows, name)[:slots].copy() for name in PER_SLOT}
        return {**columns, "start": self._start.copy(), "forgotten": self.forgotten.copy()}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`snapshot` has returned."""
        columns = {name: array.copy() for name, array in snapshot.items()}
        self._start, self.forgotten = columns.pop("start"), columns.pop("forgotten")
        self._rows = Rows(**columns)

    def _forget_old(self) -> None:
        """Discard what is older than ``keep`` ticks: some agents' decisions may never be taken."""
        rows = self._rows
        ticks = rows.tick[: rows.used[0]]
        kept, first = int(np.searchsorted(ticks, self.world.now - self.keep)), self._start.min()
        if first < kept:
            agent = rows.agent[first:kept]
            missed = agent[np.arange(first, kept) >= self._start[agent]]
            self.forgotten += np.bincount(missed, minlength=self.agents)
        self._start = np.maximum(self._start, kept)
        rows.newest[rows.newest < self._start] = -1
        self._forget()

    def _forget(self) -> None:
        """Move the decisions that remain to the front once they are the smaller part."""
        rows, first = self._rows, int(self._start.min())
        end, places = int(rows.used[0]), int(rows.used[1])
        if first == 0 or first < end / 2:
            return
        place = int(rows.first[first]) if first < end else places
        for column in (rows.tick, rows.world, rows.agent, rows.slots, rows.first, rows.action):
            column[: end - first] = column[first:end].copy()
        rows.reward[: end - first] = rows.reward[first:end].copy()
        rows.local[: end - first] = rows.local[first:end].copy()
        rows.destination[: places - place] = rows.destination[place:places].copy()
        rows.legal[: places - place] = rows.legal[place:places].copy()
        rows.first[: end - first] -= place
        rows.newest[rows.newest >= 0] -= first
        rows.used[:] = end - first, places - place
        self._start -= first

    def _reserve(self, ticks: int) -> None:
        """Reserve room for the decisions of `ticks`."""
        self._forget_old()
        old = self._rows
        rows = int(old.used[0]) + ticks * self._rows_per_tick
        slots = int(old.used[1]) + ticks * self._slots_per_tick
        if rows <= len(old.world) and slots <= len(old.legal):
            return
        new = make_rows(
            self._encoding,
            self.world.num_worlds,
            self.agents,
            max(2 * len(old.world), rows),
            max(2 * len(old.legal), slots),
        )
        for name in ("tick", "world", "agent", "slots", "first", "action", "reward", "local"):
            getattr(new, name)[: old.used[0]] = getattr(old, name)[: old.used[0]]
        for name in ("destination", "legal"):
            getattr(new, name)[: old.used[1]] = getattr(old, name)[: old.used[1]]
        self._rows = new._replace(newest=old.newest, used=old.used)
