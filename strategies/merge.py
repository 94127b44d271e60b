"""Merge rules: from the differences that nodes report to one difference.

A rule is any callable ``(deltas, weights) -> delta``: `deltas` is a sequence of K vectors of
float64, `weights` an array of K numbers from :func:`merge_weights`. They are in the order
of the members, so the result does not depend on the order of arrival.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from strategies.checks import require_choice, require_number

MergeRule = Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]

BY_WEIGHT, BY_COUNT = "weight", "count"


@runtime_checkable
class Robust(Protocol):
    """A merge rule that discards extreme updates or values, if there are enough updates."""

    def cuts(self, updates: int) -> int:
        """Return how many of so many updates it can discard, extreme in the same direction."""


def merge_weights(
    steps: Sequence[float], staleness_weights: Sequence[float], normalize: str = BY_WEIGHT
) -> np.ndarray:
    """Compute the weights of updates from their steps ``n_m`` and staleness weights ``s_m``.

    Parameters
    ----------
    steps : sequence of float
    staleness_weights : sequence of float
    normalize : {"weight", "count"}, default "weight"
        ``"weight"``: ``w_m = n_m s_m / sum_j n_j s_j``; the weights sum to 1.
        ``"count"``: ``w_m = n_m / (sum_j n_j) s_m``; a stale buffer moves the model less. With
        ``n_m = 1`` this is ``s_m / K`` as in FedBuff.

    Returns
    -------
    array of float64, shape (K,)
    """
    require_choice("normalize", normalize, (BY_WEIGHT, BY_COUNT))
    n, s = np.asarray(steps, np.float64), np.asarray(staleness_weights, np.float64)
    total = (n * s if normalize == BY_WEIGHT else n).sum()
    # Nothing of an update without weight counts, and nothing at all if none has any.
    return n * s / total if total > 0 else np.zeros(len(n))


@dataclass(frozen=True)
class Mean:
    """Weighted mean: ``sum_m w_m delta_m``."""

    def __call__(self, deltas: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """Merge `deltas`."""
        merged = np.zeros_like(deltas[0])
        weighted = np.empty_like(merged)
        for delta, weight in zip(deltas, weights, strict=True):
            merged += np.multiply(delta, weight, out=weighted)
        return merged


@dataclass(frozen=True)
class TrimmedMean:
    """Mean of each parameter without its ``floor(fraction K)`` lowest and highest values.

    The mean is not weighted, but scaled by the sum of the weights, which is 1 unless
    ``normalize="count"`` (Yin et al. 2018).

    Parameters
    ----------
    fraction : float, default 0.2
        Share of the values to discard at each end; below 0.5.
    """

    fraction: float = 0.2

    def __post_init__(self) -> None:
        require_number("fraction", self.fraction, at_least=0, below=0.5)

    def __call__(self, deltas: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """Merge `deltas`."""
        cut = self.cuts(len(deltas))
        inner = np.sort(np.stack(deltas), axis=0)[cut : len(deltas) - cut]
        return inner.mean(axis=0) * weights.sum()

    def cuts(self, updates: int) -> int:
        """Return how many values of each parameter it discards at either end."""
        return int(self.fraction * updates)


@dataclass(frozen=True)
class Median:
    """Median of each parameter, scaled by the sum of the weights (Yin et al. 2018)."""

    def __call__(self, deltas: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """Merge `deltas`."""
        middle = np.sort(np.stack(deltas), axis=0)[(len(deltas) - 1) // 2 : len(deltas) // 2 + 1]
        return middle.mean(axis=0) * weights.sum()

    def cuts(self, updates: int) -> int:
        """Return how many values of each parameter are on either side of the median."""
        return (updates - 1) // 2


@dataclass(frozen=True)
class NoisyMean:
    """Weighted mean with Gaussian noise for the largest weight: see ``CentralPrivacy``.

    Parameters
    ----------
    noise : float
        Standard deviation for a weight of 1.
    rng : numpy Generator
        Of one version only.
    """

    noise: float
    rng: np.random.Generator

    def __call__(self, deltas: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """Merge `deltas`."""
        merged = Mean()(deltas, weights)
        return merged + self.rng.normal(0.0, self.noise * weights.max(), merged.shape)


# Rules that treat every parameter by itself, so that a version can be merged in parts. Not their
# subclasses, which may do something else.
ELEMENTWISE = (Mean, TrimmedMean, Median, NoisyMean)


@dataclass(frozen=True)
class NormFiltered:
    """Discard the updates whose norm is above `factor` times the median norm, then merge.

    The weights of the others are scaled to the same sum.

    Parameters
    ----------
    factor : float, default 3.0
        At least 1, so that at least half of the updates are kept.
    rule : callable, default Mean()
        Rule that merges the others.
    """

    factor: float = 3.0
    rule: MergeRule = field(default_factory=Mean)

    def __post_init__(self) -> None:
        require_number("factor", self.factor, at_least=1)

    def __call__(self, deltas: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """Merge `deltas`."""
        norms = np.array([np.linalg.norm(delta) for delta in deltas])
        kept = np.flatnonzero(norms <= self.factor * np.median(norms)).tolist()
        scaled = weights[kept] * (weights.sum() / weights[kept].sum())
        return self.rule([deltas[m] for m in kept], scaled)

    def cuts(self, updates: int) -> int:
        """Return how many updates can be so far above the median norm."""
        # Of two, the median is the mean: neither norm is more than twice as large.
        return 0 if updates == 2 and self.factor >= 2 else (updates - 1) // 2
