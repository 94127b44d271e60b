"""Networks by name: the settings of a topology, and how it is built.

Networks as data are in :mod:`sim_env.network.graph`, generators in
:mod:`sim_env.network.generators`, readers in :mod:`sim_env.network.files`. A topology of your own
is a function at an import path.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sim_env import plugins
from sim_env.errors import (
    Use,
    require_effect,
    require_number,
    require_path,
    require_whole,
    shown,
    without_kind,
)
from sim_env.memory import require_memory
from sim_env.network import generators
from sim_env.network.conversion import from_networkx
from sim_env.network.files import MEMORY_PER_TASK, read_ether_json, read_topology
from sim_env.network.graph import TIERS, Tier, Topology, memory_needed

__all__ = [
    "KINDS",
    "TIERS",
    "Tier",
    "Topology",
    "TopologySpec",
    "build_topology",
    "from_networkx",
    "read_ether_json",
    "read_topology",
]


ETHER, FILE = "ether", "file"
FLAT = ("random", "grid", "ring", "full", "bridged")


@dataclass
class TopologySpec:
    """Settings of a network.

    Parameters
    ----------
    kind : str
        ``ether``: clusters of Raspberry Pis and two TX2 around a NUC, everything linked to one
        server (star of stars). ``file``: a file, see
        :func:`sim_env.network.files.read_topology`. The others have NUCs (five of 10 to 47 nodes)
        and Raspberry Pis: ``random`` in a square of 100 m, two nodes linked when closer than
        `radius`; ``grid``, 10 m apart; ``ring``; ``full``, every pair linked; ``bridged``, two
        cliques with one link between them. Or an import path such as
        ``my_module:build``, or an entry point of ``fauno.topologies``: a function of this
        TopologySpec that returns a :class:`Topology` or a networkx graph as
        :func:`from_networkx` takes it.
    clusters : int
        Clusters of an ``ether`` network; 1, 2, 3, 4 give 8, 23, 32, 45 nodes.
    nodes : int
        Nodes of the other networks, except ``file``.
    radius : float
        Reach of a node of a ``random`` network, in metres.
    path : str
        Path of the ``file``; absolute if several processes read it.
    memory_per_task : float
        Bytes of memory that one queued task takes: capacity = round(memory / this). With a
        ``file`` of the plain format, which states capacities, it must keep its default.
    seed : int
        Seed of the positions and of the order of the tiers.
    """

    uses: ClassVar[dict[str, Use]] = {
        "clusters": without_kind("kind", *FLAT, FILE),
        "nodes": without_kind("kind", ETHER, FILE),
        "radius": without_kind("kind", ETHER, "grid", "ring", "full", "bridged", FILE),
        "path": without_kind("kind", ETHER, *FLAT),
        "seed": without_kind("kind", FILE),
    }

    kind: str = "ether"
    clusters: int = 2
    nodes: int = 20
    radius: float = 50.0
    path: str = ""
    memory_per_task: float = MEMORY_PER_TASK
    seed: int = 0

    def __post_init__(self) -> None:
        plugins.require_name("topology.kind", self.kind, KINDS, GROUP)
        require_whole("topology.clusters", self.clusters, at_least=1)
        require_whole("topology.nodes", self.nodes, at_least=2)
        require_number("topology.radius", self.radius, above=0)
        require_number("topology.memory_per_task", self.memory_per_task, above=0)
        require_whole("topology.seed", self.seed, at_least=0)
        if self.path or self.kind == FILE:
            require_path("topology.path", self.path)
        require_effect("topology.", self, self.uses)


class Size(NamedTuple):
    """Approximate size of a network; links are counted in both directions."""

    nodes: float
    links: float
    widest: float  # links of the busiest node


class Kind(NamedTuple):
    """A built-in kind of network: its generator, and its approximate size."""

    build: Callable[[TopologySpec], Topology]
    size: Callable[[TopologySpec], Size]


def build_topology(spec: TopologySpec) -> Topology:
    """Build the network that `spec` describes; the same spec gives the same network.

    Raises
    ------
    ValueError
        If it is not connected, cannot be read, imported or built, or does not fit into the free
        memory.
    """
    if spec.kind not in KINDS:
        return _own(spec)
    size = KINDS[spec.kind].size(spec)
    key = "clusters" if spec.kind == "ether" else "nodes"
    require_memory(
        f"topology.{key} is {getattr(spec, key)}: a network of the kind {spec.kind!r} with "
        f"{size.nodes:,} nodes, the busiest with about {size.widest:,.0f} links,",
        memory_needed(size.nodes, size.links),
    )
    return KINDS[spec.kind].build(spec)


def _own(spec: TopologySpec) -> Topology:
    """Build the network of a function that is not built in."""
    build: Any = plugins.find("topology.kind", spec.kind, {}, GROUP)
    built = plugins.call("topology.kind", spec.kind, build, spec)
    if isinstance(built, Topology):
        return built
    import networkx as nx  # slow to import, and most networks do without

    where = f"topology.kind is {spec.kind!r}"
    if not isinstance(built, nx.Graph):
        raise ValueError(f"{where}: must return a Topology or a networkx graph, not {shown(built)}")
    try:
        return from_networkx(built)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _ether_size(spec: TopologySpec) -> Size:
    nodes = generators.num_pis(spec.clusters) + 3 * spec.clusters + 1
    return Size(nodes, 4 * nodes, nodes - 1)


def _random_size(spec: TopologySpec) -> Size:
    reached = min(np.pi * (min(spec.radius, generators.SIDE) / generators.SIDE) ** 2, 1.0)
    widest = (spec.nodes - 1) * reached
    return Size(spec.nodes, spec.nodes * widest, widest)


def _bridged_size(spec: TopologySpec) -> Size:
    left = generators.left_clique(spec.nodes)
    right = spec.nodes - left
    return Size(spec.nodes, left**2 + right**2, max(left, right))


KINDS = {
    "ether": Kind(
        lambda spec: generators.ether(spec.clusters, spec.memory_per_task, spec.seed), _ether_size
    ),
    "random": Kind(
        lambda spec: generators.random_geometric(
            spec.nodes, spec.radius, spec.memory_per_task, spec.seed
        ),
        _random_size,
    ),
    "grid": Kind(
        lambda spec: generators.grid(spec.nodes, spec.memory_per_task, spec.seed),
        lambda spec: Size(spec.nodes, 4 * spec.nodes, 4),
    ),
    "ring": Kind(
        lambda spec: generators.ring(spec.nodes, spec.memory_per_task, spec.seed),
        lambda spec: Size(spec.nodes, 2 * spec.nodes, 2),
    ),
    "full": Kind(
        lambda spec: generators.full(spec.nodes, spec.memory_per_task, spec.seed),
        lambda spec: Size(spec.nodes, spec.nodes * (spec.nodes - 1), spec.nodes - 1),
    ),
    "bridged": Kind(
        lambda spec: generators.bridged(spec.nodes, spec.memory_per_task, spec.seed),
        _bridged_size,
    ),
    "file": Kind(
        lambda spec: read_topology(spec.path, spec.memory_per_task),
        lambda spec: Size(0, 0, 0),  # known, and checked, when it has been read
    ),
}
GROUP = "fauno.topologies"  # of entry points
