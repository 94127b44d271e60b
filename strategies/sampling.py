"""How many nodes are drawn, by the arguments of Flower's FedAvg; and sorted lists of nodes."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np


def sample_size(fraction: float, least: int, nodes: int) -> int:
    """Return how many of so many nodes are drawn.

    Parameters
    ----------
    fraction : float
        Of the nodes, rounded down; 0: none.
    least : int
        Drawn in any case, if there are as many.
    nodes : int
        Nodes that take part.
    """
    return min(nodes, max(int(fraction * nodes), least)) if fraction > 0 else 0


def draw(nodes: Sequence[int], fraction: float, least: int, rng: np.random.Generator) -> set[int]:
    """Draw some of the nodes; see :func:`sample_size`."""
    drawn = rng.permutation(len(nodes))[: sample_size(fraction, least, len(nodes))]
    return {nodes[i] for i in drawn}


def add(ascending: list[int], value: int) -> None:
    """Add a number to a sorted list, unless it is in there."""
    place = bisect_left(ascending, value)
    if place == len(ascending) or ascending[place] != value:
        ascending.insert(place, value)


def discard(ascending: list[int], value: int) -> None:
    """Remove a number from a sorted list, if it is in there."""
    place = bisect_left(ascending, value)
    if place < len(ascending) and ascending[place] == value:
        del ascending[place]
