"""What an agent has decided, as an update needs it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Decisions:
    """R decisions of one agent, world after world, each world in the order of time.

    Parameters
    ----------
    local : array of float32, shape (R, F)
    destination : array of float32, shape (R, K, D)
    mask : array of bool, shape (R, K)
    action : array of int64, shape (R,)
    reward : array of float32, shape (R,)
        Of the ticks from this decision to the next one of the world.
    last : array of bool, shape (R,)
        Last decision of its world: its value is what the one before it is bootstrapped with.
    """

    local: np.ndarray
    destination: np.ndarray
    mask: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.action)

    def __getitem__(self, rows: np.ndarray | slice) -> "Decisions":
        """The decisions that an index, slice or mask selects."""
        return Decisions(**{name: column[rows] for name, column in vars(self).items()})


def join(parts: Sequence[Decisions]) -> Decisions:
    """Decisions one after another; slots that a part does not have are illegal and zero."""
    slots = max(part.mask.shape[1] for part in parts)
    columns = {
        name: np.concatenate([_widen(getattr(part, name), name, slots) for part in parts])
        for name in vars(parts[0])
    }
    return Decisions(**columns)


def _widen(column: np.ndarray, name: str, slots: int) -> np.ndarray:
    if name not in ("destination", "mask") or column.shape[1] == slots:
        return column
    wide = np.zeros((len(column), slots, *column.shape[2:]), column.dtype)
    wide[:, : column.shape[1]] = column
    return wide
