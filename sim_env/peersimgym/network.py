"""The network that a configuration dictionary of the original simulator describes."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from sim_env.errors import require_choice
from sim_env.memory import require_memory
from sim_env.network.files import linked_rows
from sim_env.network.graph import Topology, memory_needed
from sim_env.peersimgym.values import Values
from sim_env.scenario import PhysicsSpec

SIDE = 100.0  # metres
CHANNELS = ("WirelessSNR", "OpticalFiberSNR")
DEFAULT_SEED = 1234567890


def build_network(values: Values, scale: int, *, undivided: bool) -> tuple[Topology, np.ndarray]:
    """Build nodes and links.

    Parameters
    ----------
    values : Values
    scale : int
        Ticks per second.
    undivided : bool
        Whether ``MANUAL_FREQS`` are instructions per tick and core, not per second.

    Returns
    -------
    topology : Topology
        Random values of the original are drawn from ``random.seed``.
    layer : array of int, shape (N,)
        Layer of each node.
    """
    layer = _layers(values)
    rng = np.random.default_rng(values.whole("random.seed", DEFAULT_SEED, at_least=0))
    manual = values.flag("MANUAL_CONFIG", False)
    random_places = values.flag("RANDOMIZEPOSITIONS", not manual)
    random_links = values.flag("RANDOMIZETOPOLOGY", not manual)
    if manual and random_places:
        raise values.error("RANDOMIZEPOSITIONS", "false when MANUAL_CONFIG is true")
    if manual and random_links:
        raise values.error("RANDOMIZETOPOLOGY", "false when MANUAL_CONFIG is true")
    power, capacity = _machines(values, layer, scale, rng, manual=manual, undivided=undivided)
    place = rng.random((len(layer), 2)) * SIDE if random_places else _places(values, len(layer))
    if random_links:
        reach = values.number("init.Net1.r", 500.0, above=0)
        rows = linked_rows(len(layer), _within(place, layer, reach))
    else:
        rows = linked_rows(len(layer), _written_links(values, len(layer)))
    agents = np.zeros(len(layer), bool)
    agents[values.wholes("CONTROLLERS", at_least=0, at_most=len(layer) - 1)] = True
    try:
        topology = Topology(
            names=[f"node_{node}" for node in range(len(layer))],
            roles=["worker"] * len(layer),
            speed=power * scale,
            capacity=capacity,
            position=place,
            neighbours=rows,
            is_agent=agents,
            is_source=_sources(values, layer, rows),
        )
    except ValueError as error:
        hint = "; another random.seed or a larger init.Net1.r may help" if random_links else ""
        raise ValueError(f"{values.where}: {error}{hint}") from error
    return topology, layer


def _layers(values: Values) -> np.ndarray:
    size = values.whole("SIZE", at_least=1)
    sizes = values.wholes("NO_NODES_PER_LAYERS", at_least=0)
    if sum(sizes) != size:
        raise values.error("NO_NODES_PER_LAYERS", f"layers that hold SIZE = {size} nodes together")
    if values.whole("NO_LAYERS", len(sizes)) != len(sizes):
        raise values.error("NO_LAYERS", f"{len(sizes)}, as NO_NODES_PER_LAYERS has")
    require_memory(f"{values.where}: SIZE is {size}: a network of so many nodes", 300.0 * size)
    return np.repeat(np.arange(len(sizes)), sizes)


def _num_layers(values: Values) -> int:
    return len(values.wholes("NO_NODES_PER_LAYERS"))


def _machines(
    values: Values,
    layer: np.ndarray,
    scale: int,
    rng: np.random.Generator,
    *,
    manual: bool,
    undivided: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Read instructions per tick and queue capacity of each node."""
    prefix = ("MANUAL_FREQS", "MANUAL_CORES", "MANUAL_QMAX")
    speeds, cores, room = prefix if manual else ("FREQS", "NO_CORES", "Q_MAX")
    speed = _per_node(values, speeds, values.numbers(speeds, above=0), layer)
    if not (manual and undivided):
        speed = np.floor(speed / scale)
    if "VARIATIONS" in values:
        most = values.numbers("VARIATIONS", at_least=0)
        # One draw for all nodes of a layer.
        speed = speed - _per_node(values, "VARIATIONS", [rng.uniform(-v, v) for v in most], layer)
    power = np.floor(_per_node(values, cores, values.wholes(cores, at_least=1), layer) * speed)
    if power.min() < 1:
        raise values.error(speeds, "at least 1 instruction in every tick")
    capacity = _per_node(values, room, values.wholes(room, at_least=1), layer)
    return power, capacity.astype(int)


def _per_node(values: Values, key: str, entries: list, layer: np.ndarray) -> np.ndarray:
    """Assign the entries of layers (or of nodes) to the nodes."""
    layers = _num_layers(values)
    if len(entries) == len(layer):
        return np.asarray(entries, float)
    if len(entries) != layers:
        raise values.error(key, f"{layers} entries, one for each layer, not {len(entries)}")
    return np.asarray(entries, float)[layer]


