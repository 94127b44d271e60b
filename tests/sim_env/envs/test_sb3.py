"""Stable-Baselines3 and sb3-contrib learn in the environments of one node, where installed."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import sim_env
from sim_env.envs.single import EdgeEnv
from sim_env.scenario import PhysicsSpec, Scenario, ScenarioSpec
from sim_env.workload.workload import WorkloadSpec

sb3 = pytest.importorskip("stable_baselines3")
vec_env = pytest.importorskip("stable_baselines3.common.vec_env")

BUSY = Scenario(ScenarioSpec(workload=WorkloadSpec(rate=5.0)))
NO_HOPS = Scenario(replace(BUSY.spec, physics=PhysicsSpec(hop_cap=0)))  # sending is illegal
WORLDS = 4


def make_worlds(**settings: Any) -> Any:
    from sim_env.envs.sb3 import EdgeVecEnv

    return EdgeVecEnv(**{"scenario": BUSY, "num_envs": WORLDS, "horizon": 50, **settings})


# A set of destinations is a matrix and no image: MultiInputPolicy flattens it.
@pytest.mark.filterwarnings("ignore:Your observation destinations has an unconventional shape")
@pytest.mark.parametrize("name", sim_env.SCENARIOS)
@pytest.mark.parametrize("layout", ["parts", "flat"])
def test_its_own_checker_passes(name: str, layout: str) -> None:
    from stable_baselines3.common.env_checker import check_env

    check_env(EdgeEnv(name, layout=layout), skip_render_check=True)


def assert_learned(model: Any, env: gym.Env, steps: int) -> None:
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(total_timesteps=steps)
    assert model.num_timesteps >= steps
    after = model.policy.state_dict()
    assert all(np.isfinite(value.numpy()).all() for value in after.values())
    assert any((value != before[name]).any() for name, value in after.items())
    view, _ = env.reset(seed=1)
    action, _ = model.predict(view, deterministic=True)
    assert env.action_space.contains(int(action))


PPO = {"n_steps": 64, "batch_size": 64, "n_epochs": 2, "seed": 0, "device": "cpu"}


def test_ppo_learns_and_decides() -> None:
    env = gym.make("fauno/Ether2-v0", peers="lq", horizon=100)
    assert_learned(sb3.PPO("MultiInputPolicy", env, **PPO), env, 256)


@pytest.mark.parametrize(
    ("layout", "policy"), [("parts", "MultiInputPolicy"), ("flat", "MlpPolicy")]
)
def test_ppo_learns_in_many_worlds_at_once(layout: str, policy: str) -> None:
    model = sb3.PPO(policy, make_worlds(layout=layout), **PPO)
    assert_learned(model, EdgeEnv(BUSY, layout=layout), 256)


def test_dqn_learns_in_many_worlds_at_once() -> None:
    model = sb3.DQN(
        "MlpPolicy",
        make_worlds(layout="flat"),
        learning_starts=64,
        buffer_size=1000,
        seed=0,
        device="cpu",
    )
    assert_learned(model, EdgeEnv(BUSY, layout="flat"), 256)


@pytest.mark.parametrize("peers", ["lq", "random"])
@pytest.mark.parametrize("layout", ["parts", "flat"])
def test_the_worlds_are_those_of_a_dummy_vec_env(peers: str, layout: str) -> None:
    settings = {"scenario": BUSY, "peers": peers, "horizon": 50, "layout": layout}
    ours = make_worlds(**settings)
    dummy = vec_env.DummyVecEnv([lambda: EdgeEnv(**settings)] * WORLDS)
    ours.seed(3)
    dummy.seed(3)
    rng = np.random.default_rng(0)

    def same(one: Any, other: Any) -> None:
        if isinstance(one, dict):
            assert all(np.array_equal(one[key], other[key]) for key in (one | other))
        else:
            assert np.array_equal(one, other)

    same(ours.reset(), dummy.reset())
    ends = 0
    for _ in range(120):
        actions = rng.integers(0, int(ours.action_space.n), WORLDS)
        one, other = ours.step(actions), dummy.step(actions)
        for mine, theirs in zip(one[:3], other[:3], strict=True):
            same(mine, theirs)
        assert one[1].dtype == other[1].dtype
        for mine, theirs in zip(one[3], other[3], strict=True):
            assert mine.keys() == theirs.keys()
            assert mine["TimeLimit.truncated"] == theirs["TimeLimit.truncated"]
            if "terminal_observation" in mine:
                same(mine["terminal_observation"], theirs["terminal_observation"])
                ends += 1
        masks = [np.stack(each.env_method("action_masks")) for each in (ours, dummy)]
        same(*masks)
    assert ends == 2 * WORLDS


def test_maskable_ppo_never_takes_an_illegal_action() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    from sim_env.engine.state import MASKED

    illegal = []
    for kind in (contrib.MaskablePPO, sb3.PPO):
        worlds = make_worlds(scenario=NO_HOPS, horizon=10_000)
        kind("MultiInputPolicy", worlds, **PPO).learn(256)
        illegal.append(worlds.env.world.state.total[:, MASKED].sum())
    assert illegal[0] == 0
    assert illegal[1] > 0


def test_maskable_ppo_finds_the_mask_of_a_single_environment() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    env = gym.make("fauno/Ether2-v0", scenario=BUSY, horizon=100)
    assert_learned(contrib.MaskablePPO("MultiInputPolicy", env, **PPO), env, 128)


def test_the_adapter_answers_what_sb3_asks() -> None:
    worlds = make_worlds(peers="self")
    assert worlds.get_attr("node", [0, 2]) == [0, 0]
    worlds.set_attr("horizon", 5)
    assert worlds.get_attr("horizon", 1) == [5]
    assert not worlds.has_attr("nothing")
    assert worlds.env_is_wrapped(gym.Wrapper) == [False] * WORLDS
    worlds.reset()
    assert len(worlds.env_method("action_masks", indices=[1, 2])) == 2
    assert worlds.env_method("set_actor", lambda seen, rng: np.zeros(len(seen), int)) == (
        [None] * WORLDS
    )
    monitored = vec_env.VecMonitor(worlds)
    monitored.reset()
    ends = [info for _ in range(5) for info in monitored.step(np.zeros(WORLDS, int))[3]]
    assert sum("episode" in info for info in ends) == WORLDS
    worlds.close()
