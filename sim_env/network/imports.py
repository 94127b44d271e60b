"""Networks from elsewhere: GraphML, edge lists and bare networkx graphs, completed by defaults."""

import difflib
import re
import unicodedata
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim_env.errors import require_choice, require_kind, require_number, require_path, shown
from sim_env.network.conversion import from_networkx
from sim_env.network.files import MEMORY_PER_TASK, role_of
from sim_env.network.graph import ROLES, TIERS, Topology
from sim_env.network.plain import DEFAULT_ROLE, FLAG, LINK_FIELDS, NODE_FIELDS, TEXT, require_node
from sim_env.tables import Row, Table, as_number, read_table

if TYPE_CHECKING:
    import networkx as nx

SIDE = 100.0  # metres
ON_NODES = tuple(NODE_FIELDS)
ON_LINKS = ("rate", "latency")
FIELDS = {**NODE_FIELDS, **{name: LINK_FIELDS[name] for name in ON_LINKS}}
FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
Attributes = dict[str, Any]

# Speed and capacity of a node that states none: those of the slowest tier of its role.
TYPICAL = {
    role: {"speed": tier.speed, "capacity": round(tier.memory / MEMORY_PER_TASK)}
    for tier in reversed(TIERS.values())
    for role in [tier.role]
}


@dataclass(frozen=True)
class Imported:
    """A network from elsewhere.

    Attributes
    ----------
    topology : Topology
    notes : list of str
        One sentence for each default that was used, and for attributes that were not.
    """

    topology: Topology
    notes: list[str]


def import_graph(
    graph: "nx.Graph",
    names: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    scale: Mapping[str, float] | None = None,
    fit: float | None = None,
) -> Imported:
    """Convert any connected networkx graph to a topology; defaults fill in what it lacks.

    Nodes have the attributes ``name``, ``role``, ``speed``, ``capacity``, ``x``, ``y`` (or
    ``pos``), ``agent`` and ``source`` of the plain format, edges ``rate`` and ``latency``. Without
    one of them:

    - ``name``: the node itself; other characters than letters, digits, _ and - become _.
    - ``role``: the one of ``rpi``, ``tx2``, ``nuc``, ``server`` that is in the name, else ``rpi``.
    - ``speed``, ``capacity``: 7.2e7 and 20 for an ``rpi``, 4e7 and 26 for a ``tx2``, 1.48e8 and 215
      for a ``nuc``, 2.904e9 and 588 for a ``server``; required for other roles.
    - ``x``, ``y``: a layout by the links (``networkx.spring_layout`` with seed 0).
    - ``agent``, ``source``, ``rate``, ``latency``: as in the plain format.

    Parameters
    ----------
    graph : networkx graph
        Directed or not, with parallel edges or not, as :func:`from_networkx` takes it.
    names : mapping of str to str, optional
        Attributes of the graph to read instead of those of the same name, such as
        ``{"speed": "cpu"}``.
    defaults : mapping, optional
        Values for nodes or edges that lack them, such as ``{"capacity": 50}``.
    scale : mapping of str to float, optional
        Factors that turn the graph's units into those of the format, such as ``{"rate": 1e6}``
        for Mbit/s. They do not apply to `defaults`.
    fit : float, optional
        Metres; positions are moved and scaled evenly into a square with this side. A layout by the
        links fills one of 100 m by default.

    Raises
    ------
    ValueError
        One sentence with the node or link, its value and what is allowed.

    Examples
    --------
    >>> import networkx as nx
    >>> imported = import_graph(nx.barabasi_albert_graph(30, 2, seed=1), defaults={"speed": 1e8})
    >>> imported.topology.num_nodes
    30
    """
    import networkx as nx

    require_kind("graph", graph, nx.Graph, "a networkx graph")
    names, defaults, scale = dict(names or {}), dict(defaults or {}), dict(scale or {})
    for what, mapping in (("names", names), ("defaults", defaults), ("scale", scale)):
        for name in mapping:
            require_choice(f"field in {what}", name, FIELDS)
    for name, factor in scale.items():
        require_number(f"scale of {name}", factor)
        if FIELDS[name].kind in (TEXT, FLAG):
            raise ValueError(f"scale of {name} is {factor!r}: must be that of a number")
    if fit is not None:
        require_number("fit", fit, above=0)
    on_nodes: dict[Hashable, Attributes] = {node: dict(graph.nodes[node]) for node in graph}
    for data in on_nodes.values():
        if "pos" in data and not {"x", "y"} & set(data):
            place = data.pop("pos")
            pair = isinstance(place, tuple | list | np.ndarray) and len(place) == 2
            data |= dict(zip("xy", place, strict=True)) if pair else {"x": place}
    edges = [(a, b, dict(data)) for a, b, data in graph.edges(data=True)]
    notes = _unused("node", list(on_nodes.values()), ON_NODES, names)
    notes += _unused("link", [data for _, _, data in edges], ON_LINKS, names)

    def read(what: str, data: Attributes, fields: tuple[str, ...]) -> Attributes:
        return _read(what, data, fields, names, defaults, scale)

    completed: nx.Graph = graph.__class__()
    for node, data in on_nodes.items():
        completed.add_node(node, **read(f"of node {node}", data, ON_NODES))
    for a, b, data in edges:
        completed.add_edge(a, b, **read(f"of link {a} - {b}", data, ON_LINKS))
    _complete(completed, notes)
    _place(completed, fit, notes)
    return Imported(from_networkx(completed), notes)


