"""The versions of the model: the newest, and the older ones that updates still refer to."""

from collections.abc import Iterable, Sequence
from logging import ERROR

import numpy as np
from flwr.app import ArrayRecord
from flwr.common.logger import log

from strategies.arrays import Layout, to_arrays, to_record
from strategies.buffer import Update
from strategies.merge import ELEMENTWISE, MergeRule
from strategies.optimizers import ServerOptimizer


def read_initial(initial_arrays: ArrayRecord) -> tuple[Layout, np.ndarray]:
    """Return the layout of the initial arrays, and their vector.

    Raises
    ------
    ValueError
        If they are empty, not finite, or not of real numbers.
    """
    arrays = to_arrays(initial_arrays)
    layout = Layout(arrays)
    if layout.size == 0:
        raise ValueError(
            "initial_arrays holds no value, as for a model that grows: versions are made of "
            "differences, so all arrays must have their final shapes; for trees of xgboost "
            "there is flwr.serverapp.strategy.FedXgbBagging"
        )
    vector = layout.flatten(arrays)
    if not np.all(np.isfinite(vector)):
        raise ValueError("initial_arrays holds a value that is not finite")
    return layout, vector


class Versions:
    """Versions as vectors; the first one is the initial arrays.

    Parameters
    ----------
    initial_arrays : ArrayRecord
    first : int, default 0
        Number of the first version.

    Attributes
    ----------
    newest : int
    layout : Layout
    bases : dict of int to array of shape (P,)
        Vector of each version in use.
    norm : float
        Of the initial arrays.
    merged : tuple of float and array of shape (K,), optional
        Norm of the last merged difference, and the weights of its updates; None before the first.

    Raises
    ------
    ValueError
        As :func:`read_initial`.
    """

    def __init__(self, initial_arrays: ArrayRecord, first: int = 0) -> None:
        self.layout, vector = read_initial(initial_arrays)
        self.newest = first
        self.bases = {first: vector}
        self.norm = float(np.linalg.norm(vector))
        self.merged: tuple[float, np.ndarray] | None = None

    def merge(
        self,
        updates: Sequence[Update],
        weights: np.ndarray,
        rule: MergeRule,
        optimizer: ServerOptimizer,
        relative_to_newest: bool,
    ) -> ArrayRecord | None:
        """Compute the arrays of the next version; it becomes one by :meth:`add`.

        Parameters
        ----------
        updates : sequence of Update
        weights : array of float64, shape (K,)
        rule : callable
            See :mod:`strategies.merge`.
        optimizer : ServerOptimizer
        relative_to_newest : bool
            Take the differences to the newest version instead of the base of each update.

        Returns
        -------
        ArrayRecord or None
            None if the arrays would not be finite; the optimiser is then left as it was.
        """
        theta = self.bases[self.newest].astype(np.float64)
        origin = theta if relative_to_newest else None
        before = {name: array.copy() for name, array in optimizer.state.items()}
        with np.errstate(over="ignore", invalid="ignore"):
            delta = self._merged(updates, weights, rule, origin)
            self.merged = float(np.linalg.norm(delta)), weights
            arrays = self.layout.unflatten(optimizer.step(theta, delta))
        if not all(np.all(np.isfinite(array)) for array in arrays.values()):
            log(ERROR, "version %s would not be finite: its updates are discarded", self.newest + 1)
            optimizer.state.clear()
            optimizer.state.update(before)
            return None
        return to_record(arrays)

    def _merged(
        self,
        updates: Sequence[Update],
        weights: np.ndarray,
        rule: MergeRule,
        origin: np.ndarray | None,
    ) -> np.ndarray:
        """Merge the differences to `origin`, or to the base of each update."""
        layout = self.layout
        blocks = layout.blocks if type(rule) in ELEMENTWISE else (layout.whole,)
        merged = np.empty(layout.size)
        deltas = [np.empty(blocks[0].size) for _ in updates]
        for block in blocks:
            parts = [delta[: block.size] for delta in deltas]
            for update, part in zip(updates, parts, strict=True):
                update.write(block, part)
                if origin is not None:
                    part += self.bases[update.base_version][block.place] - origin[block.place]
            merged[block.place] = rule(parts, weights)
        return merged

    def add(self, arrays: ArrayRecord) -> None:
        """Make these arrays the newest version."""
        self.newest += 1
        self.bases[self.newest] = self.layout.flatten(to_arrays(arrays))

    def forget(self, unused: Iterable[int]) -> None:
        """Remove these versions, except the newest."""
        for version in unused:
            if version != self.newest:
                self.bases.pop(version, None)

    def load(self, newest: int, bases: dict[int, np.ndarray]) -> ArrayRecord:
        """Restore versions from a checkpoint; return the arrays of the newest."""
        self.newest, self.bases = newest, bases
        return to_record(self.layout.unflatten(bases[newest]))
