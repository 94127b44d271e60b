"""Places and sizes of the marks of a network on paper; lengths are in points."""

import networkx as nx
import numpy as np
from scipy.spatial import KDTree

from sim_env.network.topology import Topology

MARGIN, GAP = 26.0, 3.0  # around the network; between two marks
PUSHES = 100  # rounds in which marks that cover each other are pushed apart
MOST_PUSHED = 500  # nodes; in larger networks pushing would distort the whole picture
MOST_UNFOLDED = 200  # nodes; the time of the best layout grows with their cube


def radii(topology: Topology, paper: np.ndarray) -> np.ndarray:
    """Compute the radius of each mark: the area grows with the square root of the speed."""
    typical = np.clip(0.2 * np.sqrt(paper.prod() / topology.num_nodes), 1.5, 7.0)
    relative = np.asarray(topology.speed, float) / np.median(topology.speed)
    return np.asarray(typical * np.clip(relative**0.25, 0.6, 2.2))


def places(
    topology: Topology, paper: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, float | None]:
    """Compute the places of the nodes on paper, shape (N, 2), and points per metre.

    Nodes that share a place are laid out by their links, without a scale. Overlapping marks are
    pushed apart, except in very large networks.
    """
    position = np.asarray(topology.position, float)
    _, which, count = np.unique(position, axis=0, return_inverse=True, return_counts=True)
    alone = np.flatnonzero(count[which.ravel()] == 1)
    to_scale = len(alone) == len(position)
    if not to_scale:
        graph, fixed = topology.to_networkx(), alone.tolist()
        if fixed or len(position) > MOST_UNFOLDED:
            known = {node: position[node] for node in fixed}
            spread = nx.spring_layout(graph, pos=known or None, fixed=fixed or None, seed=0)
        else:
            spread = nx.kamada_kawai_layout(graph)
        position = np.array([spread[node] for node in range(len(position))])
    low, extent = position.min(axis=0), np.ptp(position, axis=0)
    room = paper - 2 * MARGIN
    metre = float(np.min(room / np.maximum(extent, 1e-9)))
    place = MARGIN + (position - low) * metre + (room - extent * metre) / 2
    if len(place) <= MOST_PUSHED:
        place = _push_apart(place, radius)
    return place, metre if to_scale and extent.any() else None


def _push_apart(place: np.ndarray, radius: np.ndarray) -> np.ndarray:
    place = place.copy()
    for _ in range(PUSHES):
        pairs = KDTree(place).query_pairs(2 * radius.max() + GAP, output_type="ndarray")
        a, b = pairs.T
        apart = place[b] - place[a]
        distance = np.linalg.norm(apart, axis=1)
        missing = np.maximum(radius[a] + radius[b] + GAP - distance, 0.0)
        push = apart * (missing / np.maximum(distance, 1e-9) / 2)[:, None]
        np.add.at(place, a, -push / 2)
        np.add.at(place, b, push / 2)
        if not missing.any():
            break
    return place
