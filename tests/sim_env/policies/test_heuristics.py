"""The heuristics against decisions computed by hand."""

import numpy as np
import pytest

from sim_env.engine.features import CAPACITY, EXECUTE, LOAD, OBSERVATIONS, QUEUE, SEND, SPEED, WAIT
from sim_env.engine.observation import Observation, empty_observation
from sim_env.policies.heuristics import POLICIES, get_policy


@pytest.fixture
def three() -> Observation:
    """Return three decisions with four slots; the last slot of the first row is illegal."""
    seen = empty_observation(3, 4, OBSERVATIONS["full"])
    seen.mask[:] = True
    seen.mask[0, 3] = False
    seen.destination[:, :, CAPACITY] = [20, 10, 200, 20]
    seen.destination[:, :, QUEUE] = [[4, 2, 40, 0], [10, 9, 10, 3], [0, 0, 0, 0]]
    seen.destination[:, :, SPEED] = [1, 5, 3, 9]
    seen.destination[:, :, WAIT] = [[50, 10, 5, 0], [9, 9, 9, 9], [0, 3, 9, 0]]
    seen.destination[:, :, EXECUTE] = [[20, 4, 7, 0], [8, 2, 9, 1], [7, 2, 1, 1]]
    seen.destination[:, :, SEND] = [[0, 60, 50, 0], [0, 9, 9, 9], [0, 3, 9, 5]]
    seen.local[:, LOAD] = [4, 10, 0]
    return seen


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("local", [0, 0, 0]),
        ("lq", [0, 2, 0]),  # fill .2 .2 .2 illegal; .5 .9 .05 .15; ties go to the lowest index
        ("sed", [2, 0, 3]),  # 70 74 62 illegal; 17 20 27 19; 7 8 19 6
        ("threshold", [0, 3, 0]),  # own queue 4, 10 and 0 of 20; slot 3 is the fastest
    ],
)
def test_decisions(three: Observation, name: str, expected: list[int]) -> None:
    chosen = POLICIES[name](three, np.random.default_rng(0))
    assert chosen.tolist() == expected


def test_random_is_uniform_over_the_legal_actions(three: Observation) -> None:
    rng = np.random.default_rng(0)
    count = np.zeros((3, 4))
    for _ in range(3000):
        count[np.arange(3), POLICIES["random"](three, rng)] += 1
    assert count[0, 3] == 0
    np.testing.assert_allclose(count[0, :3] / 3000, 1 / 3, atol=0.05)
    np.testing.assert_allclose(count[1:] / 3000, 1 / 4, atol=0.05)


def test_lqrand_breaks_ties_at_random(three: Observation) -> None:
    rng = np.random.default_rng(0)
    chosen = np.stack([POLICIES["lqrand"](three, rng) for _ in range(300)])
    assert set(chosen[:, 0]) == {0, 1, 2}
    assert set(chosen[:, 1]) == {2}
    assert set(chosen[:, 2]) == {0, 1, 2, 3}


def test_threshold_never_sends_where_it_may_not(three: Observation) -> None:
    three.mask[:, 1:] = False
    assert POLICIES["threshold"](three, np.random.default_rng(0)).tolist() == [0, 0, 0]


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ValueError, match="policy is 'lqq': must be one of"):
        get_policy("lqq")