def read_graphml(path: str | Path) -> "nx.Graph":
    """Read a GraphML file with networkx; raise ``ValueError`` if it is not one."""
    import networkx as nx

    where = f"GraphML file {str(path)!r}"
    file = require_path("path of the GraphML file", path)
    try:
        return nx.read_graphml(file)
    except OSError as error:
        raise ValueError(
            f"{where} cannot be read ({error.strerror}): must be a GraphML file"
        ) from error
    except Exception as error:  # XML's errors and networkx', KeyError among them
        raise ValueError(f"{where} is not GraphML ({' '.join(str(error).split())})") from error


def read_edges(path: str | Path, nodes: str | Path | None = None) -> "nx.DiGraph":
    """Read a list of links, and a table of nodes.

    Parameters
    ----------
    path : str or Path
        CSV with the columns ``from`` and ``to`` (or ``source`` and ``target``), and any attributes
        of links; a second row with the ends exchanged describes the other direction. Or two names
        per line, separated by a comma, semicolon or spaces, without header; ``#`` begins a comment.
    nodes : str or Path, optional
        CSV with the column ``name`` and any attributes of nodes; an empty cell is a missing
        attribute. Links may name no other nodes.

    Raises
    ------
    ValueError
        One sentence with the file, the line and what is allowed.
    """
    import networkx as nx

    graph: nx.DiGraph = nx.DiGraph()
    for row in _rows(read_table("node table", nodes), "name") if nodes is not None else []:
        if (name := row.text("name")) in graph:
            raise ValueError(f"{row.where}: name is {shown(name)} again: must be unique")
        graph.add_node(name, **{key: text for key, text in row.cells.items() if key != "name"})
    for row in _link_rows(path):
        ends = row.text("from"), row.text("to")
        for end, name in zip(("from", "to"), ends, strict=True):
            if nodes is not None:
                require_node(f"{row.where}: {end}", name, graph.nodes)
        if ends[0] == ends[1]:
            raise ValueError(f"{row.where}: link {ends[0]} - {ends[1]}: must join two nodes")
        if graph.has_edge(*ends):
            raise ValueError(
                f"{row.where}: link {ends[0]} - {ends[1]} again: must be there once in this "
                f"direction"
            )
        own = {key: text for key, text in row.cells.items() if key not in ("from", "to")}
        graph.add_edge(*ends, **own)
    return graph


def _rows(table: Table, *required: str) -> list[Row]:
    table.require_columns(required, [each for each in table.columns if each not in required])
    return list(table.rows())


def _link_rows(path: str | Path) -> list[Row]:
    """Return the rows of a CSV with header, or of a list of pairs without one."""
    table = read_table("edge list", path)
    if {"source", "target"} <= set(table.columns):  # what Gephi and pandas call them
        renamed = {"source": "from", "target": "to"}
        table = replace(table, columns=[renamed.get(each, each) for each in table.columns])
    if {"from", "to"} & set(table.columns):
        return _rows(table, "from", "to")
    text = require_path("path of the edge list", path).read_text("utf-8-sig")
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        written = line.partition("#")[0].strip()
        cells = re.split(r"\s*[,;]\s*|\s+", written) if written else []
        where = f"{table.name}, line {number}"
        if cells and (len(cells) != 2 or not all(cells)):
            raise ValueError(
                f"{where} is {shown(written)}: must be two names, or the file a CSV whose first "
                f"line has the columns from and to"
            )
        if cells:
            rows.append(Row(where, dict(zip(("from", "to"), cells, strict=True))))
    if not rows:
        raise ValueError(f"{table.name} holds no link: must have at least one")
    return rows


