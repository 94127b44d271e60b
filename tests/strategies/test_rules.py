"""Staleness, merge and optimiser rules against cases computed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import (
    SGD,
    Adam,
    Constant,
    CutOff,
    Hinge,
    Mean,
    Median,
    NormFiltered,
    Polynomial,
    TrimmedMean,
)
from strategies.merge import merge_weights


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Constant(), [1, 1, 1, 1, 1]),
        (Polynomial(0.5), [1, 2**-0.5, 3**-0.5, 0.5, 5**-0.5]),
        (Polynomial(1.0), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]),
        (Hinge(slope=10, delay=2), [1, 1, 1, 1 / 11, 1 / 21]),
        (CutOff(2), [1, 1, 1, 0, 0]),
        (CutOff(3, Polynomial(1.0)), [1, 1 / 2, 1 / 3, 1 / 4, 0]),
    ],
)
def test_staleness_rules(rule: object, expected: list[float]) -> None:
    assert [rule(tau) for tau in range(5)] == pytest.approx(expected)


def test_weights_by_hand() -> None:
    n, s = [1.0, 3.0], [1.0, 0.5]
    np.testing.assert_allclose(merge_weights(n, s), [1 / 2.5, 1.5 / 2.5])
    np.testing.assert_allclose(merge_weights(n, s, "count"), [1 / 4, 1.5 / 4])
    np.testing.assert_allclose(
        merge_weights([1, 1, 1], [1, 0.5, 0.25], "count"), [1 / 3, 1 / 6, 1 / 12]
    )


positive = st.floats(1e-3, 1e6)


@given(st.lists(st.tuples(positive, st.floats(1e-3, 1.0)), min_size=1, max_size=20))
def test_weights_sum_to_one(pairs: list[tuple[float, float]]) -> None:
    steps, s = zip(*pairs, strict=True)
    weights = merge_weights(steps, s)
    assert weights.sum() == pytest.approx(1.0)
    assert np.all(weights > 0)
    assert merge_weights(steps, s, "count").sum() <= 1.0 + 1e-12
    np.testing.assert_allclose(
        merge_weights(steps, [1.0] * len(s), "count"), merge_weights(steps, [1.0] * len(s))
    )


DELTAS = [np.array(v) for v in ([1.0, 10.0], [2.0, 20.0], [3.0, 60.0], [4.0, 30.0], [900.0, -9.0])]
EQUAL = np.full(5, 0.2)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Mean(), [182.0, 22.2]),
        (TrimmedMean(0.2), [3.0, 20.0]),
        (TrimmedMean(0.0), [182.0, 22.2]),
        (TrimmedMean(0.19), [182.0, 22.2]),
        (Median(), [3.0, 20.0]),
        # Norms 10.05, 20.1, 60.1, 30.3, 900: the median is 30.3, the last is left out.
        (NormFiltered(3.0), [2.5, 30.0]),
        (NormFiltered(1.0, Median()), [2.0, 20.0]),
    ],
)
def test_merge_rules(rule: object, expected: list[float]) -> None:
    np.testing.assert_allclose(rule(DELTAS, EQUAL), expected)


def test_the_mean_is_weighted_and_the_filtered_weights_keep_their_sum() -> None:
    weights = np.array([0.1, 0.2, 0.3, 0.1, 0.1])
    np.testing.assert_allclose(Mean()(DELTAS, weights)[0], 0.1 + 0.4 + 0.9 + 0.4 + 90)
    kept = np.array([0.1, 0.2, 0.3, 0.1]) * (0.8 / 0.7)
    np.testing.assert_allclose(NormFiltered()(DELTAS, weights)[0], kept @ [1, 2, 3, 4])


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_the_median_is_numpys(values: list[float]) -> None:
    deltas = [np.array([value]) for value in values]
    merged = Median()(deltas, np.full(len(values), 1 / len(values)))
    np.testing.assert_allclose(merged, np.median(deltas, axis=0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", [Mean(), TrimmedMean(), Median(), NormFiltered()])
def test_half_weight_is_half_the_step(rule: object) -> None:
    """As ``normalize="count"`` gives to a stale buffer."""
    np.testing.assert_allclose(rule(DELTAS, EQUAL / 2), rule(DELTAS, EQUAL) / 2)


@pytest.mark.parametrize("rule", [Mean(), TrimmedMean(), Median(), NormFiltered()])
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9), st.randoms())
def test_merging_copies_of_one_update_gives_it_back(
    rule: object, values: list[float], random: object
) -> None:
    delta = np.array(values)
    weights = np.array([random.uniform(0.1, 1) for _ in range(5)])
    merged = rule([delta] * 5, weights / weights.sum())
    np.testing.assert_allclose(merged, delta, rtol=1e-12, atol=1e-12)


def test_sgd_with_momentum() -> None:
    optimizer = SGD(rate=0.5, momentum=0.9)
    theta = optimizer.step(np.zeros(1), np.array([2.0]))
    np.testing.assert_allclose(theta, [1.0])  # u = 2
    theta = optimizer.step(theta, np.array([1.0]))
    np.testing.assert_allclose(theta, [1.0 + 0.5 * 2.8])  # u = 0.9 * 2 + 1
    np.testing.assert_allclose(optimizer.state["velocity"], [2.8])


def test_plain_sgd_has_no_state() -> None:
    optimizer = SGD()
    np.testing.assert_array_equal(optimizer.step(np.ones(2), np.ones(2)), [2, 2])
    assert not optimizer.state


def test_adam_two_steps_by_hand() -> None:
    optimizer = Adam(rate=0.1, beta1=0.9, beta2=0.99, epsilon=1e-3)
    theta = optimizer.step(np.zeros(1), np.array([2.0]))
    # m = 0.2, v = 0.04, rate = 0.1 sqrt(0.01) / 0.1 = 0.1
    np.testing.assert_allclose(theta, [0.1 * 0.2 / (0.2 + 1e-3)])
    before = theta
    theta = optimizer.step(theta, np.array([-1.0]))
    m, v = 0.9 * 0.2 - 0.1, 0.99 * 0.04 + 0.01
    rate = 0.1 * np.sqrt(1 - 0.99**2) / (1 - 0.9**2)
    np.testing.assert_allclose(theta, before + rate * m / (np.sqrt(v) + 1e-3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Polynomial(-1), "exponent is -1"),
        (lambda: Hinge(slope=float("nan")), "slope is nan"),
        (lambda: CutOff(-1), "limit is -1"),
        (lambda: TrimmedMean(0.5), "fraction is 0.5: must be a finite number .*below 0.5"),
        (lambda: NormFiltered(0.9), "factor is 0.9"),
        (lambda: SGD(momentum=1.0), "momentum is 1.0"),
        (lambda: SGD(rate=0), "rate is 0"),
        (lambda: Adam(beta2=1), "beta2 is 1"),
        (
            lambda: merge_weights([1], [1], "sum"),
            "normalize is 'sum': must be one of weight, count",
        ),
    ],
)
def test_impossible_rules_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
