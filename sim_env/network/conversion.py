"""Networks from networkx graphs."""

from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sim_env.errors import require_choice, require_kind, require_number, shown
from sim_env.network.graph import PASSIVE_ROLE, SOURCE_ROLE, Topology, neighbour_rows

if TYPE_CHECKING:
    import networkx as nx

ATTRIBUTES = ("speed", "capacity", "role", "pos", "name", "agent", "source")
BOUNDS: dict[str, dict[str, float]] = {"rate": {"above": 0}, "latency": {"at_least": 0}}
Links = dict[tuple[int, int], float]


def from_networkx(graph: "nx.Graph", defaults: Mapping[str, Any] | None = None) -> Topology:
    """Convert a networkx graph with node attributes to a topology.

    Parameters
    ----------
    graph : networkx graph
        Nodes keep their order, and neighbours are in that order. A link joins two nodes both ways,
        in a directed graph as well; self-loops have no effect. Node attributes:

        - ``speed``: instructions per second, above 0.
        - ``capacity``: tasks that the node holds at most, a whole number, at least 1.
        - ``role``: ``rpi``, ``tx2``, ``nuc``, ``server`` or another word.
        - ``pos``: x and y in metres.
        - ``name`` (optional): the node itself, as text, by default.
        - ``agent`` (optional): whether it decides; by default all but ``tx2`` do.
        - ``source`` (optional): whether tasks are born there; by default at every ``rpi``.

        Edge attributes, both optional and by default those of the physics: ``rate``, bits per
        second above 0, and ``latency``, seconds. They hold both ways, unless a directed graph has
        an edge each way.
    defaults : mapping, optional
        Attributes of the nodes that lack them.

    Returns
    -------
    Topology

    Raises
    ------
    ValueError
        Names the node and its missing or impossible attribute, or the link, also if parallel edges
        differ; or as :class:`Topology` does.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.star_graph(4)
    >>> nx.set_node_attributes(graph, nx.spring_layout(graph, scale=50, seed=1), "pos")
    >>> from_networkx(graph, {"speed": 1e8, "capacity": 20, "role": "rpi"}).num_nodes
    5
    """
    import networkx as nx

    require_kind("graph", graph, nx.Graph, "a networkx graph")
    require_kind("defaults", defaults or {}, Mapping, "a mapping of attributes to values")
    for attribute in defaults or {}:
        require_choice("attribute in defaults", attribute, ATTRIBUTES)
    nodes = {node: {**(defaults or {}), **graph.nodes[node]} for node in graph}
    number = {node: i for i, node in enumerate(nodes)}
    roles = [_role(node, data) for node, data in nodes.items()]
    edges = [(number[a], number[b]) for a, b in graph.edges() if a != b]
    rows = neighbour_rows(len(nodes), np.array(edges, int).reshape(-1, 2)) if nodes else []
    rate, latency = (_stated(graph, number, name) for name in ("rate", "latency"))
    return Topology(
        names=[str(data.get("name", node)) for node, data in nodes.items()],
        roles=roles,
        speed=np.array([_number(node, data, "speed") for node, data in nodes.items()]),
        capacity=np.array([_whole(node, data, "capacity") for node, data in nodes.items()]),
        position=np.array([_place(node, data) for node, data in nodes.items()]).reshape(-1, 2),
        neighbours=rows,
        is_agent=_flags(nodes, "agent", [role != PASSIVE_ROLE for role in roles]),
        is_source=_flags(nodes, "source", [role == SOURCE_ROLE for role in roles]),
        link_rate=link_values(rows, rate),
        link_latency=link_values(rows, latency),
    )


def link_values(rows: list[list[int]], stated: Links) -> list[list[float]] | None:
    """Arrange what links state in the order of the rows of neighbours; None if none states any."""
    if not stated:
        return None
    return [[stated.get((a, b), np.nan) for b in row] for a, row in enumerate(rows)]


def _stated(graph: "nx.Graph", number: Mapping[Hashable, int], name: str) -> Links:
    """Collect an attribute of the links, by pair of nodes, in both directions."""
    forth: Links = {}
    edges: Iterable[tuple[Hashable, Hashable, Any]] = graph.edges(data=name)
    for a, b, value in edges:
        if value is None or a == b:
            continue
        where = f"{name} of link {a} - {b}"
        require_number(where, value, **BOUNDS[name])
        pair = number[a], number[b]
        pairs = [pair] if graph.is_directed() else [pair, pair[::-1]]
        for each in pairs:
            if forth.setdefault(each, float(value)) != value:
                raise ValueError(
                    f"{where} is {value!r} and also {forth[each]!r}: must be the same on parallel "
                    f"edges"
                )
    back = {pair[::-1]: value for pair, value in forth.items()}
    return {**back, **forth}


def _attribute(node: Hashable, data: Mapping[str, Any], name: str) -> Any:
    if name not in data:
        raise ValueError(
            f"node {node} has no attribute {name}: must have speed, capacity, role and pos"
        )
    return data[name]


def _number(node: Hashable, data: Mapping[str, Any], name: str) -> float:
    value = _attribute(node, data, name)
    require_number(f"{name} of node {node}", value, above=0)
    return float(value)


def _whole(node: Hashable, data: Mapping[str, Any], name: str) -> int:
    value = _number(node, data, name)
    if value != int(value):
        raise ValueError(f"{name} of node {node} is {value!r}: must be a whole number")
    return int(value)


def _role(node: Hashable, data: Mapping[str, Any]) -> str:
    value = _attribute(node, data, "role")
    require_kind(f"role of node {node}", value, str, "a word")
    return str(value)


def _place(node: Hashable, data: Mapping[str, Any]) -> tuple[float, float]:
    value = _attribute(node, data, "pos")
    try:
        x, y = (float(part) for part in value if not isinstance(part, str))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"pos of node {node} is {shown(value)}: must be two numbers, x and y in metres"
        ) from error
    return x, y


def _flags(
    nodes: Mapping[Hashable, Mapping[str, Any]], name: str, by_role: Iterable[bool]
) -> np.ndarray:
    flags = []
    for (node, data), usual in zip(nodes.items(), by_role, strict=True):
        value = data.get(name, usual)
        require_kind(f"{name} of node {node}", value, (bool, np.bool_), "true or false")
        flags.append(bool(value))
    return np.array(flags, bool)
