"""PPO of RLlib on one node."""

import gymnasium
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

from rivals.common import WORLDS, FlatPolicy, Progress, Report, node_settings
from sim_env.envs.single import EdgeEnv

SETTINGS = {"lr": 1e-3, "gamma": 0.99, "lambda_": 0.95, "entropy_coeff": 0.01}
SIZES = {"train_batch_size_per_learner": 2048, "minibatch_size": 256, "num_epochs": 10}


class Counted(gymnasium.Wrapper):
    """Count the steps with a task to decide about, in all environments of this process."""

    decisions = 0

    def step(self, action: int) -> tuple:
        """Advance by one tick."""
        result = self.env.step(action)
        Counted.decisions += int(result[0][0] > 0)
        return result


def train(seed: int, report: Report) -> None:
    """Train one node, in this process, as more would have to share its cores."""
    Counted.decisions = 0
    register_env("edge", lambda _: Counted(EdgeEnv(**node_settings())))
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    config = PPOConfig().environment("edge").framework("torch").debugging(seed=seed)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=WORLDS)
    algorithm = config.training(**SETTINGS, **SIZES).build_algo()
    module = algorithm.get_module()
    slots, steps = int(EdgeEnv(**node_settings()).action_space.n), 0

    @torch.no_grad()
    def best(rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
        scores = module.forward_inference({"obs": torch.from_numpy(rows)})["action_dist_inputs"]
        return scores.argmax(dim=1).numpy()

    try:
        policy = FlatPolicy(best, slots)
        while report(Progress(steps, Counted.decisions, lambda: policy)):
            steps = int(algorithm.train()["num_env_steps_sampled_lifetime"])
    finally:
        algorithm.stop()
        ray.shutdown()
