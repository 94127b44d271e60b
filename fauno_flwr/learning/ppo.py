"""PPO (Schulman et al. 2017) on the decisions of stacked agents, in the order of the paper.

A time step is a decision: ticks without one are skipped, and the discount applies from one decision
of a world to the next.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from fauno_flwr.config.agent import MODEL, PPOConfig
from fauno_flwr.learning.agents import AgentStack, Arrays, get, put
from fauno_flwr.learning.networks import Critic
from fauno_flwr.learning.transitions import Decisions, stack


class Population(AgentStack):
    """A agents that learn by PPO: an actor and a critic each.

    Parameters as of :class:`fauno_flwr.learning.agents.AgentStack`.
    """

    Config = PPOConfig
    TRAINED = ("actor", "critic")
    config: PPOConfig

    def _others(self, generator: torch.Generator) -> dict[str, nn.Module]:
        critic = self._make_critic(generator)
        self.critic = cast(Critic, critic)
        return {"critic": critic}

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

    def get_critic(self, agent: int = 0) -> Arrays:
        """Return the critic parameters of an agent, by name."""
        return get(self.networks["critic"], agent)

    def set_critic(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> None:
        """Replace the critic parameters of an agent."""
        put(self.networks["critic"], arrays, agent)

    def get_shared(self, share: str, agent: int = 0) -> Arrays:
        """Return the critic, or with ``share="model"`` actor and critic."""
        if share != MODEL:
            return self.get_critic(agent)
        parts = {"actor": self.get_actor(agent), "critic": self.get_critic(agent)}
        return {f"{part}.{name}": a for part, arrays in parts.items() for name, a in arrays.items()}

    def set_shared(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> bool:
        """Replace what :meth:`get_shared` returned; returns whether that includes the actor."""
        if not any(name.startswith("actor.") for name in arrays):
            self.set_critic(arrays, agent)
            return False
        for part, module in self.networks.items():
            prefix = f"{part}."
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            put(module, own, agent)
        return True


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
    actor, critic = population.actor, population.critic
    for_actor = actor.features(local, destination, mask)
    for_critic = critic.features(local, destination, mask)
    with torch.no_grad():
        value = critic.values(*for_critic).numpy()
        log_all = torch.log_softmax(actor.scores(*for_actor), dim=2)
        old_log = log_all.gather(2, action.unsqueeze(2)).squeeze(2)

    targets = _targets(config, batches, value)

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
            log_all = torch.log_softmax(scores, dim=2)
            log_new = log_all.gather(2, action[agents, index].unsqueeze(2)).squeeze(2)
            log_ratio = log_new - old_log[agents, index]
            ratio = log_ratio.exp()
            gain = targets.advantage[agents, index]
            clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
            policy_loss = -torch.minimum(ratio * gain, clipped * gain)
            entropy = -(log_all.exp() * log_all.masked_fill(~legal, 0.0)).sum(2)
            values = critic.values(*(each[agents, index] for each in for_critic))
            value_loss = 0.5 * (values - targets.returns[agents, index]).square()
            loss = policy_loss + value_loss - config.entropy * entropy
            (loss * weight).sum().backward()  # type: ignore[no-untyped-call]
            active = weight.sum(1) > 0
            for optimizer in population.optimizers.values():
                optimizer.step(rates, active)

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


class _Targets(NamedTuple):
    """Targets of an update: A agents, R rows.

    ``advantage`` (normalised per agent) and ``returns`` have the shape (A, R); ``rows`` are the
    rows of each agent to train on, ``explained`` the explained variance of its values.
    """

    advantage: Tensor
    returns: Tensor
    rows: list[np.ndarray]
    explained: list[float]


def _targets(config: PPOConfig, batches: list[Decisions], value: np.ndarray) -> _Targets:
    """Compute advantages and returns of each agent from its values (A, R)."""
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
        targets.returns[agent, : len(batch)] = torch.from_numpy(gae + own)
        targets.rows.append(keep)
        targets.explained.append(_explained(own[keep], (gae + own)[keep]))
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
