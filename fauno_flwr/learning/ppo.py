"""PPO (Schulman et al. 2017) on the decisions of stacked agents, in the order of the paper.

A time step is a decision: ticks without one are skipped, and the discount applies from one decision
of a world to the next.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from fauno_flwr.config.agent import MODEL, STATE, PPOConfig
from fauno_flwr.learning.agents import AgentStack, Arrays, get, get_all, put, put_all
from fauno_flwr.learning.networks import ACTION_VALUE_GAIN, Actor, Critic, find_networks
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
        """Update every agent; see :func:`update`."""
        return update(self, batches, rate, rngs)

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


def advantages(
    reward: np.ndarray,
    value: np.ndarray,
    last: np.ndarray,
    gamma: float,
    gae_lambda: float,
    terminal: np.ndarray | None = None,
) -> np.ndarray:
    """Estimate advantages along each world's decisions (GAE, Schulman et al. 2016).

    ``A_t = d_t + gamma lambda A_{t+1}`` with ``d_t = r_t + gamma V_{t+1} - V_t``. The last decision
    of a world (or of a truncated episode) only serves to bootstrap the one before it, and gets 0.
    After a terminal decision nothing follows: ``A_t = r_t - V_t``.

    Parameters
    ----------
    reward, value : array of float, shape (R,)
    last : array of bool, shape (R,)
    gamma, gae_lambda : float
    terminal : array of bool, shape (R,), optional
        Default: none.

    Returns
    -------
    array of float64, shape (R,)
    """
    advantage = np.zeros(len(reward))
    for t in range(len(reward) - 1, -1, -1):
        if terminal is not None and terminal[t]:
            advantage[t] = reward[t] - value[t]
        elif not last[t]:
            delta = reward[t] + gamma * value[t + 1] - value[t]
            advantage[t] = delta + gamma * gae_lambda * advantage[t + 1]
    return advantage


def update(
    population: Population,
    batches: list[Decisions],
    rate: float | np.ndarray,
    rngs: list[np.random.Generator],
) -> list[dict[str, float]]:
    """Update every agent on its own decisions by PPO-Clip.

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
    targets = _targets(config, batches, value, critic.gae_lambda)

    sums = torch.zeros(population.agents, 5)
    parts = torch.zeros(population.agents)
    for _ in range(config.epochs):
        pieces = [
            np.array_split(rng.permutation(keep), config.minibatches)
            for rng, keep in zip(rngs, targets.rows, strict=True)
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
            gain = targets.advantage[agents, index]
            clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
            policy_loss = -torch.minimum(ratio * gain, clipped * gain)
            entropy = -(log_all.exp() * log_all.masked_fill(~legal, 0.0)).sum(2)
            values = critic.evaluate(*(each[agents, index] for each in critic.features))
            value_loss = 0.5 * (values - targets.returns[agents, index]).square()
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
    names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
    means = (sums / parts.clamp(min=1).unsqueeze(1)).tolist()
    return [
        {
            "steps": float(len(keep)),
            **dict(zip(names, mean, strict=True)),
            "explained_variance": explained,
        }
        for keep, mean, explained in zip(targets.rows, means, targets.explained, strict=True)
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


class _Targets(NamedTuple):
    """Targets of an update: A agents, R rows.

    ``advantage`` (normalised per agent) and ``returns`` have the shape (A, R); ``rows`` are the
    rows of each agent to train on, ``explained`` the explained variance of its values.
    """

    advantage: Tensor
    returns: Tensor
    rows: list[np.ndarray]
    explained: list[float]


def _targets(
    config: PPOConfig, batches: list[Decisions], value: np.ndarray, gae_lambda: float
) -> _Targets:
    """Compute advantages of each agent from its values (A, R), and returns with that lambda."""
    targets = _Targets(torch.zeros(value.shape), torch.zeros(value.shape), [], [])
    for agent, batch in enumerate(batches):
        own = value[agent, : len(batch)].astype(np.float64)
        gae = advantages(
            batch.reward, own, batch.last, config.gamma, config.gae_lambda, batch.terminal
        )
        keep = np.flatnonzero(~batch.last)
        scale = gae[keep].std() + 1e-8 if len(keep) else 1.0
        centred = (gae - (gae[keep].mean() if len(keep) else 0.0)) / scale
        targets.advantage[agent, : len(batch)] = torch.from_numpy(centred)
        returns = own + (
            gae
            if gae_lambda == config.gae_lambda
            else advantages(batch.reward, own, batch.last, config.gamma, gae_lambda, batch.terminal)
        )
        targets.returns[agent, : len(batch)] = torch.from_numpy(returns)
        targets.rows.append(keep)
        targets.explained.append(_explained(own[keep], returns[keep]))
    return targets


def _padded(minibatch: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return indices and weights (A, L) of the rows of each agent; padding has weight 0."""
    shape = len(minibatch), max(map(len, minibatch))
    index, weight = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
    for agent, rows in enumerate(minibatch):
        index[agent, : len(rows)] = torch.from_numpy(rows)
        weight[agent, : len(rows)] = 1.0 / max(len(rows), 1)
    return index, weight


def _explained(value: np.ndarray, target: np.ndarray) -> float:
    """Return 1 - variance of the error / variance of the target; 0 for a constant target."""
    spread = float(target.var()) if len(target) > 1 else 0.0
    return 1.0 - float((target - value).var()) / spread if spread > 0 else 0.0
