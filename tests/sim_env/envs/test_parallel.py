"""The PettingZoo environment, and that it shows the same world as gymnasium's."""

from typing import Any

import gymnasium as gym
import numpy as np
import pettingzoo
import pytest
from gymnasium.utils.env_match import check_environments_match
from pettingzoo.test import parallel_api_test, seed_test
from pettingzoo.utils.conversions import parallel_to_aec

import sim_env
from sim_env.engine.state import MASKED
from sim_env.envs.parallel import EdgeParallelEnv
from sim_env.envs.single import EdgeEnv
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import load_scenario

IDS = [f"fauno/{name.capitalize()}-v0" for name in sim_env.SCENARIOS]


@pytest.mark.parametrize("env_id", IDS)
def test_registered_ids_pass_the_api_test(env_id: str) -> None:
    parallel_api_test(pettingzoo.make("parallel", env_id), num_cycles=1000)


def test_same_seed_same_episode_for_the_seed_test() -> None:
    seed_test(lambda: parallel_to_aec(EdgeParallelEnv()))


def test_same_seed_same_bytes_over_many_steps() -> None:
    def run() -> bytes:
        env = EdgeParallelEnv("balanced", horizon=250)
        log, rng = b"", np.random.default_rng(1)
        views, _ = env.reset(seed=5)
        while env.agents:
            actions = {name: int(rng.integers(env.action_space(name).n)) for name in env.agents}
            views, rewards, *_ = env.step(actions)
            log += np.array(list(rewards.values())).tobytes()
            log += b"".join(value.tobytes() for view in views.values() for value in view.values())
        return log

    first = run()
    assert len(first) > 250 * 19 * 8
    assert first == run()


def test_other_seeds_and_other_episodes_are_other_worlds() -> None:
    env, log = EdgeParallelEnv(horizon=100), []
    for seed in (1, 2, None):
        env.reset(seed=seed)
        for _ in range(100):
            env.step({})
        assert env.world is not None
        log.append(env.world.state.gap.tobytes())
    assert len(set(log)) == 3


class OneOfAll(gym.Env):
    """One agent of the parallel environment, the others following a heuristic."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    render_mode = None

    def __init__(self, name: str, policy: str, **settings: Any) -> None:
        self._all, self._name, self._policy = EdgeParallelEnv(**settings), name, POLICIES[policy]
        self.observation_space = self._all.observation_space(name)
        self.action_space = self._all.action_space(name)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Reset, and return the view of one agent."""
        views, infos = self._all.reset(seed=seed)
        return views[self._name], infos[self._name]

    def step(self, action: int) -> Any:
        """Step one agent, while the others follow the policy."""
        assert self._all.world is not None
        seen = self._all.world.observe()
        names = self._all.scenario.topology.names
        chosen = self._policy(seen, np.random.default_rng(0))
        actions = {names[node]: int(slot) for node, slot in zip(seen.node, chosen, strict=True)}
        return [each[self._name] for each in self._all.step({**actions, self._name: action})]


@pytest.mark.parametrize(("node", "peers"), [(0, "lq"), (6, "sed"), (22, "threshold")])
@pytest.mark.parametrize("scenario", sim_env.SCENARIOS)
def test_matches_the_single_env_when_the_others_follow_the_same_heuristic(
    scenario: str, node: int, peers: str
) -> None:
    one = EdgeEnv(scenario, node, peers=peers, horizon=200)
    name = load_scenario(scenario).topology.names[node]
    check_environments_match(
        one, OneOfAll(name, peers, scenario=scenario, horizon=200), num_steps=300, seed=7
    )


def test_spaces_are_the_same_objects_and_hold_what_is_seen() -> None:
    env = EdgeParallelEnv()
    views, infos = env.reset(seed=0)
    assert list(views) == list(infos) == env.agents == env.possible_agents
    assert env.agents[:2] == ["rpi_0", "rpi_1"]
    for name in env.agents:
        assert env.observation_space(name) is env.observation_space(name)
        assert env.action_space(name) is env.action_space(name)
        assert views[name] in env.observation_space(name)
        assert env.action_space(name).n == len(views[name]["action_mask"])


@pytest.mark.parametrize("wrong", [-1, 3, 2**40, -(2**40)])
def test_an_illegal_action_keeps_the_task_earns_that_and_is_counted(wrong: int) -> None:
    keep, odd = EdgeParallelEnv(), EdgeParallelEnv()
    keep.reset(seed=1)
    odd.reset(seed=1)
    decided = 0
    for _ in range(100):
        views, rewards, *_ = keep.step(dict.fromkeys(keep.agents, 0))
        assert odd.world is not None
        decided += int(odd.world.observe().node.tolist().count(0))
        others = dict.fromkeys(odd.agents, 0)
        odd_views, odd_rewards, *_ = odd.step({**others, "rpi_0": wrong})
        assert rewards == odd_rewards
        assert np.array_equal(views["rpi_0"]["local"], odd_views["rpi_0"]["local"])
    assert decided > 0
    assert odd.world.state.total[0, MASKED] == decided


def test_the_single_env_takes_any_integer_too() -> None:
    keep, odd = EdgeEnv(peers="local"), EdgeEnv(peers="local")
    keep.reset(seed=1)
    odd.reset(seed=1)
    assert all(keep.step(0)[1] == odd.step(2**40)[1] for _ in range(100))
    assert odd.world is not None
    assert odd.world.state.total[0, MASKED] > 0


def test_a_missing_agent_keeps_and_a_stranger_is_named() -> None:
    keep, silent = EdgeParallelEnv(), EdgeParallelEnv()
    keep.reset(seed=1)
    silent.reset(seed=1)
    for _ in range(50):
        assert keep.step(dict.fromkeys(keep.agents, 0))[1] == silent.step({})[1]
    with pytest.raises(ValueError, match=r"actions of tx2_0: not among possible_agents"):
        silent.step({"tx2_0": 0})


def test_all_are_truncated_at_the_horizon_and_none_is_left() -> None:
    env = EdgeParallelEnv(horizon=3)
    with pytest.raises(gym.error.ResetNeeded):
        env.step({})
    env.reset(seed=0)
    for tick in (1, 2, 3):
        _, _, terminated, truncated, _ = env.step({})
        assert not any(terminated.values())
        assert set(truncated.values()) == {tick == 3}
    assert env.agents == []
    assert env.step({}) == ({}, {}, {}, {}, {})
    env.reset()
    assert env.agents == env.possible_agents


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="horizon is 0"):
        EdgeParallelEnv(horizon=0)
    with pytest.raises(ValueError, match="render_mode is 'ansi'"):
        EdgeParallelEnv(render_mode="ansi")
