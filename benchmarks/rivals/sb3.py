"""Stable-Baselines3 and sb3-contrib on one node, and on all nodes through SuperSuit."""

import random
from functools import partial
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from rivals.common import HORIZON, WORLDS, FlatPolicy, Progress, Report, node_settings, scenario
from sim_env.envs.parallel import EdgeParallelEnv
from sim_env.envs.sb3 import EdgeVecEnv

SETTINGS: dict[str, Any] = {"gamma": 0.99, "ent_coef": 0.01, "learning_rate": 1e-3}
SIZES = {1: {"n_steps": 2048, "batch_size": 64}, WORLDS: {"n_steps": 128, "batch_size": 256}}
NETWORKS, SHARED = 4, {**SETTINGS, "gamma": 0.97, "n_steps": 128, "batch_size": 1024}


def learn(model: BaseAlgorithm, slots: int, masked: bool, report: Report) -> None:
    """Train a model, rollout by rollout."""

    def best(rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
        legal = {"action_masks": mask} if masked else {}
        return model.predict(rows, deterministic=True, **legal)[0]

    policy = FlatPolicy(best, slots)
    decisions, rollout = 0, model.n_steps * model.n_envs
    while report(Progress(model.num_timesteps, decisions, lambda: policy)):
        model.learn(rollout, reset_num_timesteps=False)
        decisions += int((model.rollout_buffer.observations[..., 0] > 0).sum())


def one_node(seed: int, report: Report, worlds: int, masked: bool) -> None:
    """Train one node by the PPO of SB3, or by the one of sb3-contrib that knows legal actions."""
    env = EdgeVecEnv(num_envs=worlds, **node_settings())
    algorithm = MaskablePPO if masked else PPO
    model = algorithm("MlpPolicy", env, seed=seed, device="cpu", **SIZES[worlds], **SETTINGS)
    learn(model, int(env.action_space.n), masked, report)


one_world = partial(one_node, worlds=1, masked=False)
many_worlds = partial(one_node, worlds=WORLDS, masked=False)
masked = partial(one_node, worlds=WORLDS, masked=True)


class WithMasks(VecEnvWrapper):
    """Environments in layout ``flat`` whose last K columns are what ``MaskablePPO`` asks for."""

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self._seen = np.zeros(0)

    def reset(self) -> np.ndarray:
        """Start new worlds."""
        self._seen = self.venv.reset()
        return self._seen

    def step_wait(self) -> tuple[Any, ...]:
        """Advance by one tick."""
        self._seen, *rest = self.venv.step_wait()
        return self._seen, *rest

    def has_attr(self, attr_name: str) -> bool:
        """Return whether this is what ``MaskablePPO`` looks for."""
        return attr_name == "action_masks"

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the legal actions of each agent."""
        return list(self._seen[:, -self.action_space.n :] > 0)


def all_nodes(seed: int, report: Report) -> None:
    """Train all nodes, which share their parameters: each is one environment of 19."""
    import supersuit  # last, because the methods of one node do without

    env = EdgeParallelEnv(scenario(), horizon=HORIZON, layout="flat")
    env = supersuit.pettingzoo_env_to_vec_env_v1(env)
    env = supersuit.concat_vec_envs_v1(env, NETWORKS, base_class="stable_baselines3")
    env.venv.reset(seed=seed)  # the one of SB3 does not pass a seed on
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - that of SB3
    torch.manual_seed(seed)
    model = MaskablePPO("MlpPolicy", WithMasks(env), device="cpu", **SHARED)
    learn(model, int(env.action_space.n), True, report)
