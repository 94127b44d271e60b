"""Generators of networks: Ether's star of stars, and the flat ones of PeersimGym.

The flat networks have NUCs and Raspberry Pis of three tiers, a third each, and all of their nodes
decide. From 10 to 47 nodes there are five NUCs, as in PeersimGym; smaller networks have half as
many NUCs as nodes, larger ones an eighth.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sim_env.network.graph import SOURCE_ROLE, TIERS, Topology, neighbour_rows, parts

# Raspberry Pis of each cluster, and how many of each tier, in the published heterogeneous
# Ether networks of 1 to 4 clusters (8, 23, 32 and 45 nodes).
PUBLISHED_CLUSTERS = {1: (4,), 2: (6, 10), 3: (6, 6, 10), 4: (8, 8, 8, 8)}
CLUSTER_SIZE = 8  # Raspberry Pis of each cluster of other networks
PUBLISHED_TIERS = {1: (2, 2, 0), 2: (4, 7, 5), 3: (8, 9, 5), 4: (11, 10, 11)}
SERVER_POSITION = (65.0, 65.0)
SIDE = 100.0  # metres
GRID_COLUMNS, GRID_SPACING = 5, 10.0  # fewest columns of a large grid, metres


def ether(clusters: int, memory_per_task: float, seed: int) -> Topology:
    """Build a star of stars after Ether's urban sensing scenario, as in PeersimGym and FAuNO.

    In each cluster the Raspberry Pis and two TX2 are linked to the cluster's NUC; every node of
    every cluster, the NUC too, is linked to the one server. TX2 work but do not decide.

    Parameters
    ----------
    clusters : int
        1, 2, 3 and 4 give the published 8, 23, 32 and 45 nodes; each further one has 11 nodes.
    memory_per_task : float
        Bytes; capacity = round(memory of the tier / this).
    seed : int
        Seed of the places and of the order of the tiers.
    """
    rng = np.random.default_rng([seed, clusters])
    sizes = PUBLISHED_CLUSTERS.get(clusters, (CLUSTER_SIZE,) * clusters)
    pis = _rpi_tiers(sum(sizes), PUBLISHED_TIERS.get(clusters), rng)
    tiers: list[str] = []
    place: list[np.ndarray] = []
    edges: list[tuple[int, int]] = []
    for cluster, size in enumerate(sizes):
        angle = 2 * np.pi * (cluster + 0.5) / clusters + np.pi / 2
        centre = 50 + 33 * np.array([np.cos(angle), np.sin(angle)])
        first, nuc = len(tiers), len(tiers) + size
        tiers += [pis.pop() for _ in range(size)] + ["nuc", "tx2", "tx2"]
        reach = np.concatenate([rng.uniform(8, 28, size), [0.0], rng.uniform(2, 6, 2)])
        turn = rng.uniform(0, 2 * np.pi, size + 3)
        offset = reach[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        place += list(np.clip(centre + offset, 0, SIDE))
        edges += [(node, nuc) for node in range(first, nuc + 3) if node != nuc]
    server = len(tiers)
    edges += [(node, server) for node in range(server)]
    place.append(np.array(SERVER_POSITION))
    return _assemble(
        [*tiers, "server"],
        np.array(place),
        np.array(edges),
        memory_per_task,
        ("rpi", "nuc", "server"),
    )


def num_pis(clusters: int) -> int:
    """Return the number of Raspberry Pis of an Ether network."""
    published = PUBLISHED_CLUSTERS.get(clusters)
    return sum(published) if published else CLUSTER_SIZE * clusters


def random_geometric(nodes: int, radius: float, memory_per_task: float, seed: int) -> Topology:
    """Place nodes at random in a square of 100 m; link those closer than `radius` metres.

    A node without any link is linked to the nearest one, as in PeersimGym.

    Raises
    ------
    ValueError
        If the network is not connected.
    """
    from scipy.spatial import cKDTree  # slow to import, and few networks need it

    rng = np.random.default_rng([seed, nodes])
    tiers = _flat_tiers(nodes, rng)
    place = rng.uniform(0, SIDE, (nodes, 2))
    tree = cKDTree(place)
    pairs = tree.query_pairs(radius, output_type="ndarray")
    pairs = pairs[np.linalg.norm(place[pairs[:, 0]] - place[pairs[:, 1]], axis=1) < radius]
    lonely = np.setdiff1d(np.arange(nodes), pairs)
    nearest = np.asarray(tree.query(place[lonely], k=2)[1])[:, 1]  # the first is the node itself
    edges = np.concatenate([pairs, np.stack([lonely, nearest], axis=1)])
    pieces = parts(nodes, edges[:, 0], edges[:, 1]).max() + 1
    if pieces > 1:
        raise ValueError(
            f"topology.radius is {radius!r}: the random network of {nodes} nodes with seed {seed} "
            f"falls into {pieces} parts, it must be connected (take a larger radius or another "
            f"seed)"
        )
    return _assemble(tiers, place, edges, memory_per_task)


def grid(nodes: int, memory_per_task: float, seed: int) -> Topology:
    """Build a grid, 10 m apart; a node is linked to the next ones in its row and column.

    Five columns, more when there are over 25 nodes so that the grid is about square; the last row
    may be shorter. (In PeersimGym's grids, by a reversed comparison, all nodes of a column are
    linked; read their files for that.)
    """
    rng = np.random.default_rng([seed, nodes])
    tiers = _shuffled(_flat_tiers(nodes, rng), rng)
    columns = max(GRID_COLUMNS, int(np.ceil(np.sqrt(nodes))))
    node = np.arange(nodes)
    row, column = np.divmod(node, columns)
    right = node[(column < columns - 1) & (node + 1 < nodes)]
    below = node[node + columns < nodes]
    edges = np.concatenate(
        [np.stack([right, right + 1], axis=1), np.stack([below, below + columns], axis=1)]
    )
    place = GRID_SPACING * np.stack([column, row], axis=1)
    return _assemble(tiers, place, edges, memory_per_task)


def ring(nodes: int, memory_per_task: float, seed: int) -> Topology:
    """Build a circle with a radius of 50 m; each node is linked to the two beside it."""
    rng = np.random.default_rng([seed, nodes])
    tiers = _shuffled(_flat_tiers(nodes, rng), rng)
    node = np.arange(nodes)
    edges = np.stack([node, np.roll(node, -1)], axis=1)
    return _assemble(tiers, _circle(nodes), edges, memory_per_task)


def full(nodes: int, memory_per_task: float, seed: int) -> Topology:
    """Build a circle with a radius of 50 m; each node is linked to all others."""
    rng = np.random.default_rng([seed, nodes])
    tiers = _shuffled(_flat_tiers(nodes, rng), rng)
    return _assemble(tiers, _circle(nodes), _clique(np.arange(nodes)), memory_per_task)


def bridged(nodes: int, memory_per_task: float, seed: int) -> Topology:
    """Build two cliques, joined by one link between their two closest nodes.

    All NUCs and 40 % of the Raspberry Pis are in the left half of a square of 100 m, the other
    Raspberry Pis in the right half, as in PeersimGym.
    """
    from scipy.spatial import cKDTree

    rng = np.random.default_rng([seed, nodes])
    tiers = _flat_tiers(nodes, rng)
    left = left_clique(nodes)
    place = rng.uniform(0, SIDE, (nodes, 2)) / (2, 1)
    place[left:, 0] += SIDE / 2
    apart, closest = cKDTree(place[:left]).query(place[left:])
    joint = int(np.argmin(apart))
    bridge = np.array([[np.asarray(closest)[joint], left + joint]])
    edges = [_clique(np.arange(left)), _clique(np.arange(left, nodes)), bridge]
    return _assemble(tiers, place, np.concatenate(edges), memory_per_task)


def left_clique(nodes: int) -> int:
    """Return the number of nodes of the first clique of a bridged network."""
    nucs = num_nucs(nodes)
    return nucs + round(0.4 * (nodes - nucs))


def num_nucs(nodes: int) -> int:
    """Return the number of NUCs of a flat network."""
    return min(nodes // 2, max(5, nodes // 8))


def _flat_tiers(nodes: int, rng: np.random.Generator) -> list[str]:
    """List the NUCs, then the Raspberry Pis in random order."""
    nucs = num_nucs(nodes)
    return ["nuc"] * nucs + _rpi_tiers(nodes - nucs, None, rng)


def _rpi_tiers(
    count: int, split: tuple[int, int, int] | None, rng: np.random.Generator
) -> list[str]:
    """Draw `count` Raspberry Pis of the three tiers in random order; thirds without a split."""
    four, five = split[:2] if split else (round(count / 3), round(count / 3))
    tiers = ["rpi4"] * four + ["rpi5-6g"] * five
    tiers += ["rpi5-8g"] * (count - len(tiers))
    return _shuffled(tiers, rng)


def _shuffled(tiers: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [tiers[i] for i in rng.permutation(len(tiers))]


def _circle(nodes: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(nodes) / nodes
    return SIDE / 2 * (1 + np.stack([np.cos(angle), np.sin(angle)], axis=1))


def _clique(nodes: np.ndarray) -> np.ndarray:
    """List all pairs of the nodes, shape (E, 2)."""
    return nodes[np.stack(np.triu_indices(len(nodes), 1), axis=1)]


def _assemble(
    tiers: Sequence[str],
    position: np.ndarray,
    edges: np.ndarray,
    memory_per_task: float,
    agent_roles: Sequence[str] = ("rpi", "nuc"),
) -> Topology:
    """Assemble tiers and places into a topology; names are ``role_0``, ``role_1``, ..."""
    roles = [TIERS[tier].role for tier in tiers]
    met: Counter[str] = Counter()
    names = []
    for role in roles:
        names.append(f"{role}_{met[role]}")
        met[role] += 1
    return Topology(
        names=names,
        roles=roles,
        speed=np.array([TIERS[tier].speed for tier in tiers]),
        capacity=np.rint([TIERS[tier].memory / memory_per_task for tier in tiers]),
        position=position,
        neighbours=neighbour_rows(len(tiers), edges),
        is_agent=np.isin(roles, agent_roles),
        is_source=np.array(roles) == SOURCE_ROLE,
    )
