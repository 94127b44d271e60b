"""Encodings by name, and that every environment follows them."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test

from sim_env.engine import features
from sim_env.engine.features import OBSERVATIONS
from sim_env.engine.observation import empty_observation
from sim_env.engine.reward import REWARDS, RewardSpec
from sim_env.envs.parallel import EdgeParallelEnv
from sim_env.envs.single import EdgeEnv
from sim_env.scenario import SCENARIOS, Scenario, ScenarioSpec
from sim_env.world import World


def scenario_of(observation: str, reward: str = "delay", name: str = "balanced") -> Scenario:
    """Compile a registered scenario with another observation and reward."""
    spec = SCENARIOS[name]()
    spec.observation = observation
    if reward != spec.reward.kind:
        spec.reward = RewardSpec(reward)
    return Scenario(spec)


def test_paper_by_hand() -> None:
    seen = empty_observation(1, 3, OBSERVATIONS["paper"])
    seen.local[0, features.LOAD] = 5
    seen.local[0, features.MEGABYTES] = np.e - 1
    seen.local[0, features.OUTPUT_MEGABYTES] = np.e**2 - 1
    seen.destination[0, :, features.CAPACITY] = 20, 10, 4
    seen.destination[0, :, features.QUEUE] = 5, 4, 3
    seen.destination[0, :, features.SPEED] = 4e7, 2e7, 1e7
    seen.destination[0, :, features.EXECUTE] = np.e**3 - 1, 7, 7
    seen.mask[0] = True, True, False
    local, destinations = seen.features()
    np.testing.assert_allclose(local[0], [1, 5 / 20, 1 / 4, 2 / 10, 3 / 4, 1 / 4, 2 / 4], rtol=1e-6)
    np.testing.assert_allclose(
        destinations[0], [[0.25, 0.75, 1], [0.4, 0.6, 0], [0, 0, 0]], rtol=1e-6
    )


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_the_first_feature_marks_a_decision_and_the_mask_blanks_the_rest(name: str) -> None:
    """Illegal slots are zero, and only they."""
    world, rng = World(scenario_of(name), [1, 2]), np.random.default_rng(0)
    rows = 0
    for _ in range(150):
        seen = world.observe()
        local, destinations = seen.features()
        assert local.shape == (len(seen), OBSERVATIONS[name].local)
        assert destinations.shape == (*seen.mask.shape, OBSERVATIONS[name].destinations)
        assert np.all(local[:, 0] == 1)
        assert not destinations[~seen.mask].any()
        assert np.all(destinations[seen.mask].any(axis=1))
        assert np.isfinite(local).all()
        assert np.isfinite(destinations).all()
        rows += len(seen)
        world.step(rng.integers(0, 3, (2, world.num_nodes)).astype(np.int32))
    assert rows > 100


def test_an_observation_changes_what_is_seen_and_not_what_happens() -> None:
    envs = [EdgeEnv(scenario_of(name), 6, peers="sed") for name in OBSERVATIONS]
    views = [env.reset(seed=4)[0] for env in envs]
    for tick in range(200):
        assert len({view["action_mask"].tobytes() for view in views}) == 1
        assert len({view["local"].shape for view in views}) == len(OBSERVATIONS)
        steps = [env.step(tick % 3) for env in envs]
        views = [step[0] for step in steps]
        assert len({step[1] for step in steps}) == 1


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_every_combination_passes_the_checkers(observation: str, reward: str) -> None:
    scenario = scenario_of(observation, reward)
    check_env(gym.make("fauno/Balanced-v0", scenario=scenario).unwrapped)
    parallel_api_test(EdgeParallelEnv(scenario), num_cycles=1000)


@pytest.mark.parametrize("reward", REWARDS)
def test_one_node_earns_the_same_in_both_environments(reward: str) -> None:
    """Peers that follow the same heuristic: the same bytes and the same rewards."""
    scenario = scenario_of("paper", reward)
    one, many = EdgeEnv(scenario, 0, peers="local"), EdgeParallelEnv(scenario)
    name = scenario.topology.names[0]
    view, views = one.reset(seed=9)[0], many.reset(seed=9)[0]
    paid = 0
    for tick in range(300):
        assert all(np.array_equal(view[key], views[name][key]) for key in view)
        view, mine, *_ = one.step(tick % 3)
        views, rewards, *_ = many.step({name: tick % 3})
        assert mine == rewards[name]
        paid += mine != 0
    assert paid > 20


def test_an_unknown_observation_is_named() -> None:
    with pytest.raises(ValueError, match="observation is 'ful': must be one of full, paper"):
        ScenarioSpec(observation="ful")
