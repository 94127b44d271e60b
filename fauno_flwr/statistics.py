"""Aggregates over training seeds and evaluation worlds, with bootstrap intervals.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice":
few runs, so interval estimates; the interquartile mean (IQM) beside the mean; probability of
improvement instead of a bare comparison of means. A result is a matrix with a row for each
training seed and a column for each evaluation world; worlds are common to all methods, so
differences are taken world by world. Both seeds and worlds are resampled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 2000
Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % bootstrap interval (percentiles)."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def iqm(values: np.ndarray) -> float:
    """Interquartile mean: the mean of the middle half; NaN are left out."""
    finite = values[np.isfinite(values)]
    return float(stats.trim_mean(finite, 0.25)) if finite.size else float("nan")


def mean(values: np.ndarray) -> float:
    """Mean; NaN are left out."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def estimate(strata: Sequence[np.ndarray], statistic: Statistic = mean, seed: int = 0) -> Estimate:
    """A statistic of all values, with seeds and worlds resampled within each stratum.

    Parameters
    ----------
    strata : sequence of array of float, shape (S, W)
        One per task (a cell of an experiment): S training seeds, W evaluation worlds.
    statistic : callable, default :func:`mean`
        Of the values of all strata together.
    seed : int
        Of the resampling.
    """
    rng = np.random.default_rng(seed)
    draws = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        parts = []
        for values in strata:
            rows = rng.integers(values.shape[0], size=values.shape[0])
            columns = rng.integers(values.shape[1], size=values.shape[1])
            parts.append(values[np.ix_(rows, columns)].ravel())
        draws[i] = statistic(np.concatenate(parts))
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    whole = statistic(np.concatenate([values.ravel() for values in strata]))
    return Estimate(whole, float(low), float(high))


def probability_of_improvement(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], seed: int = 0
) -> Estimate:
    """Probability that a run of ours is better than one of theirs, the mean over strata.

    Ties count half: the Mann-Whitney statistic of the runs' means over worlds. Values are taken
    as better when larger.

    Parameters
    ----------
    ours, theirs : sequence of array of float, shape (S, W)
        One pair per task; the numbers of training seeds may differ.
    seed : int
        Of the resampling.
    """
    rng = np.random.default_rng(seed)
    pairs = [
        (np.nanmean(a, axis=1), np.nanmean(b, axis=1)) for a, b in zip(ours, theirs, strict=True)
    ]

    def better(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
        return float(
            np.mean([np.mean((x[:, None] > y) + 0.5 * (x[:, None] == y)) for x, y in samples])
        )

    draws = [
        better([(rng.choice(x, len(x)), rng.choice(y, len(y))) for x, y in pairs])
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(better(pairs), float(low), float(high))
