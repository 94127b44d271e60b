"""A agents side by side: parameters, optimiser state and gradient clipping, each agent's own.

A = 1 in a Flower client; all agents of a network in the joint evaluation.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fauno_flwr.config import AgentConfig
from fauno_flwr.networks import EquivariantActor, PooledCritic
from sim_env.features import OBSERVATIONS
from sim_env.observation import Observation

Arrays = dict[str, np.ndarray]


class StackedAdam:
    """Adam (Kingma and Ba 2015) on stacked parameters, with one step counter per agent.

    Parameters
    ----------
    module : nn.Module
        Parameters with a leading agent axis.
    max_norm : float
        The gradient of each agent is clipped to this norm.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-5  # the epsilon of the published PPO code, not of Adam

    def __init__(self, module: nn.Module, max_norm: float) -> None:
        self.parameters = list(module.parameters())
        self.max_norm = max_norm
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = torch.zeros(self.parameters[0].shape[0])

    @torch.no_grad()
    def step(self, rate: float, active: Tensor) -> None:
        """Step the agents for which `active` (A,) is true; the others keep everything."""
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
        scale = (self.max_norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        self.steps += active
        shape = (-1, 1, 1)
        on = active.reshape(shape)
        for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
            g = g * scale.reshape(shape)
            m.copy_(torch.where(on, self.BETAS[0] * m + (1 - self.BETAS[0]) * g, m))
            v.copy_(torch.where(on, self.BETAS[1] * v + (1 - self.BETAS[1]) * g * g, v))
            steps = self.steps.clamp(min=1).reshape(shape)
            unbiased = m / (1 - self.BETAS[0] ** steps)
            spread = (v / (1 - self.BETAS[1] ** steps)).sqrt() + self.EPSILON
            p.sub_(torch.where(on, rate * unbiased / spread, 0.0))
            p.grad = None

    def state(self) -> dict[str, Any]:
        """Moments and counters."""
        return {"first": self.first, "second": self.second, "steps": self.steps}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        for mine, theirs in zip(
            [*self.first, *self.second, self.steps],
            [*state["first"], *state["second"], state["steps"]],
            strict=True,
        ):
            mine.copy_(theirs)


class Population:
    """Actors and critics of A agents; all agents start with the same weights.

    Parameters
    ----------
    agents : int
        A.
    config : AgentConfig
    seed : int
        Of the start.
    observation : str, default "full"
        What the agents see; it sets the widths of the networks.
    """

    def __init__(
        self, agents: int, config: AgentConfig, seed: int, observation: str = "full"
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.agents, self.config = agents, config
        encoding = OBSERVATIONS[observation]
        self.actor = EquivariantActor(agents, encoding, config.hidden, generator)
        self.critic = PooledCritic(agents, encoding, config.hidden, generator)
        self.actor_optimizer = StackedAdam(self.actor, config.max_grad_norm)
        self.critic_optimizer = StackedAdam(self.critic, config.max_grad_norm)

    def get_critic(self, agent: int = 0) -> Arrays:
        """Critic parameters of an agent, by name; this is what travels."""
        return _get(self.critic, agent)

    def set_critic(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> None:
        """Replace the critic parameters of an agent."""
        _set(self.critic, arrays, agent)

    def get_actor(self, agent: int = 0) -> Arrays:
        """Actor parameters of an agent, by name."""
        return _get(self.actor, agent)

    def set_actor(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> None:
        """Replace the actor parameters of an agent."""
        _set(self.actor, arrays, agent)

    def save(self) -> bytes:
        """Everything that training changes."""
        file = io.BytesIO()
        torch.save(
            {
                "actor": self.actor.state_dict(),
                "critic": self.critic.state_dict(),
                "actor_optimizer": self.actor_optimizer.state(),
                "critic_optimizer": self.critic_optimizer.state(),
            },
            file,
        )
        return file.getvalue()

    def load(self, data: bytes) -> None:
        """Take back what :meth:`save` gave."""
        state = torch.load(io.BytesIO(data), weights_only=True)
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])
        self.actor_optimizer.load(state["actor_optimizer"])
        self.critic_optimizer.load(state["critic_optimizer"])

    def policy(
        self, agent_of_node: np.ndarray | None = None, greedy: bool = False
    ) -> "ActorPolicy":
        """The actors as they are now, as a policy for a world.

        Parameters
        ----------
        agent_of_node : array of int, shape (N,), optional
            Which actor decides for each node; default: the first one for all.
        greedy : bool, default False
            Take the most probable action instead of a sampled one.
        """
        layers = [
            (weight.detach().numpy().copy(), bias.detach().numpy().copy())
            for weight, bias in zip(self.actor.weights, self.actor.biases, strict=True)
        ]
        return ActorPolicy(layers, agent_of_node, greedy)


class ActorPolicy:
    """Stacked actors in numpy: ten times less overhead than torch for the few rows of a tick."""

    def __init__(
        self,
        layers: list[tuple[np.ndarray, np.ndarray]],
        agent_of_node: np.ndarray | None,
        greedy: bool,
    ) -> None:
        self.layers, self.agent_of_node, self.greedy = layers, agent_of_node, greedy

    def __call__(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        """Actions, shape (R,)."""
        local, destination = observation.features()
        mask = observation.mask
        if self.agent_of_node is None:
            scores = self.scores(0, local, destination, mask)
        else:
            scores = np.empty(mask.shape, np.float32)
            agents = self.agent_of_node[observation.node]
            for agent in np.unique(agents):
                mine = agents == agent
                scores[mine] = self.scores(agent, local[mine], destination[mine], mask[mine])
        if (
            not self.greedy
        ):  # the largest of the scores plus Gumbel noise is a sample of the softmax
            scores = scores + rng.gumbel(size=scores.shape)
        return np.asarray(scores.argmax(axis=1))

    def scores(
        self, agent: int, local: np.ndarray, destination: np.ndarray, mask: np.ndarray
    ) -> np.ndarray:
        """Logits of one agent, minus infinity where illegal, shape (R, K)."""
        rows, slots = np.nonzero(mask)
        legal = destination[rows, slots]
        first = np.flatnonzero(slots == 0)  # slot 0 is always legal, so it begins each row
        best = np.minimum.reduceat(legal, first, axis=0)
        x = np.concatenate([local[rows], legal, legal - best[rows]], axis=1)
        for layer, (weight, bias) in enumerate(self.layers):
            x = x @ weight[agent] + bias[agent]
            if layer < 2:
                x = np.tanh(x)
        scores = np.full(mask.shape, -np.inf, np.float32)
        scores[rows, slots] = x[:, 0]
        return scores


def _get(module: nn.Module, agent: int) -> Arrays:
    return {name: p.detach()[agent].numpy().copy() for name, p in module.named_parameters()}


@torch.no_grad()
def _set(module: nn.Module, arrays: Mapping[str, np.ndarray], agent: int) -> None:
    for name, p in module.named_parameters():
        p[agent] = torch.from_numpy(np.array(arrays[name]))
