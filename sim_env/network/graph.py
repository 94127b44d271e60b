"""A network as data: nodes with a role, a speed, a capacity and a place; links between them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim_env.errors import require_kind, require_number, shown
from sim_env.memory import require_memory

if TYPE_CHECKING:
    import networkx as nx

# networkx is imported only where it is used: a Flower client is a new process for every message.
GIB = 2**30
ROLES = ("rpi", "tx2", "nuc", "server")
SOURCE_ROLE = "rpi"
PASSIVE_ROLE = "tx2"  # serves tasks, but makes no decisions
LARGEST_CAPACITY = 2**31 - 1
LINK_FIELDS = ("link_rate", "link_latency")

# Bytes at the peak of building and compiling a network, measured; a link is one of two directions.
NODE_BYTES, LINK_BYTES = 700, 200


@dataclass(frozen=True)
class Tier:
    """A kind of machine.

    Parameters
    ----------
    role : str
        ``rpi``, ``tx2``, ``nuc`` or ``server``.
    speed : float
        Instructions per second. The original simulator executes ``cpu_milis * 1000``
        instructions per tick of 0.1 s, hence 1e4 instructions per second and milli-CPU.
    memory : float
        Bytes; divided by the memory of one task it gives the queue capacity.
    """

    role: str
    speed: float
    memory: float


TIERS = {
    "rpi4": Tier("rpi", 7200e4, 6 * GIB),
    "rpi5-6g": Tier("rpi", 9600e4, 6 * GIB),
    "rpi5-8g": Tier("rpi", 9600e4, 8 * GIB),
    "tx2": Tier("tx2", 4000e4, 8.24e9),
    "nuc": Tier("nuc", 14800e4, 64 * GIB),
    "server": Tier("server", 290400e4, 188e9),
}


@dataclass(frozen=True)
class Topology:
    """A network of N nodes.

    Parameters
    ----------
    names : sequence of str
        Unique names of the nodes.
    roles : sequence of str
        Role of each node.
    speed : array of float, shape (N,)
        Instructions per second.
    capacity : array of int, shape (N,)
        Tasks a node holds at most, the one in service included.
    position : array of float, shape (N, 2)
        Metres.
    neighbours : sequence of sequence of int
        Neighbours of each node, in the order of the actions 1, 2, ...; symmetric.
    is_agent, is_source : array of bool, shape (N,)
        Nodes that make decisions, and nodes at which tasks are born.
    link_rate, link_latency : sequence of sequence of float, optional
        Bits per second and seconds from a node to each of its neighbours, in the order of
        `neighbours`. Where nan, and by default everywhere, the physics determine them.

    Raises
    ------
    ValueError
        For a field without one entry per node, a repeated name, a speed or capacity that is not
        above zero, a link to a missing node or to itself, a link that only one end lists, a rate or
        latency that is not possible, a network that is not connected, has no agent or no source, or
        does not fit into the free memory.
    """

    names: Sequence[str]
    roles: Sequence[str]
    speed: np.ndarray
    capacity: np.ndarray
    position: np.ndarray
    neighbours: Sequence[Sequence[int]]
    is_agent: np.ndarray
    is_source: np.ndarray
    link_rate: Sequence[Sequence[float]] | None = None
    link_latency: Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        self._check_lengths()
        for field, kind in (("speed", float), ("capacity", float), ("position", float)):
            object.__setattr__(self, field, _array(field, getattr(self, field), kind))
        for field in ("is_agent", "is_source"):
            object.__setattr__(self, field, _array(field, getattr(self, field), bool))
        self._check_nodes()
        object.__setattr__(self, "capacity", self.capacity.astype(int))
        rows = [_numbers(*item) for item in zip(self.names, self.neighbours, strict=True)]
        degree = np.array([len(row) for row in rows])
        require_memory(
            f"a network of {self.num_nodes:,} nodes, the busiest with {degree.max():,} links,",
            memory_needed(self.num_nodes, int(degree.sum())),
        )
        starts = np.repeat(np.arange(self.num_nodes), degree)
        ends = np.concatenate(rows)
        self._check_links(starts, ends)
        self._check_link_values(starts, ends)
        if not self.is_agent.any() or not self.is_source.any():
            raise ValueError(
                "a network needs at least one agent and one source of tasks: must have a node that "
                "is an agent, by default any but a tx2, and one that is a source, by default an rpi"
            )
        part = parts(self.num_nodes, starts, ends)
        if part.any():
            lost = self.names[int(np.argmax(part > 0))]
            raise ValueError(
                f"the network falls into {part.max() + 1} parts ({lost} cannot be reached from "
                f"{self.names[0]}): it must be connected"
            )

    def _check_lengths(self) -> None:
        for field in self.__dataclass_fields__:
            value = getattr(self, field)
            if value is None and field in LINK_FIELDS:
                continue
            if not isinstance(value, Sequence | np.ndarray):
                raise ValueError(f"{field} is {shown(value)}: must have one entry for each node")
            if len(value) != self.num_nodes or self.num_nodes == 0:
                raise ValueError(
                    f"a network of {self.num_nodes} nodes has {len(value)} {field}: must have one "
                    f"for each node, and at least one node"
                )
        for field in ("names", "roles"):
            for node, text in enumerate(getattr(self, field)):
                require_kind(f"{field[:-1]} of node {node}", text, str, "text")

    def _check_nodes(self) -> None:
        for field in ("speed", "capacity", "position", "is_agent", "is_source"):
            want = (self.num_nodes, 2) if field == "position" else (self.num_nodes,)
            if getattr(self, field).shape != want:
                raise ValueError(
                    f"{field} has the shape {getattr(self, field).shape}: must be {want}"
                )
        name, times = Counter(self.names).most_common(1)[0]
        if times > 1:
            raise ValueError(f"{times} nodes are named {name}: must be one of each name")
        speed, capacity = self.speed, self.capacity
        for node in _first(~(np.isfinite(speed) & (speed > 0))):
            require_number(f"speed of node {self.names[node]}", float(speed[node]), above=0)
        for node in _first(~((capacity >= 1) & (capacity <= LARGEST_CAPACITY))):
            require_number(
                f"capacity of node {self.names[node]}",
                float(capacity[node]),
                at_least=1,
                at_most=LARGEST_CAPACITY,
            )
        for node in _first(capacity != np.floor(capacity)):
            raise ValueError(
                f"capacity of node {self.names[node]} is {float(capacity[node])}: must be a whole "
                f"number"
            )
        for node in _first(~np.isfinite(self.position).all(axis=1)):
            raise ValueError(
                f"position of node {self.names[node]} is {tuple(map(float, self.position[node]))}: "
                f"must be two finite numbers"
            )

    def _check_links(self, starts: np.ndarray, ends: np.ndarray) -> None:
        """Check the links, given as pairs of nodes in the order of `neighbours`."""
        names, size = self.names, self.num_nodes
        for link in _first((ends < 0) | (ends >= size)):
            raise ValueError(
                f"node {names[starts[link]]} names neighbour {ends[link]}: "
                f"must be between 0 and {size - 1}"
            )
        links, times = np.unique(starts * size + ends, return_counts=True)
        for link in links[times > 1][:1]:
            raise ValueError(
                f"node {names[link // size]} lists a neighbour twice: {names[link % size]}"
            )
        one_way = np.divmod(np.setxor1d(links, ends * size + starts)[:1], size)
        loops = starts[starts == ends][:1]
        for a, b in [*zip(*one_way, strict=True), *zip(loops, loops, strict=True)]:
            raise ValueError(
                f"link {names[a]} - {names[b]}: must join two nodes, and both ends must list it"
            )

    def _check_link_values(self, starts: np.ndarray, ends: np.ndarray) -> None:
        for field in LINK_FIELDS:
            if getattr(self, field) is None:
                continue
            for name, row, values in zip(
                self.names, self.neighbours, getattr(self, field), strict=True
            ):
                if not isinstance(values, Sequence | np.ndarray) or len(values) != len(row):
                    raise ValueError(
                        f"{field} of node {name} is {shown(values)}: must be {len(row)} numbers, "
                        f"one for each neighbour"
                    )
            values = _array(field, [v for row in getattr(self, field) for v in row], float)
            possible = values >= 0 if field == "link_latency" else values > 0
            for link in _first(~((possible & np.isfinite(values)) | np.isnan(values))):
                way = f"{field} from {self.names[starts[link]]} to {self.names[ends[link]]}"
                bound = "at least" if field == "link_latency" else "above"
                raise ValueError(
                    f"{way} is {float(values[link])!r}: must be a finite number {bound} 0, or nan "
                    f"for that of the physics"
                )
            forth, back = np.lexsort((ends, starts)), np.lexsort((starts, ends))
            for link in forth[_first(np.isnan(values)[forth] != np.isnan(values)[back])]:
                raise ValueError(
                    f"link {self.names[starts[link]]} - {self.names[ends[link]]} states its "
                    f"{field.removeprefix('link_')} one way only: must state it both ways"
                )

    @property
    def rates(self) -> np.ndarray:
        """Rates that the network states, nan elsewhere; shape (links in both directions,).

        In the order of `neighbours`; bits per second.
        """
        return self._flat(self.link_rate)

    @property
    def latencies(self) -> np.ndarray:
        """Latencies that the network states, as :attr:`rates`; seconds."""
        return self._flat(self.link_latency)

    def _flat(self, rows: Sequence[Sequence[float]] | None) -> np.ndarray:
        if rows is None:
            return np.full(sum(len(row) for row in self.neighbours), np.nan)
        return np.array([value for row in rows for value in row], float)

    @property
    def num_nodes(self) -> int:
        """Number of nodes, N."""
        return len(self.names)

    @property
    def agents(self) -> np.ndarray:
        """Indices of the nodes that decide, ascending."""
        return np.flatnonzero(self.is_agent)

    def to_networkx(self) -> "nx.Graph":
        """Return a graph of the nodes 0, 1, ..., with the attributes of :func:`from_networkx`.

        It is directed, with both directions of each link, if the network states a rate or latency
        that differs between them.
        """
        import networkx as nx

        starts = np.repeat(np.arange(self.num_nodes), [len(row) for row in self.neighbours])
        ends = np.concatenate([np.array(row, np.int64) for row in self.neighbours])
        stated = np.stack([self.rates, self.latencies])
        back = np.lexsort((starts, ends))  # the other direction of each link, sorted by link
        forth = np.lexsort((ends, starts))
        same = np.array_equal(stated[:, forth], stated[:, back], equal_nan=True)
        graph: nx.Graph = nx.Graph() if same else nx.DiGraph()
        for node, name in enumerate(self.names):
            graph.add_node(
                node,
                name=name,
                role=self.roles[node],
                speed=float(self.speed[node]),
                capacity=int(self.capacity[node]),
                pos=tuple(float(x) for x in self.position[node]),
                agent=bool(self.is_agent[node]),
                source=bool(self.is_source[node]),
            )
        for a, b, *values in zip(starts.tolist(), ends.tolist(), *stated.tolist(), strict=True):
            known = zip(("rate", "latency"), values, strict=True)
            graph.add_edge(a, b, **{name: value for name, value in known if value == value})
        return graph


def memory_needed(nodes: float, links: float) -> float:
    """Estimate the bytes that building and compiling a network takes.

    Parameters
    ----------
    nodes, links : float
        Nodes, and links counted in both directions.
    """
    return NODE_BYTES * nodes + LINK_BYTES * links


def parts(num_nodes: int, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Label the connected part of each node, 0 for that of node 0; shape (num_nodes,).

    Each part takes the label of its lowest node (Shiloach and Vishkin 1982: hook, then shorten).
    """
    label = np.arange(num_nodes)
    while True:
        lowest = np.minimum(label[starts], label[ends])
        hooked = label.copy()
        np.minimum.at(hooked, label[starts], lowest)
        np.minimum.at(hooked, label[ends], lowest)
        while not np.array_equal(shorter := hooked[hooked], hooked):
            hooked = shorter
        if np.array_equal(hooked, label):
            return np.unique(label, return_inverse=True)[1]
        label = hooked


