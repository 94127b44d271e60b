"""From buffered updates to the next version."""

from collections.abc import Mapping, Sequence

import numpy as np

from strategies.arrays import Arrays
from strategies.buffer import Update
from strategies.staleness import StalenessWeight


def merge_weights(updates: Sequence[Update], version: int, weight: StalenessWeight) -> np.ndarray:
    """``w_m = n_m s(tau_m) / sum_j n_j s(tau_j)`` with ``tau_m = version - b_m``.

    Parameters
    ----------
    updates : sequence of Update
    version : int
        Current version.
    weight : StalenessWeight
        The function s.

    Returns
    -------
    array of float64, shape (len(updates),)
        Sums to 1.

    Raises
    ------
    ValueError
        If all weights are zero.
    """
    raw = np.array([u.steps * weight(version - u.base_version) for u in updates], np.float64)
    if not raw.sum() > 0:
        raise ValueError(f"weights of the updates are {raw.tolist()}: one must be above 0")
    return raw / raw.sum()


def merge_updates(
    current: Arrays,
    updates: Sequence[Update],
    bases: Mapping[int, Arrays],
    weights: np.ndarray,
    rate: float = 1.0,
) -> Arrays:
    """``theta + rate * sum_m w_m (theta_m - theta_base(b_m))``, summed in double precision.

    Parameters
    ----------
    current : dict of str to array
        The current version, theta.
    updates : sequence of Update
    bases : mapping of int to arrays
        The server's own snapshots of the versions that the updates started from.
    weights : array of float64
        One per update.
    rate : float, default 1.0
        Server learning rate.

    Returns
    -------
    dict of str to array
        Same names, shapes and dtypes as `current`.
    """
    merged = {}
    for name, theta in current.items():
        delta = np.zeros(theta.shape, np.float64)
        for update, weight in zip(updates, weights, strict=True):
            delta += weight * (
                update.arrays[name].astype(np.float64) - bases[update.base_version][name]
            )
        merged[name] = np.asarray(theta + rate * delta, theta.dtype)
    return merged
