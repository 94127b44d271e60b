"""Transitions: the decisions of an agent in the order of time, as an update needs them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass
class Decisions:
    """R decisions of one agent, world by world, each world in the order of time.

    Parameters
    ----------
    local : array of float32, shape (R, F)
    destination : array of float32, shape (R, K, D)
    mask : array of bool, shape (R, K)
    action : array of int64, shape (R,)
    reward : array of float32, shape (R,)
        Reward of the ticks from this decision to the next one of the world.
    last : array of bool, shape (R,)
        Last decision of its world: its value bootstraps the one before it.
    terminal : array of bool, shape (R,), default all false
        Decision that ended an episode: the next row of its world is of another episode. (The last
        observation of a truncated episode is a ``last`` decision.)
    """

    local: np.ndarray
    destination: np.ndarray
    mask: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    last: np.ndarray
    terminal: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        if not len(self.terminal):
            self.terminal = np.zeros(len(self.action), np.bool_)

    def __len__(self) -> int:
        return len(self.action)

    def __getitem__(self, rows: np.ndarray | slice) -> "Decisions":
        """Select decisions by an index, slice or mask."""
        return Decisions(**{name: column[rows] for name, column in vars(self).items()})


def join(parts: Sequence[Decisions]) -> Decisions:
    """Concatenate decisions; slots that a part does not have are illegal and zero."""
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


def stack(
    batches: list[Decisions],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return padded tensors (A, R, ...) of all batches; in padding only slot 0 is legal."""
    rows = max(1, max(map(len, batches)))
    slots = max(batch.mask.shape[1] for batch in batches)
    count, features = len(batches), batches[0].destination.shape[2]
    local = torch.zeros(count, rows, batches[0].local.shape[1])
    destination = torch.zeros(count, rows, slots, features)
    mask = torch.zeros(count, rows, slots, dtype=torch.bool)
    action = torch.zeros(count, rows, dtype=torch.int64)
    mask[:, :, 0] = True
    for agent, batch in enumerate(batches):
        size, width = batch.mask.shape
        local[agent, :size] = torch.from_numpy(batch.local)
        destination[agent, :size, :width] = torch.from_numpy(batch.destination)
        mask[agent, :size, :width] = torch.from_numpy(batch.mask)
        action[agent, :size] = torch.from_numpy(batch.action)
    return local, destination, mask, action
