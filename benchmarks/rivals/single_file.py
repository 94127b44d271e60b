"""PPO as people write it in one file, in torch: two networks, one loop, legal actions only."""

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from rivals.common import WORLDS, FlatPolicy, Progress, Report, node_settings

STEPS, EPOCHS, MINIBATCHES, HIDDEN = 128, 4, 4, 64
RATE, GAMMA, LAMBDA = 1e-3, 0.99, 0.95
CLIP, ENTROPY, VALUE, MAX_NORM = 0.2, 0.01, 0.5, 0.5


def network(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    """Make a tanh network of two hidden layers with orthogonal weights."""
    layers = [nn.Linear(a, b) for a, b in ((inputs, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, outputs))]
    for layer, its_gain in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, its_gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def train(seed: int, report: Report) -> None:
    """Train one node; every tick is a step, those without a task to decide about, too."""
    torch.manual_seed(seed)
    env = gymnasium.make_vec(
        "sim_env:fauno/Ether2-v0",
        num_envs=WORLDS,
        autoreset_mode="SameStep",
        **node_settings(),
    )
    slots, width = int(env.single_action_space.n), env.single_observation_space.shape[0]
    actor, critic = network(width, slots, 0.01), network(width, 1, 1.0)
    parameters = [*actor.parameters(), *critic.parameters()]
    adam = torch.optim.Adam(parameters, lr=RATE, eps=1e-5)

    def policy_of(rows: Tensor) -> Categorical:
        return Categorical(logits=actor(rows).masked_fill(rows[:, -slots:] == 0, -1e9))

    @torch.no_grad()
    def best(rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return policy_of(torch.from_numpy(rows)).probs.argmax(dim=1).numpy()

    seen, _ = env.reset(seed=seed)
    decisions = rollouts = 0
    policy = FlatPolicy(best, slots)
    while report(Progress(rollouts * STEPS * WORLDS, decisions, lambda: policy)):
        rows = torch.zeros(STEPS, WORLDS, width)
        actions = torch.zeros(STEPS, WORLDS, dtype=torch.int64)
        logs, values, rewards, over = torch.zeros(4, STEPS, WORLDS)
        with torch.no_grad():
            for t in range(STEPS):
                rows[t] = torch.from_numpy(seen)
                choice = policy_of(rows[t])
                actions[t] = choice.sample()
                logs[t], values[t] = choice.log_prob(actions[t]), critic(rows[t]).squeeze(1)
                seen, reward, _, truncated, info = env.step(actions[t].numpy())
                rewards[t] = torch.from_numpy(reward)
                if truncated.any():  # all at once; the reward gets the value of what was cut off
                    over[t] = 1
                    last = torch.from_numpy(np.stack(list(info["final_obs"])))
                    rewards[t] += GAMMA * critic(last).squeeze(1)
            following, advantage = critic(torch.from_numpy(seen)).squeeze(1), torch.zeros(WORLDS)
            advantages = torch.zeros(STEPS, WORLDS)
            for t in reversed(range(STEPS)):
                on = 1 - over[t]
                error = rewards[t] + GAMMA * on * following - values[t]
                advantage = error + GAMMA * LAMBDA * on * advantage
                advantages[t], following = advantage, values[t]
            returns = (advantages + values).flatten()
        rows, actions, logs = rows.flatten(0, 1), actions.flatten(), logs.flatten()
        advantages = advantages.flatten()
        for _ in range(EPOCHS):
            for part in torch.randperm(len(rows)).chunk(MINIBATCHES):
                choice, gain = policy_of(rows[part]), advantages[part]
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                ratio = (choice.log_prob(actions[part]) - logs[part]).exp()
                clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
                loss = -torch.minimum(ratio * gain, clipped * gain).mean()
                errors = critic(rows[part]).squeeze(1) - returns[part]
                loss += VALUE * 0.5 * errors.square().mean() - ENTROPY * choice.entropy().mean()
                adam.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, MAX_NORM)
                adam.step()
        rollouts += 1
        decisions += int((rows[:, 0] > 0).sum())
