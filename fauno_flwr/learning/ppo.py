"""PPO (Schulman et al. 2017) on the decisions of stacked agents, in the order of the paper.

Time is counted in decisions: ticks in which an agent has nothing to decide are left out, and the
discount applies from one decision of a world to the next.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.transitions import Decisions
from sim_env.envs.single import EdgeVectorEnv

if TYPE_CHECKING:
    from fauno_flwr.learning.population import Population


def collect(
    env: EdgeVectorEnv,
    view: dict[str, np.ndarray],
    population: AgentStack,
    ticks: int,
    rng: np.random.Generator,
) -> tuple[Decisions, dict[str, np.ndarray]]:
    """Step `env` for `ticks` with the first agent of `population`.

    Parameters
    ----------
    env : EdgeVectorEnv
        With ``peers="self"`` its other agents follow the same actor.
    view : dict
        Its last observation.
    population : AgentStack
    ticks : int
    rng : Generator
        Samples the actions.

    Returns
    -------
    Decisions, dict
        What happened, and the last observation.
    """
    actor = population.policy()
    env.set_actor(actor)
    rows: list[tuple[np.ndarray, ...]] = []
    actions = np.zeros(env.num_envs, np.int64)
    # Rewards by row; `newest` is the row of each world's newest decision, at first one behind all
    # for what comes before there is any.
    earned = np.zeros(ticks * env.num_envs + 1)
    newest, count = np.full(env.num_envs, len(earned) - 1), 0
    for _ in range(ticks):
        deciding = np.flatnonzero(view["local"][:, 0])
        actions[:] = 0
        if len(deciding):
            local, destination = view["local"][deciding], view["destinations"][deciding]
            mask = view["action_mask"][deciding] > 0
            actions[deciding] = actor.choose(0, local, destination, mask, rng)
            rows.append((deciding, local, destination, mask, actions[deciding]))
            newest[deciding] = np.arange(count, count + len(deciding))
            count += len(deciding)
        view, reward, _, _, _ = env.step(actions)
        earned[newest] += reward
    if not rows:
        # Nothing to decide in all this time: no rows, of the right widths.
        nothing = np.zeros(0, np.int64)
        widths = (view["local"][:0], view["destinations"][:0], view["action_mask"][:0] > 0)
        return Decisions(*widths, nothing, nothing.astype(np.float32), nothing > 0), view
    world, local, destination, mask, action = (
        np.concatenate(column) for column in zip(*rows, strict=True)
    )
    order = np.argsort(world, kind="stable")
    last = np.append(np.diff(world[order]) != 0, True)
    return (
        Decisions(
            local[order],
            destination[order],
            mask[order],
            action[order],
            earned[order].astype(np.float32),
            last,
        ),
        view,
    )


def advantages(
    reward: np.ndarray,
    value: np.ndarray,
    last: np.ndarray,
    gamma: float,
    gae_lambda: float,
    terminal: np.ndarray | None = None,
) -> np.ndarray:
    """Generalised advantage estimation (Schulman et al. 2016) along each world's decisions.

    ``A_t = d_t + gamma lambda A_{t+1}`` with ``d_t = r_t + gamma V_{t+1} - V_t``. The last decision
    of a world (or of a truncated episode) only lends its value to the one before it, and gets 0.
    Nothing follows a terminal one: ``A_t = r_t - V_t``.

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
    population: "Population",
    batches: list[Decisions],
    rate: float | np.ndarray,
    rngs: list[np.random.Generator],
) -> list[dict[str, float]]:
    """One PPO update of every agent on its own decisions.

    Parameters
    ----------
    population : Population
        Of A agents.
    batches : list of Decisions
        One per agent. An agent with fewer than two decisions in every world stays as it is.
    rate : float or array of float, shape (A,)
        Learning rate, of all or of each.
    rngs : list of Generator
        One per agent, for the order of its decisions: an agent learns the same alone and among
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

    # Advantages and returns, each agent by itself.
    rows = action.shape[1]
    advantage = torch.zeros(population.agents, rows)
    returns = torch.zeros(population.agents, rows)
    usable: list[np.ndarray] = []
    variance_left: list[float] = []
    for agent, batch in enumerate(batches):
        own = value[agent, : len(batch)].astype(np.float64)
        gae = advantages(
            batch.reward, own, batch.last, config.gamma, config.gae_lambda, batch.terminal
        )
        keep = np.flatnonzero(~batch.last)
        usable.append(keep)
        variance_left.append(_explained(own[keep], (gae + own)[keep]))
        scale = gae[keep].std() + 1e-8 if len(keep) else 1.0
        centred = (gae - (gae[keep].mean() if len(keep) else 0.0)) / scale
        advantage[agent, : len(batch)] = torch.from_numpy(centred)
        returns[agent, : len(batch)] = torch.from_numpy(gae + own)

    sums = torch.zeros(population.agents, 5)
    parts = torch.zeros(population.agents)
    for _ in range(config.epochs):
        pieces = [
            np.array_split(rng.permutation(keep), config.minibatches)
            for rng, keep in zip(rngs, usable, strict=True)
        ]
        for minibatch in zip(*pieces, strict=True):
            # (A, L) rows of this minibatch, the shorter ones filled up with weight 0.
            longest = max(map(len, minibatch))
            if longest == 0:
                continue
            index = torch.zeros(population.agents, longest, dtype=torch.int64)
            weight = torch.zeros(population.agents, longest)
            for agent, piece in enumerate(minibatch):
                index[agent, : len(piece)] = torch.from_numpy(piece)
                weight[agent, : len(piece)] = 1.0 / max(len(piece), 1)
            agents = torch.arange(population.agents).unsqueeze(1)
            legal = mask[agents, index]

            # Clipped surrogate, value loss and entropy; a sum over agents keeps them apart.
            scores = actor.scores(*(each[agents, index] for each in for_actor))
            log_all = torch.log_softmax(scores, dim=2)
            log_new = log_all.gather(2, action[agents, index].unsqueeze(2)).squeeze(2)
            log_ratio = log_new - old_log[agents, index]
            ratio = log_ratio.exp()
            gain = advantage[agents, index]
            clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
            policy_loss = -torch.minimum(ratio * gain, clipped * gain)
            entropy = -(log_all.exp() * log_all.masked_fill(~legal, 0.0)).sum(2)
            values = critic.values(*(each[agents, index] for each in for_critic))
            value_loss = 0.5 * (values - returns[agents, index]).square()
            loss = policy_loss + value_loss - config.entropy * entropy
            (loss * weight).sum().backward()  # type: ignore[no-untyped-call]
            active = weight.sum(1) > 0
            for optimizer in population.optimizers.values():
                optimizer.step(rates, active)

            with torch.no_grad():
                kl = ratio - 1 - log_ratio
                beyond = ((ratio - 1).abs() > config.clip).float()
                told = torch.stack([policy_loss, value_loss, entropy, kl, beyond], dim=2)
                sums += (told * weight.unsqueeze(2)).sum(1)
                parts += active
    names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
    means = (sums / parts.clamp(min=1).unsqueeze(1)).tolist()
    return [
        {
            "steps": float(len(keep)),
            **dict(zip(names, mean, strict=True)),
            "explained_variance": left,
        }
        for keep, mean, left in zip(usable, means, variance_left, strict=True)
    ]


def stack(
    batches: list[Decisions],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Padded tensors (A, R, ...) of the batches of all agents; padding may only be kept."""
    rows = max(1, max(map(len, batches)))
    slots = max(batch.mask.shape[1] for batch in batches)
    count, features = len(batches), batches[0].destination.shape[2]
    local = torch.zeros(count, rows, batches[0].local.shape[1])
    destination = torch.zeros(count, rows, slots, features)
    mask = torch.zeros(count, rows, slots, dtype=torch.bool)
    action = torch.zeros(count, rows, dtype=torch.int64)
    mask[:, :, 0] = True
    for agent, batch in enumerate(batches):
        size, width = batch.mask.shape
        local[agent, :size] = torch.from_numpy(batch.local)
        destination[agent, :size, :width] = torch.from_numpy(batch.destination)
        mask[agent, :size, :width] = torch.from_numpy(batch.mask)
        action[agent, :size] = torch.from_numpy(batch.action)
    return local, destination, mask, action


def _explained(value: np.ndarray, target: np.ndarray) -> float:
    """1 - variance of the error / variance of the target; 0 where the target does not vary."""
    spread = float(target.var()) if len(target) > 1 else 0.0
    return 1.0 - float((target - value).var()) / spread if spread > 0 else 0.0
