"""Estimates against cases whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from fauno_flwr.results.statistics import (
    Estimate,
    crossed,
    estimate,
    iqm,
    mean,
    probability_of_improvement,
)

NAN = float("nan")


def draw(
    rng: np.random.Generator, shape: tuple[int, int], spread: tuple[float, float, float]
) -> np.ndarray:
    """Mean 0, with standard deviations of seeds, of worlds and of both together."""
    seeds, worlds = shape
    return (
        spread[0] * rng.normal(size=(seeds, 1))
        + spread[1] * rng.normal(size=(1, worlds))
        + spread[2] * rng.normal(size=shape)
    )


def coverage(method, shape, spread, times=300) -> float:
    rng = np.random.default_rng(5)
    found = [method(draw(rng, shape, spread)) for _ in range(times)]
    return float(np.mean([each.low <= 0 <= each.high for each in found]))


@given(arrays(float, st.integers(1, 30), elements=st.floats(-1e6, 1e6)))
def test_iqm_is_the_trimmed_mean_of_scipy(values: np.ndarray) -> None:
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-6)


def test_statistics_leave_out_what_is_not_defined() -> None:
    values = np.array([[1.0, NAN, 3.0, 100.0, 2.0], [NAN] * 5])
    np.testing.assert_allclose(iqm(values), [2.5, NAN])
    np.testing.assert_allclose(mean(values), [26.5, NAN])


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", [(1, 1, 1), (1, 0, 0.2), (0, 1, 0.2)])
def test_the_crossed_interval_covers_the_mean_as_often_as_it_says(seeds, spread) -> None:
    # 300 draws: a true coverage of 95 % is below 90.5 % with probability below 0.001.
    assert coverage(crossed, (seeds, 16), spread) > 0.905


def test_the_bootstrap_covers_the_mean_with_many_seeds_and_not_with_three() -> None:
    def bootstrap(values: np.ndarray) -> Estimate:
        return estimate([values])

    assert coverage(bootstrap, (16, 16), (1, 1, 1)) > 0.9
    # Why verdicts do not rest on it.
    assert coverage(bootstrap, (3, 16), (1, 0, 0.2)) < 0.85


def test_the_crossed_interval_of_one_seed_is_students_over_worlds() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, (1, 12))
    found = crossed(values)
    low, high = stats.t.interval(
        0.95, 11, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(12)
    )
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize("method", [crossed, lambda values: estimate([values])])
def test_a_single_value_bounds_nothing(method) -> None:
    assert method(np.array([[2.0]])) == Estimate(2.0, -np.inf, np.inf)


def test_equal_values_leave_no_doubt() -> None:
    assert crossed(np.full((3, 4), 2.0)) == Estimate(2.0, 2.0, 2.0)
    assert estimate([np.full((3, 4), 2.0)], iqm) == Estimate(2.0, 2.0, 2.0)


def test_worlds_without_a_value_are_left_out() -> None:
    values = np.random.default_rng(1).normal(size=(3, 8))
    with_gap = np.insert(values, 2, [NAN, 0.0, 0.0], axis=1)
    assert crossed(with_gap) == crossed(values)
    assert np.isnan(crossed(np.full((2, 3), NAN)).value)


def test_strata_weigh_by_their_values_and_are_resampled_each_by_itself() -> None:
    near, far = np.zeros((2, 4)), np.full((2, 4), 10.0)
    # Resampled together, the share of the far stratum would vary.
    assert estimate([near, far]) == Estimate(5.0, 5.0, 5.0)


def test_pairing_by_world_takes_out_what_worlds_share() -> None:
    rng = np.random.default_rng(3)
    worlds = rng.normal(0, 10, (1, 16))
    ours = worlds + rng.normal(1.0, 0.1, (5, 16))
    theirs = worlds + rng.normal(0.0, 0.1, (5, 16))
    assert crossed(ours - theirs).verdict == "better"
    assert crossed(theirs - ours).verdict == "worse"
    assert crossed(ours - ours.mean()).verdict == "tie"


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_probability_of_improvement_is_mann_whitneys(runs: int, others: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = (rng.integers(0, 4, (n, 1)).astype(float) for n in (runs, others))
    u = stats.mannwhitneyu(ours[:, 0], theirs[:, 0]).statistic
    found = probability_of_improvement([ours], [theirs])
    assert found.value == pytest.approx(u / (runs * others))
    back = probability_of_improvement([theirs], [ours])
    assert found.value + back.value == pytest.approx(1)
    assert 0 <= found.low <= found.high <= 1


def test_one_run_against_one_says_nothing_about_the_probability() -> None:
    found = probability_of_improvement([np.ones((1, 4))], [np.zeros((1, 4))])
    assert found == Estimate(1.0, 0.0, 1.0)
