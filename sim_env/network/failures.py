"""Nodes and links that fail and return: by schedule, and at random."""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sim_env.errors import require_choice, require_number
from sim_env.network.topology import Topology

NEVER = 2**31 - 1
NODE, LINK = "node", "link"


@dataclass
class DynamicsSpec:
    """What fails, and when.

    A node that is down decides nothing, its client makes no tasks, and its neighbours may not
    send to it. The tasks that it holds are lost, and so is what reaches it meanwhile; it returns
    with an empty queue. A link that is down takes no new task; what travels, and outputs on
    their way home, still arrive.

    Parameters
    ----------
    nodes : str
        Outages of nodes by schedule, as in ``rpi_3 20-60,nuc_0 100-``: a name, the second in
        which it goes down and the one in which it is up again, if ever. A node that joins late is
        ``rpi_3 0-60``.
    links : str
        The same for links, as in ``rpi_3/nuc_0 20-60``.
    node_mttf, link_mttf : float
        Mean time to failure of each node and each link in seconds, exponentially distributed;
        0: none fails at random.
    node_mttr, link_mttr : float
        Mean time to repair in seconds, exponentially distributed.
    """

    nodes: str = ""
    links: str = ""
    node_mttf: float = 0.0
    node_mttr: float = 60.0
    link_mttf: float = 0.0
    link_mttr: float = 60.0

    def __post_init__(self) -> None:
        for name in ("node_mttf", "link_mttf"):
            require_number(f"dynamics.{name}", getattr(self, name), at_least=0)
        for name in ("node_mttr", "link_mttr"):
            require_number(f"dynamics.{name}", getattr(self, name), above=0)
        parse_outages("dynamics.nodes", self.nodes)
        parse_outages("dynamics.links", self.links)

    @property
    def still(self) -> bool:
        """Whether nothing ever fails."""
        return not (self.nodes or self.links or self.node_mttf or self.link_mttf)


def parse_outages(key: str, text: str) -> list[tuple[str, float, float]]:
    """Names, first seconds and last ones of ``name start-stop,name start-,...``.

    Raises
    ------
    ValueError
        For a part of another form, or an outage that ends before it begins.
    """
    outages = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, span = part.rpartition(" ")
        start, dash, stop = span.partition("-")
        try:
            begin, end = float(start), float(stop) if stop else np.inf
        except ValueError:
            dash = ""
        if not name.strip() or not dash or not 0 <= begin < end:
            raise ValueError(
                f"{key} is {text!r}: must be outages 'name start-stop' in seconds with commas "
                f"between them, such as rpi_3 20-60 (not {part!r})"
            )
        outages.append((name.strip(), begin, end))
    return outages


@dataclass(frozen=True, order=True)
class Change:
    """Node or link number `index` of a world goes down or comes back before tick `tick`."""

    tick: int
    world: int
    kind: str
    index: int
    up: bool


class Outages:
    """The changes of B worlds in the order of time.

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
        # The last entry tells a change of the schedule (False) from one at random.
        self._heap: list[tuple[Change, bool]] = []
        scheduled = list(self._scheduled(topology))
        for world, rng in enumerate(self._rngs):
            for kind, (index, start, stop) in scheduled:
                self._push(Change(self._at(start), world, kind, index, False), False)
                if np.isfinite(stop):
                    self._push(Change(self._at(stop), world, kind, index, True), False)
            for kind, count in ((NODE, topology.num_nodes), (LINK, len(self.links))):
                mean = self._mean(kind, up=True)
                if mean > 0:
                    for index, span in enumerate(rng.exponential(mean, count)):
                        self._push(Change(self._at(span), world, kind, index, False), True)

    @property
    def next_tick(self) -> int:
        """Tick before which the next change happens; a very large number if there is none."""
        return self._heap[0][0].tick if self._heap else NEVER

    def due(self, now: int) -> Iterator[Change]:
        """Take the changes up to tick `now`; of overlapping outages, the outermost ends count."""
        while self.next_tick <= now:
            change, random = heapq.heappop(self._heap)
            if random:
                mean = self._mean(change.kind, up=change.up)
                span = max(1, self._at(self._rngs[change.world].exponential(mean)))
                again = (change.tick + span, change.world, change.kind, change.index)
                self._push(Change(*again, not change.up), True)
            key = (change.world, change.kind, change.index)
            before = self._down[key]
            self._down[key] = before - 1 if change.up else before + 1
            if (before == 0) != (self._down[key] == 0):
                yield change

    def _scheduled(self, topology: Topology) -> Iterator[tuple[str, tuple[int, float, float]]]:
        places = {name: n for n, name in enumerate(topology.names)}
        for name, start, stop in parse_outages("dynamics.nodes", self._spec.nodes):
            require_choice("dynamics.nodes: node", name, places)
            yield NODE, (places[name], start, stop)
        numbers = {(int(a), int(b)): e for e, (a, b) in enumerate(self.links)}
        for name, start, stop in parse_outages("dynamics.links", self._spec.links):
            ends = name.split("/")
            pair = sorted(places.get(end.strip(), -1) for end in ends)
            if len(ends) != 2 or tuple(pair) not in numbers:
                raise ValueError(
                    f"dynamics.links: {name!r} must be two linked nodes of this network, as in "
                    f"{'/'.join(topology.names[n] for n in self.links[0])}"
                )
            yield LINK, (numbers[pair[0], pair[1]], start, stop)

    def _mean(self, kind: str, up: bool) -> float:
        """Mean seconds in a state."""
        return float(getattr(self._spec, f"{kind}_{'mttf' if up else 'mttr'}"))

    def _at(self, seconds: float) -> int:
        return min(round(seconds / self._tick), NEVER - 1)

    def _push(self, change: Change, random: bool) -> None:
        heapq.heappush(self._heap, (change, random))
