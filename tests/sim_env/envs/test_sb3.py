"""Stable-Baselines3 learns in the environment of one node, where it is installed."""

import gymnasium as gym
import numpy as np
import pytest

import sim_env
from sim_env.envs.single import EdgeEnv

sb3 = pytest.importorskip("stable_baselines3")


# A set of destinations is a matrix and no image: MultiInputPolicy flattens it.
@pytest.mark.filterwarnings("ignore:Your observation destinations has an unconventional shape")
@pytest.mark.parametrize("name", sim_env.SCENARIOS)
def test_its_own_checker_passes(name: str) -> None:
    from stable_baselines3.common.env_checker import check_env

    check_env(EdgeEnv(name), skip_render_check=True)


def test_ppo_learns_and_decides() -> None:
    env = gym.make("fauno/Ether2-v0", peers="lq", horizon=100)
    model = sb3.PPO(
        "MultiInputPolicy", env, n_steps=128, batch_size=64, n_epochs=2, seed=0, device="cpu"
    )
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(total_timesteps=256)
    assert model.num_timesteps == 256
    after = model.policy.state_dict()
    assert all(np.isfinite(value.numpy()).all() for value in after.values())
    assert any((value != before[name]).any() for name, value in after.items())
    view, _ = env.reset(seed=1)
    action, _ = model.predict(view, deterministic=True)
    assert env.action_space.contains(int(action))
