"""Edge networks: nodes with a role, a speed, room for tasks and a place; links between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from sim_env.errors import require_choice, require_number

GIB = 2**30


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

# Raspberry Pis of each cluster, and how many of each tier, in the published heterogeneous
# Ether networks of 1 to 4 clusters (8, 23, 32 and 45 nodes).
PUBLISHED_CLUSTERS = {1: (4,), 2: (6, 10), 3: (6, 6, 10), 4: (8, 8, 8, 8)}
PUBLISHED_TIERS = {1: (2, 2, 0), 2: (4, 7, 5), 3: (8, 9, 5), 4: (11, 10, 11)}
SERVER_POSITION = (65.0, 65.0)


@dataclass
class TopologySpec:
    """What network to build.

    Parameters
    ----------
    kind : str
        ``ether``: clusters of Raspberry Pis and two TX2 around a NUC, everything linked to one
        server (star of stars). ``random``: five NUCs, the rest Raspberry Pis, in a square of
        100 m; two nodes are linked when closer than `radius`.
    clusters : int
        Clusters of an ``ether`` network; 1, 2, 3, 4 give 8, 23, 32, 45 nodes.
    nodes : int
        Nodes of a ``random`` network.
    radius : float
        Reach of a node of a ``random`` network, in metres.
    memory_per_task : float
        Bytes of memory that one queued task takes: capacity = round(memory / this).
    seed : int
        Seed of the positions and of the order of the tiers.
    """

    kind: str = "ether"
    clusters: int = 2
    nodes: int = 20
    radius: float = 50.0
    memory_per_task: float = 320e6
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("topology.kind", self.kind, GENERATORS)
        require_number("topology.clusters", self.clusters, at_least=1)
        require_number("topology.nodes", self.nodes, at_least=6)
        require_number("topology.radius", self.radius, above=0)
        require_number("topology.memory_per_task", self.memory_per_task, above=0)
        require_number("topology.seed", self.seed, at_least=0)


@dataclass(frozen=True)
class Topology:
    """A network of N nodes.

    Parameters
    ----------
    names : sequence of str
        One name per node.
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
        Nodes that decide, and nodes at which tasks are born.

    Raises
    ------
    ValueError
        For a speed or capacity that is not above zero, a link to a node that does not exist or
        to itself, a link known to one end only, a network in several parts, or one without an
        agent or a source.
    """

    names: Sequence[str]
    roles: Sequence[str]
    speed: np.ndarray
    capacity: np.ndarray
    position: np.ndarray
    neighbours: Sequence[Sequence[int]]
    is_agent: np.ndarray
    is_source: np.ndarray

    def __post_init__(self) -> None:
        for node, name in enumerate(self.names):
            require_number(f"speed of node {name}", float(self.speed[node]), above=0)
            require_number(f"capacity of node {name}", float(self.capacity[node]), at_least=1)
            for other in self.neighbours[node]:
                if not 0 <= other < self.num_nodes:
                    raise ValueError(
                        f"node {name} names neighbour {other}: "
                        f"must be between 0 and {self.num_nodes - 1}"
                    )
                if other == node or node not in self.neighbours[other]:
                    raise ValueError(
                        f"link {name} - {self.names[other]}: must join two nodes, and both ends "
                        f"must list it"
                    )
            if len(set(self.neighbours[node])) != len(self.neighbours[node]):
                raise ValueError(f"node {name} lists a neighbour twice: {self.neighbours[node]}")
        if not np.any(self.is_agent) or not np.any(self.is_source):
            raise ValueError("a network needs at least one agent and one source of tasks")
        parts = nx.number_connected_components(self.to_networkx())
        if parts != 1:
            raise ValueError(f"the network falls into {parts} parts: it must be connected")

    @property
    def num_nodes(self) -> int:
        """Number of nodes, N."""
        return len(self.names)

    @property
    def agents(self) -> np.ndarray:
        """Indices of the nodes that decide, ascending."""
        return np.flatnonzero(self.is_agent)

    def to_networkx(self) -> nx.Graph:
        """Graph with the attributes ``name``, ``role``, ``speed``, ``capacity``, ``pos``."""
        graph: nx.Graph = nx.Graph()
        for node, name in enumerate(self.names):
            graph.add_node(
                node,
                name=name,
                role=self.roles[node],
                speed=float(self.speed[node]),
                capacity=int(self.capacity[node]),
                pos=tuple(float(x) for x in self.position[node]),
            )
        graph.add_edges_from((a, b) for a, row in enumerate(self.neighbours) for b in row)
        return graph


def build_topology(spec: TopologySpec) -> Topology:
    """Build the network that `spec` describes; same spec, same network."""
    return GENERATORS[spec.kind](spec)


def _assemble(
    tiers: Sequence[str],
    position: np.ndarray,
    edges: Sequence[tuple[int, int]],
    spec: TopologySpec,
    agent_roles: Sequence[str],
) -> Topology:
    """Topology from the tier and place of each node; names are ``role_0``, ``role_1``, ..."""
    roles = [TIERS[tier].role for tier in tiers]
    names = [f"{role}_{roles[:i].count(role)}" for i, role in enumerate(roles)]
    neighbours: list[list[int]] = [[] for _ in tiers]
    for a, b in sorted({(min(e), max(e)) for e in edges}):
        neighbours[a].append(b)
        neighbours[b].append(a)
    return Topology(
        names=names,
        roles=roles,
        speed=np.array([TIERS[tier].speed for tier in tiers]),
        capacity=np.array([round(TIERS[tier].memory / spec.memory_per_task) for tier in tiers]),
        position=position,
        neighbours=[sorted(row) for row in neighbours],
        is_agent=np.isin(roles, agent_roles),
        is_source=np.array(roles) == "rpi",
    )


def _rpi_tiers(count: int, split: tuple[int, int, int] | None, rng: np.random.Generator) -> list:
    """`count` Raspberry Pis of the three tiers, in random order; thirds without a split."""
    four, five = split[:2] if split else (round(count / 3), round(count / 3))
    tiers = ["rpi4"] * four + ["rpi5-6g"] * five
    tiers += ["rpi5-8g"] * (count - len(tiers))
    return [tiers[i] for i in rng.permutation(count)]


def ether_topology(spec: TopologySpec) -> Topology:
    """Star of stars after Ether's urban sensing scenario, as used by PeersimGym and FAuNO.

    In each cluster the Raspberry Pis and two TX2 are linked to the cluster's NUC; every node of
    every cluster, the NUC too, is linked to the one server. TX2 work but do not decide.
    """
    rng = np.random.default_rng([spec.seed, spec.clusters])
    sizes = PUBLISHED_CLUSTERS.get(spec.clusters, (8,) * spec.clusters)
    pis = _rpi_tiers(sum(sizes), PUBLISHED_TIERS.get(spec.clusters), rng)
    tiers: list[str] = []
    place: list[np.ndarray] = []
    edges: list[tuple[int, int]] = []
    for cluster, size in enumerate(sizes):
        angle = 2 * np.pi * (cluster + 0.5) / spec.clusters + np.pi / 2
        centre = 50 + 33 * np.array([np.cos(angle), np.sin(angle)])
        first, nuc = len(tiers), len(tiers) + size
        tiers += [pis.pop() for _ in range(size)] + ["nuc", "tx2", "tx2"]
        reach = np.concatenate([rng.uniform(8, 28, size), [0.0], rng.uniform(2, 6, 2)])
        turn = rng.uniform(0, 2 * np.pi, size + 3)
        offset = reach[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        place += list(np.clip(centre + offset, 0, 100))
        edges += [(node, nuc) for node in range(first, nuc + 3) if node != nuc]
    server = len(tiers)
    edges += [(node, server) for node in range(server)]
    place.append(np.array(SERVER_POSITION))
    return _assemble([*tiers, "server"], np.array(place), edges, spec, ("rpi", "nuc", "server"))


def random_topology(spec: TopologySpec) -> Topology:
    """Random geometric network: five NUCs and Raspberry Pis in a square of 100 m; all decide.

    A node that reaches nobody is linked to the nearest one.
    """
    rng = np.random.default_rng([spec.seed, spec.nodes])
    tiers = ["nuc"] * 5 + _rpi_tiers(spec.nodes - 5, None, rng)
    place = rng.uniform(0, 100, (spec.nodes, 2))
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    linked = distance < spec.radius
    lonely = np.flatnonzero(~linked.any(axis=1))
    linked[lonely, distance[lonely].argmin(axis=1)] = True
    edges = [(int(a), int(b)) for a, b in np.argwhere(linked)]
    return _assemble(tiers, place, edges, spec, ("rpi", "nuc"))


GENERATORS = {"ether": ether_topology, "random": random_topology}
