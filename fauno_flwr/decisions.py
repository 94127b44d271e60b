"""What an agent has decided, as an update needs it."""

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
