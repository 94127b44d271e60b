"""Aggregates over training seeds and evaluation worlds, with their intervals.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice":
few runs, so interval estimates; the interquartile mean (IQM) beside the mean; probability of
improvement instead of a bare comparison of means. A result is a matrix with a row for each
training seed and a column for each evaluation world; worlds are common to all methods, so
differences are paired by world. Both seeds and worlds are random.

There are two kinds of intervals. The bootstrap (:func:`estimate`) serves every statistic and any
number of strata; with few seeds it is too narrow if seeds matter. :func:`crossed` is for the mean
of one matrix and accounts for the degrees of freedom that few seeds leave: verdicts use it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95
BETTER, WORSE, TIE = "better", "worse", "tie"
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval; unbounded where the data cannot bound it."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Verdict on a difference, larger being better; a tie if the interval includes 0."""
        if self.low > 0:
            return BETTER
        return WORSE if self.high < 0 else TIE


def iqm(values: np.ndarray) -> np.ndarray:
    """Compute the interquartile mean along the last axis: without a quarter at either end.

    NaN are left out; of n values, floor(n / 4) are cut at each end, as in
    ``scipy.stats.trim_mean``.
    """
    ordered = np.sort(values, axis=-1)  # NaN last
    count = np.isfinite(values).sum(axis=-1, keepdims=True)
    place, cut = np.arange(values.shape[-1]), count // 4
    return _mean_where(ordered, (place >= cut) & (place < count - cut))


def mean(values: np.ndarray) -> np.ndarray:
    """Compute the mean along the last axis; NaN are left out."""
    return _mean_where(values, np.isfinite(values))


def _mean_where(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    count = inside.sum(axis=-1)
    total = np.where(inside, values, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def estimate(strata: Sequence[np.ndarray], statistic: Statistic = mean, seed: int = 0) -> Estimate:
    """Estimate a statistic of all values, resampling seeds and worlds within each stratum.

    The two-way bootstrap of Owen 2007, "The pigeonhole bootstrap", with percentile intervals.

    Parameters
    ----------
    strata : sequence of array of float, shape (S, W)
        One per task (a condition of an experiment): S training seeds, W evaluation worlds.
    statistic : callable, default :func:`mean`
        Of the values of all strata together, along the last axis.
    seed : int, default 0
        Of the resampling.

    Returns
    -------
    Estimate
        For a single seed, the interval is that of this one training; for single values, unbounded.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for values in strata:
        seeds, worlds = values.shape
        rows = rng.integers(seeds, size=(RESAMPLES, seeds, 1))
        columns = rng.integers(worlds, size=(RESAMPLES, 1, worlds))
        parts.append(values[rows, columns].reshape(RESAMPLES, -1))
    value = float(statistic(np.concatenate([values.ravel() for values in strata])))
    if all(values.size == 1 for values in strata):
        return Estimate(value, -np.inf, np.inf)
    return _with_percentiles(value, statistic(np.concatenate(parts, axis=1)))


def crossed(values: np.ndarray) -> Estimate:
    """Estimate the mean of a matrix of seeds x worlds, both random, with its Student interval.

    With s_r^2, s_c^2 and s_e^2 the variances of the row means, of the column means and of the
    residuals, ``s_r^2 / S + s_c^2 / W - s_e^2 / (S W)`` estimates the variance of the
    mean without bias (the two-way random-effects model, Scheffe 1959, 7.4); degrees of freedom by
    Satterthwaite 1946. The last term is left out where the result would be smaller than that of
    either factor alone.

    Parameters
    ----------
    values : array of float, shape (S, W)
        Worlds with an undefined value (NaN) are left out. For a single seed, the interval is that
        of this one training; likewise for a single world.
    """
    values = values[:, np.isfinite(values).all(axis=0)]
    seeds, worlds = values.shape
    if worlds == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    centre = float(values.mean())
    by_seed, by_world = values.mean(axis=1), values.mean(axis=0)
    terms = []  # of the variance of the mean: value, degrees of freedom
    if seeds > 1:
        terms.append((float(by_seed.var(ddof=1)) / seeds, seeds - 1))
    if worlds > 1:
        terms.append((float(by_world.var(ddof=1)) / worlds, worlds - 1))
    if not terms:
        return Estimate(centre, -np.inf, np.inf)
    variance = sum(term for term, _ in terms)
    spread = sum(term**2 / free for term, free in terms)
    if len(terms) == 2:
        free = (seeds - 1) * (worlds - 1)
        rest = values - by_seed[:, None] - by_world + centre
        noise = float((rest**2).sum()) / free / values.size
        variance = max(variance - noise, *(term for term, _ in terms))
        spread += noise**2 / free
    if variance == 0:
        return Estimate(centre, centre, centre)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, variance**2 / spread)) * variance**0.5
    return Estimate(centre, centre - half, centre + half)


def probability_of_improvement(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], seed: int = 0
) -> Estimate:
    """Estimate the probability that a run of ours beats one of theirs, as a mean over strata.

    Ties count half: the Mann-Whitney statistic of the runs' means over worlds. Values are taken
    as better when larger.

    Parameters
    ----------
    ours, theirs : sequence of array of float, shape (S, W)
        One pair per task; the numbers of training seeds may differ. A policy that is not trained
        has one row.
    seed : int, default 0
        Of the resampling.

    Returns
    -------
    Estimate
        With a single run on both sides everywhere, the interval is [0, 1].
    """
    rng = np.random.default_rng(seed)
    value, draws = 0.0, np.zeros(RESAMPLES)
    single = True
    for a, b in zip(ours, theirs, strict=True):
        x, y = mean(a), mean(b)
        better = (x[:, None] > y) + 0.5 * (x[:, None] == y)
        rows = rng.integers(len(x), size=(RESAMPLES, len(x), 1))
        columns = rng.integers(len(y), size=(RESAMPLES, 1, len(y)))
        value += float(better.mean()) / len(ours)
        draws += better[rows, columns].mean(axis=(1, 2)) / len(ours)
        single &= better.size == 1
    return Estimate(value, 0.0, 1.0) if single else _with_percentiles(value, draws)


def _with_percentiles(value: float, draws: np.ndarray) -> Estimate:
    draws = draws[np.isfinite(draws)]
    if draws.size == 0:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Estimate(value, float(low), float(high))
