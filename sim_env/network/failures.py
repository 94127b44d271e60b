"""Nodes and links that fail and come back: by schedule, and at random."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from sim_env.errors import (
    Use,
    require_choice,
    require_effect,
    require_kind,
    require_number,
    shown,
)
from sim_env.network.topology import Topology

NEVER = 2**31 - 1
NODE, LINK = "node", "link"


@dataclass
class Outage:
    """A node or a link goes down, and may come back.

    Parameters
    ----------
    down : float
        Time at which it goes down, in seconds; from the start by default.
    up : float, optional
        Time at which it is up again, in seconds; None: it stays down.
    """

    down: float = 0.0
    up: float | None = None


@dataclass
class DynamicsSpec:
    """Scheduled and random failures of nodes and links.

    A node that is down makes no decisions, its client creates no tasks, and its neighbours may not
    send to it. The tasks that it holds are lost, and so is whatever reaches it meanwhile; it comes
    back with an empty queue. A link that is down takes no new task; messages in flight, and
    outputs on their way home, still arrive.

    Parameters
    ----------
    nodes : dict of str to list of Outage
        Scheduled outages by the name of the node, as in ``{rpi_3: [{down: 20, up: 60}]}``. A node
        that joins after a minute has ``{up: 60}``.
    links : dict of str to list of Outage
        The same for links; a key names both ends, as in ``rpi_3/nuc_0``.
    node_mttf, link_mttf : float
        Mean time to failure of each node and each link in seconds, exponentially distributed;
        0: no random failures.
    node_mttr, link_mttr : float
        Mean time to repair in seconds, exponentially distributed.
    """

    uses: ClassVar[dict[str, Use]] = {
        f"{each}_mttr": Use(f"{each}_mttf", lambda mttf: mttf > 0) for each in ("node", "link")
    }

    nodes: dict[str, list[Outage]] = field(default_factory=dict)
    links: dict[str, list[Outage]] = field(default_factory=dict)
    node_mttf: float = 0.0
    node_mttr: float = 60.0
    link_mttf: float = 0.0
    link_mttr: float = 60.0

    def __post_init__(self) -> None:
        for name in ("node_mttf", "link_mttf"):
            require_number(f"dynamics.{name}", getattr(self, name), at_least=0)
        for name in ("node_mttr", "link_mttr"):
            require_number(f"dynamics.{name}", getattr(self, name), above=0)
        _require_outages("dynamics.nodes", "rpi_3", self.nodes)
        _require_outages("dynamics.links", "rpi_3/nuc_0", self.links)
        require_effect("dynamics.", self, self.uses)


def _require_outages(key: str, example: str, outages: object) -> None:
    """Raise ``ValueError`` unless `outages` maps names to lists of possible outages."""
    require_kind(
        key, outages, Mapping, f"a mapping of names, such as {{{example}: [{{down: 20, up: 60}}]}}"
    )
    assert isinstance(outages, Mapping)
    for name, spans in outages.items():
        where = f"{key}.{name}"
        require_kind(f"key of {key}", name, str, f"a name, such as {example}")
        require_kind(where, spans, list, "a list of outages, such as [{down: 20, up: 60}]")
        for span in spans:
            require_kind(f"outage in {where}", span, Outage, "an Outage")
            require_number(f"{where}: down", span.down, at_least=0)
            if span.up is not None:
                require_number(f"{where}: up", span.up, above=span.down)


@dataclass(frozen=True, order=True)
class Change:
    """Node or link number `index` of a world goes down or comes back before tick `tick`."""

    tick: int
    world: int
    kind: str
    index: int
    up: bool


class Outages:
    """Failures and repairs of B worlds in the order of time.

    Parameters
    ----------
    spec : DynamicsSpec
    topology : Topology
    tick : float
        Seconds of a tick.
    seeds : sequence of int
        Random failures of a world depend on its seed only.

    Attributes
    ----------
    links : array of int, shape (E, 2)
        Ends of the links, the smaller one first, in ascending order.
    link_of : array of int, shape (L,)
        Link behind each slot of each node in turn; E for the slot of the node itself.
    """

    def __init__(
        self, spec: DynamicsSpec, topology: Topology, tick: float, seeds: Sequence[int]
    ) -> None:
        own = np.repeat(
            np.arange(topology.num_nodes), [1 + len(row) for row in topology.neighbours]
        )
        other = np.array([m for n, row in enumerate(topology.neighbours) for m in (n, *row)], int)
        key = np.minimum(own, other) * topology.num_nodes + np.maximum(own, other)
        keys = np.unique(key[own != other])
        self.links = np.stack(np.divmod(keys, topology.num_nodes), axis=1)
        self.link_of = np.where(own == other, len(keys), np.searchsorted(keys, key))
        self._spec, self._tick = spec, tick
        self._rngs = [np.random.default_rng([int(seed), 1]) for seed in seeds]
        self._down: Counter[tuple[int, str, int]] = Counter()
        self._heap: list[tuple[Change, bool]] = []
        scheduled = list(self._scheduled(topology))
        for world, rng in enumerate(self._rngs):
            for kind, index, span in scheduled:
                self._push(Change(self._at(span.down), world, kind, index, False), random=False)
                if span.up is not None:
                    self._push(Change(self._at(span.up), world, kind, index, True), random=False)
            for kind, count in ((NODE, topology.num_nodes), (LINK, len(self.links))):
                mean = self._mean(kind, up=True)
                if mean > 0:
                    for index, seconds in enumerate(rng.exponential(mean, count)):
                        change = Change(self._at(seconds), world, kind, index, False)
                        self._push(change, random=True)

    @property
    def next_tick(self) -> int:
        """Tick before which the next change happens; ``NEVER`` if there is none."""
        return self._heap[0][0].tick if self._heap else NEVER

    def due(self, now: int) -> Iterator[Change]:
        """Take the changes up to tick `now` off the schedule, in order.

        Overlapping outages of a node or link count as one, from the first `down` to the last `up`.
        """
        while self.next_tick <= now:
            change, random = heapq.heappop(self._heap)
            if random:
                mean = self._mean(change.kind, up=change.up)
                span = max(1, self._at(self._rngs[change.world].exponential(mean)))
                again = (change.tick + span, change.world, change.kind, change.index)
                self._push(Change(*again, not change.up), random=True)
            key = (change.world, change.kind, change.index)
            before = self._down[key]
            self._down[key] = before - 1 if change.up else before + 1
            if (before == 0) != (self._down[key] == 0):
                yield change

    def keep(self, worlds: np.ndarray) -> None:
        """Forget all but some worlds, ascending, which are numbered from 0 from now on."""
        number = {int(world): new for new, world in enumerate(worlds)}
        self._rngs = [self._rngs[world] for world in number]
        self._heap = [
            (replace(change, world=number[change.world]), random)
            for change, random in self._heap
            if change.world in number
        ]
        heapq.heapify(self._heap)
        self._down = Counter(
            {
                (number[world], kind, index): count
                for (world, kind, index), count in self._down.items()
                if world in number
            }
        )

    def snapshot(self) -> dict[str, Any]:
        """Return the changes to come and the random streams, as JSON can hold them."""
        return {
            "heap": [[astuple(change), random] for change, random in self._heap],
            "down": [[list(key), count] for key, count in self._down.items()],
            "rngs": [rng.bit_generator.state for rng in self._rngs],
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore what :meth:`snapshot` has returned."""
        self._heap = [(Change(*values), random) for values, random in snapshot["heap"]]
        self._down = Counter({tuple(key): count for key, count in snapshot["down"]})
        for rng, state in zip(self._rngs, snapshot["rngs"], strict=True):
            rng.bit_generator.state = state

    def _scheduled(self, topology: Topology) -> Iterator[tuple[str, int, Outage]]:
        """Yield kind, index and span of every scheduled outage."""
        numbers = {name: n for n, name in enumerate(topology.names)}
        for name, spans in self._spec.nodes.items():
            require_choice("dynamics.nodes: node", name, numbers)
            for span in spans:
                yield NODE, numbers[name], span
        links = {(int(a), int(b)): e for e, (a, b) in enumerate(self.links)}
        for name, spans in self._spec.links.items():
            pair = tuple(sorted(numbers.get(end.strip(), -1) for end in name.split("/")))
            if pair not in links:
                raise ValueError(
                    f"dynamics.links: link is {shown(name)}: must be two linked nodes of this "
                    f"network, as in {'/'.join(topology.names[n] for n in self.links[0])}"
                )
            for span in spans:
                yield LINK, links[pair], span

    def _mean(self, kind: str, up: bool) -> float:
        """Return the mean time in a state, in seconds."""
        return float(getattr(self._spec, f"{kind}_{'mttf' if up else 'mttr'}"))

    def _at(self, seconds: float) -> int:
        return min(round(seconds / self._tick), NEVER - 1)

    def _push(self, change: Change, *, random: bool) -> None:
        heapq.heappush(self._heap, (change, random))
