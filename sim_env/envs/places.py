"""Places and sizes of the marks of a network on paper; lengths are in points."""

from collections.abc import Sequence

import networkx as nx
import numpy as np
from scipy.spatial import KDTree

from sim_env.network.topology import Topology

MARGIN, GAP = 26.0, 3.0  # around the network; between two marks
FONT = 8.5  # of names
# Places of a name beside its node, in order of preference.
SIDES = np.array(
    [(1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8)]
)
LINK_STEP = 4.0  # between sample points of links
# Cost of a name that covers such a point, or leaves the paper, in square points of a mark.
LINK_COST, EDGE_COST = 1.0, 1000.0
Box = tuple[float, float, float, float]
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


def beside(
    names: Sequence[str], place: np.ndarray, radius: np.ndarray, ends: np.ndarray, width: float
) -> np.ndarray:
    """Compute the middle of each name beside its node, shape (N, 2).

    There it covers the fewest marks, names and links.

    Parameters
    ----------
    names : sequence of str
    place, radius : array, shape (N, 2) and (N,)
        Of the nodes.
    ends : array, shape (L, 2, 2)
        Of the links.
    width : float
        Of the paper.
    """
    links = KDTree(_along(ends)) if len(ends) else None
    marks = [(*(p - r), *(p + r)) for p, r in zip(place, radius, strict=True)]
    taken = list(marks)
    for node, name in enumerate(names):
        half = np.array([0.31 * FONT * len(name), 0.55 * FONT])
        boxes = []
        for side in SIDES:
            middle = place[node] + side * (radius[node] + 2 + half)
            boxes.append((*(middle - half), *(middle + half)))
        best = min(
            boxes,
            key=lambda box: (
                sum(_overlap(box, other) for other in taken)
                + LINK_COST * (_inside(links, box) if links else 0)
                + EDGE_COST * (box[0] < 0 or box[2] > width)
            ),
        )
        taken.append(best)
    chosen = np.array(taken[len(marks) :]).reshape(-1, 4)
    return (chosen[:, :2] + chosen[:, 2:]) / 2


def _along(ends: np.ndarray) -> np.ndarray:
    """Sample points along lines of shape (L, 2, 2), `LINK_STEP` apart."""
    span = ends[:, 1] - ends[:, 0]
    steps = np.maximum(np.linalg.norm(span, axis=1) / LINK_STEP, 1).astype(int)
    line = np.repeat(np.arange(len(ends)), steps)
    part = (np.arange(len(line)) - np.repeat(np.cumsum(steps) - steps, steps)) / steps[line]
    return np.asarray(ends[line, 0] + part[:, None] * span[line])


def _inside(points: KDTree, box: Box) -> int:
    """Count the points in a box."""
    low, high = np.array(box[:2]), np.array(box[2:])
    near = points.data[points.query_ball_point((low + high) / 2, np.linalg.norm(high - low) / 2)]
    return int(((near >= low) & (near <= high)).all(axis=1).sum())


def _overlap(a: Box, b: Box) -> float:
    """Compute the area that two boxes (left, bottom, right, top) share."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(high, 0.0)
