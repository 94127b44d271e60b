"""PPO (Schulman et al. 2017) on the decisions of stacked agents, in the order of the paper.

A time step is a decision: ticks without one are skipped, and the discount applies from one decision
of a world to the next.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from fauno_flwr.config.agent import MODEL, STATE, PPOConfig
from fauno_flwr.learning import dense_ppo
from fauno_flwr.learning.agents import AgentStack, Arrays, Learner, get, get_all, put, put_all
from fauno_flwr.learning.dense import DenseNetwork
from fauno_flwr.learning.networks import ACTION_VALUE_GAIN, Actor, Critic, find_networks
from fauno_flwr.learning.targets import targets
from fauno_flwr.learning.transitions import Decisions, stack


class Population(AgentStack):
    """A agents that learn by PPO: an actor and a critic each.

    Parameters as of :class:`fauno_flwr.learning.agents.AgentStack`.
    """

    Config = PPOConfig
    TRAINED = ("actor", "critic")
    config: PPOConfig

    def _others(self, generator: torch.Generator) -> dict[str, nn.Module]:
        networks = find_networks(self.config.network)
        if self.config.critic == STATE:
            self.critic = networks.critic(self.sizes, generator)
        else:
            sizes = self.sizes._replace(prior=0.0, gain=ACTION_VALUE_GAIN)
            self.critic = networks.actor(sizes, generator)
        return {"critic": self.critic}

    @property
    def acting(self) -> dict[str, float]:
        """The actor, and a critic of actions: its values, divided by the temperature."""
        if self.config.critic == STATE:
            return super().acting
        return {"actor": 1.0, "critic": 1.0 / self.config.temperature}

    def exploration(self) -> tuple[bool, np.ndarray]:
        """Sample actions from the softmax."""
        return True, np.zeros(self.agents)

    def learn(
        self,
        batches: list[Decisions],
        rate: float | np.ndarray,
        rngs: list[np.random.Generator],
    ) -> list[dict[str, float]]:
        """Update every agent by PPO-Clip; an agent without two decisions in a world stays as it is.

        Returns
        -------
        list of dict
            Per agent ``steps`` (decisions trained on), ``policy_loss``, ``value_loss``,
            ``entropy``, ``approx_kl``, ``clip_fraction`` and ``explained_variance``.
        """
        if not self.learns_one_by_one:
            return update(self, batches, rate, rngs)
        rates = np.broadcast_to(np.asarray(rate, np.float64), self.agents)
        metrics = []
        for agent, (batch, rng) in enumerate(zip(batches, rngs, strict=True)):
            learner = self.learner(agent)
            metrics.append(learner.learn(batch, rates[agent], rng))
            learner.write()
        return metrics

    @property
    def learns_one_by_one(self) -> bool:
        """Whether agents learn as fast one by one, in compiled code."""
        changed = type(self).learn is not Population.learn
        return not changed and dense_ppo.is_supported(self.config, self.actor, self.critic)

    def learner(self, agent: int) -> Learner:
        """Return a copy of an agent that learns on its own, in compiled code if it can."""
        if not self.learns_one_by_one:
            return super().learner(agent)
        actor, critic = (DenseNetwork(self.optimizers[name], agent) for name in self.TRAINED)
        return dense_ppo.Learner(self.config, actor, critic)

    def groups(self, batches: list[Decisions]) -> list[list[int]]:
        """Group agents to learn side by side: all, where that needs no padding."""
        if self.learns_one_by_one:
            return [list(range(self.agents))]
        return super().groups(batches)

    def critic_of(
        self, features: tuple[Tensor, ...], decisions: tuple[Tensor, ...]
    ) -> "_CriticOfStates | _CriticOfActions":
        """Return the critic as an update needs it.

        Parameters
        ----------
        features : tuple of Tensor
            Those of the actor, which a critic of actions shares.
        decisions : tuple of Tensor
            See :class:`_CriticOfStates`.
        """
        if self.config.critic == STATE:
            return _CriticOfStates(self, decisions)
        return _CriticOfActions(self, features, decisions)

    def get_critic(self, agent: int = 0) -> Arrays:
        """Return the critic parameters of an agent, by name."""
        return get(self.critic, agent)

    def set_critic(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> None:
        """Replace the critic parameters of an agent."""
        put(self.critic, arrays, agent)

    def get_shared(self, share: str, agent: int = 0) -> Arrays:
        """Return the critic, or with ``share="model"`` actor and critic."""
        return get_all(self.networks, agent) if share == MODEL else self.get_critic(agent)

    def set_shared(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> bool:
        """Replace what :meth:`get_shared` returned; returns whether that includes what acts."""
        if any(name.startswith("actor.") for name in arrays):
            put_all(self.networks, arrays, agent)
            return True
        self.set_critic(arrays, agent)
        return "critic" in self.acting


def update(
    population: Population,
    batches: list[Decisions],
    rate: float | np.ndarray,
    rngs: list[np.random.Generator],
) -> list[dict[str, float]]:
    """Update every agent on its own decisions by PPO-Clip, whatever its networks are.

    Parameters
    ----------
    population : Population
        A agents.
    batches : list of Decisions
        One batch per agent. An agent with fewer than two decisions in every world is not changed.
    rate : float or array of float, shape (A,)
        Learning rate, common or per agent.
    rngs : list of Generator
        One generator per agent, for its minibatches: an agent learns the same alone and beside
        others.

    Returns
    -------
    list of dict
        Per agent ``steps`` (decisions trained on), ``policy_loss``, ``value_loss``, ``entropy``,
        ``approx_kl``, ``clip_fraction`` and ``explained_variance``.
    """
    config = population.config
    rates = torch.from_numpy(np.broadcast_to(rate, population.agents).astype(np.float32))
    local, destination, mask, action = stack(batches)
    actor = population.actor
    for_actor = actor.features(local, destination, mask)
    critic = population.critic_of(for_actor, (local, destination, mask, action))
    with torch.no_grad():
        log_all = torch.log_softmax(actor.scores(*for_actor) + critic.offset, dim=2)
        old_log = log_all.gather(2, action.unsqueeze(2)).squeeze(2)
        value = critic.state_values(log_all.exp()).numpy()
    found = [
        targets(config, batch, value[agent, : len(batch)], critic.gae_lambda)
        for agent, batch in enumerate(batches)
    ]
    advantage, returns = torch.zeros(value.shape), torch.zeros(value.shape)
    for agent, (batch, own) in enumerate(zip(batches, found, strict=True)):
        advantage[agent, : len(batch)] = torch.from_numpy(own.advantage)
        returns[agent, : len(batch)] = torch.from_numpy(own.returns)

    sums = torch.zeros(population.agents, 5)
    parts = torch.zeros(population.agents)
    for _ in range(config.epochs):
        pieces = [
            np.array_split(rng.permutation(own.rows), config.minibatches)
            for rng, own in zip(rngs, found, strict=True)
        ]
        for minibatch in zip(*pieces, strict=True):
            if not any(map(len, minibatch)):
                continue
            index, weight = _padded(minibatch)
            agents = torch.arange(population.agents).unsqueeze(1)
            legal = mask[agents, index]

            # Summed over agents, the losses stay separate: no parameter is shared.
            scores = actor.scores(*(each[agents, index] for each in for_actor))
            log_all = torch.log_softmax(scores + critic.offset_at(agents, index), dim=2)
            log_new = log_all.gather(2, action[agents, index].unsqueeze(2)).squeeze(2)
            log_ratio = log_new - old_log[agents, index]
            ratio = log_ratio.exp()
            gain = advantage[agents, index]
            clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
            policy_loss = -torch.minimum(ratio * gain, clipped * gain)
            entropy = -(log_all.exp() * log_all.masked_fill(~legal, 0.0)).sum(2)
            values = critic.evaluate(*(each[agents, index] for each in critic.features))
            value_loss = 0.5 * (values - returns[agents, index]).square()
            loss = value_loss
            if config.learn_actor:
                loss = policy_loss + value_loss - config.entropy * entropy
            (loss * weight).sum().backward()  # type: ignore[no-untyped-call]
            active = weight.sum(1) > 0
            if config.learn_actor:
                population.optimizers["actor"].step(rates, active)
            population.optimizers["critic"].step(rates * config.critic_rate, active)

            with torch.no_grad():
                kl = ratio - 1 - log_ratio
                beyond = ((ratio - 1).abs() > config.clip).float()
                metrics = torch.stack([policy_loss, value_loss, entropy, kl, beyond], dim=2)
                sums += (metrics * weight.unsqueeze(2)).sum(1)
                parts += active
    means = (sums / parts.clamp(min=1).unsqueeze(1)).tolist()
    return [
        {
            "steps": float(len(own.rows)),
            **dict(zip(dense_ppo.METRICS, mean, strict=True)),
            "explained_variance": own.explained,
        }
        for own, mean in zip(found, means, strict=True)
    ]


class _CriticOfStates:
    """The critic ``V(s)`` during an update: the baseline of the advantages.

    Parameters
    ----------
    population : Population
    decisions : tuple of Tensor
        Local features, features of the slots, mask and actions of the batch, each (A, R, ...).

    Attributes
    ----------
    features : tuple of Tensor
        What :meth:`evaluate` takes, of all rows.
    """

    offset = 0.0  # that the critic adds to the scores of the actor

    def __init__(self, population: Population, decisions: tuple[Tensor, ...]) -> None:
        self.critic = cast(Critic, population.critic)
        self.features = self.critic.features(*decisions[:3])
        self.evaluate = self.critic.values
        self.gae_lambda = population.config.gae_lambda  # of the targets

    def state_values(self, probability: Tensor) -> Tensor:
        """Return the values of the states (A, R)."""
        return self.critic.values(*self.features)

    def offset_at(self, agents: Tensor, index: Tensor) -> float:
        """Return the offset of some rows."""
        return self.offset


class _CriticOfActions:
    """The critic ``Q(s, a)`` during an update; it also acts.

    The policy is the softmax of ``actor(s, a) + Q(s, a) / T``; in that sum Q is the one from before
    the update, a constant: the policy's loss has no gradient in the critic. The value of a state is
    ``sum_a pi(a | s) Q(s, a)``, and the target of Q is ``r + gamma V(s')`` (expected SARSA).

    Parameters, attributes and methods as of :class:`_CriticOfStates`.
    """

    gae_lambda = 0.0  # of the targets

    @torch.no_grad()
    def __init__(
        self, population: Population, features: tuple[Tensor, ...], decisions: tuple[Tensor, ...]
    ) -> None:
        critic = cast(Actor, population.critic)
        legal, action = decisions[2:]
        self.values = critic.scores(*features).masked_fill(~legal, 0.0)
        self.offset = self.values / population.config.temperature
        self.features = critic.taken(features, action)
        self.evaluate = critic.score

    def state_values(self, probability: Tensor) -> Tensor:
        """Return the values of the states (A, R) under the policy (A, R, K)."""
        return (probability * self.values).sum(2)

    def offset_at(self, agents: Tensor, index: Tensor) -> Tensor:
        """Return the offset of some rows."""
        return self.offset[agents, index]


def _padded(minibatch: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return indices and weights (A, L) of the rows of each agent; padding has weight 0."""
    shape = len(minibatch), max(map(len, minibatch))
    index, weight = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
    for agent, rows in enumerate(minibatch):
        index[agent, : len(rows)] = torch.from_numpy(rows)
        weight[agent, : len(rows)] = 1.0 / max(len(rows), 1)
    return index, weight
