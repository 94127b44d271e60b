"""Networks from files: the plain format, or the JSON of Ether, as PeersimGym and FAuNO use it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sim_env.errors import require_number, require_path, shown
from sim_env.network.graph import ROLES, SOURCE_ROLE, Topology
from sim_env.network.plain import from_plain

SIDE = 100.0  # metres
FARTHEST = 1e12  # coordinate in a file, in whatever unit
AGENT_WORDS = ("rpi", "nuc", "server")
OTHER_ROLE = "worker"
MEMORY_PER_TASK = 320e6  # bytes


def read_topology(path: str | Path, memory_per_task: float = MEMORY_PER_TASK) -> Topology:
    """Read a topology file: the plain format, or an Ether topology file.

    Parameters
    ----------
    path : str or Path
        JSON as :func:`sim_env.network.plain.json_schema` describes it, or as
        :func:`read_ether_json` reads it.
    memory_per_task : float, default 320e6
        Bytes that one queued task takes; of Ether files only.

    Raises
    ------
    ValueError
        One sentence with the file, the node or link, its value and what is allowed. Also for a
        `memory_per_task` of one's own with a file of the plain format, which states capacities.
    """
    content = _load(path)
    if "format" not in content and isinstance(content.get("nodes", {}), Mapping):
        return read_ether_json(path, memory_per_task)
    if memory_per_task != MEMORY_PER_TASK:
        raise ValueError(
            f"topology.memory_per_task is {memory_per_task!r}: must be {MEMORY_PER_TASK!r}, the "
            f"default, with topology file {str(path)!r}, which states the capacity of each node"
        )
    return from_plain(content, f"topology file {str(path)!r}")


def read_ether_json(
    path: str | Path,
    memory_per_task: float = MEMORY_PER_TASK,
    speed_per_millicpu: float = 1e4,
) -> Topology:
    """Read an Ether topology file.

    Parameters
    ----------
    path : str or Path
        JSON with ``nodes`` (name: ``id``, ``coordinates``, ``capacity`` with ``cpu_milis`` and
        ``memory``) and ``links.neighbours`` (id: ids). The bandwidths in it are not used.
    memory_per_task : float, default 320e6
        Bytes that one queued task takes: capacity = round(memory / this).
    speed_per_millicpu : float, default 1e4
        Instructions per second of a milli-CPU. The original executes 1000 per tick of any length;
        the default is that for ticks of 0.1 s.

    Returns
    -------
    Topology
        Nodes in the order of the file. The role is the one of ``rpi``, ``tx2``, ``nuc``,
        ``server`` that the name begins with (or else contains, or else ``worker``). Tasks are born
        at nodes with ``rpi`` in the name, those with ``rpi``, ``nuc`` or ``server`` decide.
        Coordinates are stretched to 0..100 m in x and in y; a node in the place of an earlier one
        is shifted by (1, 1). Neighbours have the order of :func:`linked_rows`, applied twice as in
        the original: once over ``links.neighbours``, and once over the nodes in the order of the
        file.

    Raises
    ------
    ValueError
        For a file that cannot be read, is not JSON or not a topology (names the missing or
        impossible value, and its place), or whose network is not connected.
    """
    content = _load(path)
    where = f"topology file {str(path)!r}"
    require_number("memory per task", memory_per_task, above=0)
    require_number("speed per milli-CPU", speed_per_millicpu, above=0)
    nodes = _mapping(content, "nodes", where)
    links = _mapping(_mapping(content, "links", where), "neighbours", f"{where}: links")
    if not nodes:
        raise ValueError(f"{where}: nodes is {{}}: must have at least one node")
    index: dict[str, int] = {}
    speed, capacity, place = [], [], []
    for name, node in nodes.items():
        at = f"{where}: node {shown(' '.join(name.split()))[1:-1]}"
        if not isinstance(node, Mapping):
            raise ValueError(
                f"{at} is {shown(node)}: must be a mapping with id, coordinates, capacity"
            )
        identity = str(_value(node, "id", at))
        if identity in index:
            raise ValueError(
                f"{at} has the id {shown(identity)[1:-1]} of an earlier node: must be its own"
            )
        index[identity] = len(index)
        means = _mapping(node, "capacity", at)
        millicpu = _positive(means, "cpu_milis", f"{at}: capacity")
        speed.append(millicpu * speed_per_millicpu)
        capacity.append(_positive(means, "memory", f"{at}: capacity") / memory_per_task)
        place.append(_coordinates(node, at))
    names = list(nodes)
    return Topology(
        names=names,
        roles=[role_of(name) for name in names],
        speed=np.array(speed),
        capacity=np.rint(capacity),
        position=_projected(np.array(place).reshape(-1, 2)),
        neighbours=_neighbours(links, index, where),
        is_agent=np.array([any(word in name for word in AGENT_WORDS) for name in names], bool),
        is_source=np.array([SOURCE_ROLE in name for name in names], bool),
    )


def role_of(name: str) -> str:
    """Return the role that a node's name begins with, or else contains; ``worker`` if none."""
    known = [role for role in ROLES if name.startswith(role)] or [r for r in ROLES if r in name]
    return known[0] if known else OTHER_ROLE