def neighbour_rows(num_nodes: int, edges: np.ndarray) -> list[list[int]]:
    """List the neighbours of each node, ascending.

    Parameters
    ----------
    num_nodes : int
        Number of nodes.
    edges : array of int, shape (E, 2)
        Pairs of nodes, in either direction, repeated or not.
    """
    starts, ends = np.concatenate([edges, edges[:, ::-1]]).T
    links = np.unique(starts.astype(np.int64) * num_nodes + ends)
    places = np.searchsorted(links, np.arange(1, num_nodes) * num_nodes)
    return [row.tolist() for row in np.split(links % num_nodes, places)]


def _array(field: str, value: object, kind: type) -> np.ndarray:
    """Convert the entries of a field to an array of floats or of booleans."""
    try:
        array = np.asarray(value)
        if np.can_cast(array.dtype, kind, "same_kind"):
            return array.astype(kind)
    except ValueError:  # rows of different lengths
        pass
    allowed = "true or false" if kind is bool else "numbers"
    raise ValueError(f"{field} is {shown(value)}: must be {allowed} for each node")


def _numbers(name: str, row: Sequence[int]) -> np.ndarray:
    """Convert a row of neighbours to an array."""
    try:
        numbers = np.array(row)
        if numbers.ndim == 1 and (numbers.dtype.kind in "iu" or not len(numbers)):
            return numbers.astype(np.int64, copy=False)
    except ValueError:  # rows of different lengths
        pass
    raise ValueError(f"neighbours of node {name} are {shown(row)}: must be the numbers of nodes")


def _first(wrong: np.ndarray) -> np.ndarray:
    """Return the index of the first wrong entry, if there is one."""
    return np.flatnonzero(wrong)[:1]