def _places(values: Values, size: int) -> np.ndarray:
    key = "init.Net0.POSITIONS"
    rows = values.rows(key)
    if len(rows) != size or any(len(row) != 2 for row in rows):
        raise values.error(key, f"{size} places x,y with semicolons between them, not {len(rows)}")
    return np.array(rows)


def _written_links(values: Values, size: int) -> Iterable[tuple[int, int]]:
    key = "init.Net1.TOPOLOGY"
    rows = values.rows(key)
    if len(rows) != size:
        raise values.error(key, f"{size} rows, one for each node, not {len(rows)}")
    for node, row in enumerate(rows):
        if not row or row[0] != node:
            raise values.error(key, f"rows that begin with their own node, in order (row {node})")
        for other in row[1:]:
            if other not in range(size):
                raise values.error(key, f"nodes 0 to {size - 1} (row {node} names {other:g})")
            yield node, int(other)


def _within(place: np.ndarray, layer: np.ndarray, reach: float) -> Iterable[tuple[int, int]]:
    """Yield the pairs closer than `reach` in the same layer or in adjacent ones."""
    nodes, share = len(layer), min(np.pi * reach**2 / SIDE**2, 1.0)
    require_memory(
        f"a network of {nodes:,} nodes with links within {reach:g} m",
        memory_needed(nodes, share * nodes**2),
    )
    for node in range(nodes):
        near = np.hypot(*(place - place[node]).T) < reach
        for other in np.flatnonzero(near & (np.abs(layer - layer[node]) <= 1)):
            yield node, int(other)


def _sources(values: Values, layer: np.ndarray, rows: list[list[int]]) -> np.ndarray:
    """Find the nodes with a client that creates tasks for the node itself.

    Of the original's clients only those can be represented: a client creates tasks for its own node
    and, when those are not due, for its neighbours that are sources too.
    """
    last = _num_layers(values) - 1
    key = "layersThatGetTasks"
    gets = np.isin(layer, values.wholes(key, at_least=0, at_most=last))
    makes = gets
    if "clientLayers" in values:
        makes = np.isin(layer, values.wholes("clientLayers", at_least=0, at_most=last))
    own = values.flag("clientIsSelf", True)
    sources = makes & gets
    if not sources.any():
        raise values.error(key, "layers of clientLayers too: no node has a client and gets tasks")
    for node in np.flatnonzero(makes if not own else sources):
        if any(gets[other] and not (own and sources[other]) for other in rows[node]):
            raise values.error(
                key,
                f"the layers of clientLayers, with clientIsSelf 1: node {node} makes tasks that "
                f"only its neighbours get",
            )
    return sources


def add_links(
    values: Values, topology: Topology, layer: np.ndarray, physics: PhysicsSpec
) -> PhysicsSpec:
    """Return the physics with the links of the dictionary: bandwidth, power, kind of channel."""
    bandwidth = values.number("protocol.props.B", 2.0, above=0) * 1e6
    power = values.number("protocol.props.P_ti", 20.0)
    if _channel(values, topology, layer) == "WirelessSNR":
        return replace(physics, bandwidth=bandwidth, power=power)
    ratio = 10 ** (values.number("protocol.urt.SNR", 45.0) / 10)
    rate = bandwidth * math.log2(1 + ratio)
    return replace(
        physics,
        link="fixed",
        rate=rate,
        latency=0.0,
        server_rate=rate,
        server_latency=0.0,
        noise_bandwidth=PhysicsSpec.noise_bandwidth,  # has no effect on fixed links
    )


def _channel(values: Values, topology: Topology, layer: np.ndarray) -> str:
    """Return the kind of channel of all links."""
    key, matrix_key = "protocol.urt.channelTypes", "protocol.urt.channelTypesBetweenLayers"
    types = [part.strip().rsplit(".", 1)[-1] for part in values.text(key, CHANNELS[0]).split(";")]
    for name in types:
        require_choice(f"{values.where}: {key}", name, CHANNELS)
    if matrix_key not in values or values.flag("RANDOMIZETOPOLOGY", False):
        return types[0]  # as the original does for links that it draws
    layers = _num_layers(values)
    matrix = values.rows(matrix_key)
    if len(matrix) != layers or any(len(row) != layers for row in matrix):
        raise values.error(matrix_key, f"{layers} rows of {layers} numbers, one for each layer")
    used = {matrix[layer[a]][layer[b]] for a, row in enumerate(topology.neighbours) for b in row}
    if not used <= set(range(len(types))):
        raise values.error(matrix_key, f"0 to {len(types) - 1} between layers with a link")
    kinds = {types[int(index)] for index in used} or {types[0]}
    if len(kinds) > 1:
        raise values.error(matrix_key, "the same kind of channel for all links in this simulator")
    return kinds.pop()