def _load(path: str | Path) -> Mapping[str, Any]:
    file = require_path("path of the topology", path)
    try:
        content = json.loads(file.read_bytes(), object_pairs_hook=_without_repeats)
    except OSError as error:
        raise ValueError(
            f"topology file {str(path)!r} cannot be read ({error.strerror}): must be a topology "
            f"in JSON"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"topology file {str(path)!r} is not JSON ({error}): must be a topology in JSON"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"topology file {str(path)!r} holds a {type(content).__name__}: must be a mapping "
            f"with nodes and links"
        )
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a mapping; raise ``ValueError`` for a key that is there twice: one would be ignored."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {shown(repeated)} is there twice in one object")
    return mapping


def _value(mapping: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in mapping:
        raise ValueError(f"{where} has no key {key!r}: must be an Ether topology")
    return mapping[key]


def _mapping(mapping: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = _value(mapping, key, where)
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {key} is {shown(value)}: must be a mapping")
    return value


def _positive(mapping: Mapping[str, Any], key: str, where: str) -> float:
    value = _value(mapping, key, where)
    require_number(f"{where}: {key}", value, above=0)
    return float(value)


def _coordinates(node: Mapping[str, Any], where: str) -> tuple[float, float]:
    value = _value(node, "coordinates", where)
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{where}: coordinates are {shown(value)}: must be a list of two numbers")
    for axis, number in zip("xy", value, strict=True):
        require_number(f"{where}: {axis}", number, at_least=-FARTHEST, at_most=FARTHEST)
    return float(value[0]), float(value[1])


def _projected(place: np.ndarray) -> np.ndarray:
    """Stretch places to 0..100 in x and y (a line stays at 0) and separate nodes that share one."""
    low, extent = place.min(axis=0), np.ptp(place, axis=0)
    taken: dict[tuple[float, float], None] = {}
    for x, y in ((place - low) / np.where(extent > 0, extent, 1.0) * SIDE).tolist():
        while (x, y) in taken:
            x, y = x + 1, y + 1
        taken[x, y] = None
    return np.array(list(taken))


def _neighbours(links: Mapping[str, Any], index: Mapping[str, int], where: str) -> list[list[int]]:
    pairs = []
    for identity, others in links.items():
        if identity not in index:
            raise ValueError(
                f"{where}: links are those of {shown(identity)}: must be the id of a node"
            )
        if not isinstance(others, list):
            raise ValueError(
                f"{where}: neighbours of {shown(identity)} are {shown(others)}: must be a list of "
                f"ids"
            )
        for other in others:
            if str(other) not in index:
                raise ValueError(
                    f"{where}: node {shown(identity)} names neighbour {shown(other)}: must be "
                    f"the id of a node"
                )
            pairs.append((index[identity], index[str(other)]))
    read = linked_rows(len(index), pairs)
    return linked_rows(len(index), ((a, b) for a, row in enumerate(read) for b in row))


def linked_rows(num_nodes: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """List the neighbours of each node in the order in which a pair first names them.

    Parameters
    ----------
    num_nodes : int
    pairs : iterable of (int, int)
        In either direction, repeated or not; a node with itself is skipped.
    """
    rows: list[dict[int, None]] = [{} for _ in range(num_nodes)]
    for a, b in pairs:
        if a != b:
            rows[b][a] = rows[a][b] = None
    return [list(row) for row in rows]
