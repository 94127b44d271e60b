"""Differences of updates to the versions they started from, computed block by block.

A buffered update holds the arrays of its reply only: the difference is computed twice, once to
validate it and once to merge it, in blocks that stay in a core's cache. That is faster than once
into an array of float64, which would be twice the size of a model of float32.
"""

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from strategies.arrays import BLOCK, Block, Layout


class Difference(Protocol):
    """Difference of an update to the version it started from: a vector of P values."""

    def write(self, block: Block, out: np.ndarray) -> None:
        """Write a block of it into `out`, of shape ``(block.size,)``."""


class ArraysDifference:
    """Difference of trained arrays to the version that was sent.

    Parameters
    ----------
    layout : Layout
    arrays : mapping of str to array
        Trained arrays; they are not copied.
    base : array, shape (P,)
        The version that was sent.
    """

    def __init__(self, layout: Layout, arrays: Mapping[str, np.ndarray], base: np.ndarray) -> None:
        self._values = {name: arrays[name].reshape(-1) for name in layout.schema}
        self._base = base

    def write(self, block: Block, out: np.ndarray) -> None:
        """Write a block of it into `out`."""
        base = self._base[block.place]
        for name, values, place in block.parts:
            np.subtract(self._values[name][values], base[place], out=out[place], dtype=out.dtype)


class VectorDifference:
    """Difference that was sent as such.

    Parameters
    ----------
    vector : array of float64, shape (P,)
    """

    def __init__(self, vector: np.ndarray) -> None:
        self._vector = vector

    def write(self, block: Block, out: np.ndarray) -> None:
        """Write a block of it into `out`."""
        out[:] = self._vector[block.place]


def norm_of(difference: Difference, layout: Layout) -> float:
    """Compute the Euclidean norm of a difference; not a number if a value of it is not."""
    # In the precision of the arrays, and the squares in float64: they must not overflow.
    dtype = np.result_type(layout.dtype, np.float32)
    most = min(layout.size, BLOCK)
    values, exact = np.empty(most, dtype), np.empty(most)
    square = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for block in layout.blocks:
            sent, part = values[: block.size], exact[: block.size]
            difference.write(block, sent)
            np.copyto(part, sent)
            # Not by BLAS, whose threads wait for each other: several times the CPU time.
            square += float(np.einsum("i,i->", part, part))
    return math.sqrt(square) if square >= 0 else math.nan