def _unused(
    what: str, items: list[Attributes], fields: tuple[str, ...], names: Mapping[str, str]
) -> list[str]:
    """Check that the attributes to read exist; describe those that are not read."""
    existing = list(dict.fromkeys(key for data in items for key in data))
    for field in fields:
        if field in names and names[field] not in existing:
            require_choice(f"attribute for {field} of a {what}", names[field], existing or ["none"])
    read = {names.get(field, field) for field in fields}
    unused = []
    for key in existing:
        if key not in read:
            close = difflib.get_close_matches(str(key), fields, n=1)
            unused.append(f"{key} (did you mean {close[0]}?)" if close else str(key))
    return [f"{what} attributes not used: {', '.join(unused)}"] if unused else []


def _read(
    what: str,
    data: Attributes,
    fields: tuple[str, ...],
    names: Mapping[str, str],
    defaults: Mapping[str, Any],
    scale: Mapping[str, float],
) -> Attributes:
    """Read the fields of a node or link, in the units of the format."""
    values = {}
    for field in fields:
        value = data.get(names.get(field, field))
        if value is not None and value != "":
            values[field] = _convert(f"{field} {what}", field, value, scale.get(field, 1))
        elif field in defaults:
            values[field] = _convert(f"default of {field}", field, defaults[field], 1)
    return values


def _convert(what: str, field: str, value: Any, factor: float) -> Any:
    """Convert text, and numbers in other units, to a value that the field may have."""
    kind = FIELDS[field].kind
    if kind == FLAG:
        value = FLAGS.get(str(value).strip().lower(), value)
    elif kind == TEXT:
        # Only the change of a name is noted, later, with those of nodes that have no name.
        return str(value) if field == "name" else slug(str(value)) or value
    else:
        value = as_number(value) if isinstance(value, str) else value
        if isinstance(value, np.generic):
            value = value.item()
        require_number(what, value)
        value = value * factor
    FIELDS[field].require(what, value)
    return value


def slug(text: str) -> str:
    """Replace what a name may not contain: accents are dropped, other characters become _."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_")


def _complete(graph: "nx.Graph", notes: list[str]) -> None:
    """Fill in names, roles, speeds and capacities."""
    changed = []
    for node, data in graph.nodes(data=True):
        written = str(data.get("name", node))
        data["name"] = slug(written)
        if not data["name"]:
            raise ValueError(
                f"name of node {shown(node)} is {shown(written)}: must contain a letter or digit"
            )
        if data["name"] != written:
            changed.append(f"{shown(written)} is {data['name']}")
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        notes.append(f"name: only letters, digits, _ and - are kept: {changed[0]}{more}")

    def role(data: Attributes) -> str:
        found = role_of(data["name"])
        return found if found in ROLES else DEFAULT_ROLE

    _fill(graph, "role", role, f"the one in the name, else {DEFAULT_ROLE},", notes)
    for field in ("speed", "capacity"):

        def usual(data: Attributes, field: str = field) -> float:
            if data["role"] not in TYPICAL:
                raise ValueError(
                    f"node {data['name']} has no {field}: must have one with the role "
                    f"{data['role']!r} (only {', '.join(ROLES)} have a default)"
                )
            return TYPICAL[data["role"]][field]

        _fill(graph, field, usual, "that of the role", notes)


def _fill(
    graph: "nx.Graph",
    field: str,
    usual: Callable[[Attributes], Any],
    words: str,
    notes: list[str],
) -> None:
    lacking = [data for _, data in graph.nodes(data=True) if field not in data]
    for data in lacking:
        data[field] = usual(data)
    if lacking:
        notes.append(f"{field}: {words} for {len(lacking)} of {len(graph)} nodes")


def _place(graph: "nx.Graph", fit: float | None, notes: list[str]) -> None:
    """Set ``pos``, from x and y or by a layout, and scale it."""
    placed = {
        data["name"]: [axis for axis in "xy" if axis in data] for _, data in graph.nodes(data=True)
    }
    if any(placed.values()):
        for name, axes in placed.items():
            if len(axes) < 2:
                missing = "x" if "x" not in axes else "y"
                raise ValueError(f"node {name} has no {missing}: must be on all nodes or on none")
        place = np.array([(data.pop("x"), data.pop("y")) for _, data in graph.nodes(data=True)])
    elif len(graph):
        import networkx as nx

        fit = fit or SIDE
        layout: dict[Hashable, Any] = nx.spring_layout(nx.Graph(graph), seed=0)
        place = np.array([layout[node] for node in graph])
        notes.append(f"x, y: a layout by the links in a square of {fit:g} m")
    else:
        return
    if fit is not None:
        extent = float(np.ptp(place, axis=0).max())
        place = (place - place.min(axis=0)) * (fit / extent if extent else 1.0)
    for (x, y), (_, data) in zip(place.tolist(), graph.nodes(data=True), strict=True):
        data["pos"] = (x, y)
