"""PPO-Clip of one agent in numpy, for networks with one output per row: the default ones.

The same algorithm as :func:`fauno_flwr.learning.ppo.update`, several times faster: only legal slots
are rows, without padding, and the gradients are those of :mod:`fauno_flwr.learning.dense`. A test
compares the two.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import nn

from fauno_flwr.config.agent import STATE, PPOConfig
from fauno_flwr.learning.dense import DenseNetwork
from fauno_flwr.learning.networks import EquivariantActor, PooledCritic
from fauno_flwr.learning.targets import Targets, targets
from fauno_flwr.learning.transitions import Decisions

CHUNK = 2048  # rows whose activations are in the cache at once
METRICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


def is_supported(config: PPOConfig, actor: nn.Module, critic: nn.Module) -> bool:
    """Return whether the networks are those that this module computes: of these very classes."""
    expected = PooledCritic if config.critic == STATE else EquivariantActor
    return type(actor) is EquivariantActor and type(critic) is expected


class Rows(NamedTuple):
    """The legal slots of R decisions, S in all, one after the other, as inputs of the networks.

    Parameters
    ----------
    x : array of float32, shape (S, I)
        ``[local, x_k, x_k - min_j x_j]`` of each legal slot.
    first, number : array of int64, shape (R,)
        First slot of each decision, and their number.
    taken : array of int64, shape (R,)
        The slot that was chosen.
    """

    x: np.ndarray
    first: np.ndarray
    number: np.ndarray
    taken: np.ndarray

    @classmethod
    def of(cls, batch: Decisions) -> "Rows":
        """Select and join the features of the legal slots."""
        count = batch.mask.sum(axis=1)
        first = np.cumsum(count) - count
        slot = batch.destination[batch.mask]
        least = np.minimum.reduceat(slot, first, axis=0) if len(count) else slot
        own, width = batch.local.shape[1], slot.shape[1]
        x = np.empty((len(slot), own + 2 * width), np.float32)
        x[:, :own] = np.repeat(batch.local, count, axis=0)
        x[:, own : own + width] = slot
        np.subtract(slot, np.repeat(least, count, axis=0), out=x[:, own + width :])
        place = np.cumsum(batch.mask, axis=1)[np.arange(len(count)), batch.action] - 1
        return cls(x, first, count, first + place)

    def slots(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the slots of some decisions: indices, and first and number in that selection."""
        count = self.number[rows]
        first = np.cumsum(count) - count
        index = (self.first[rows] - first).repeat(count)
        index += np.arange(len(index))
        return index, first, count


def state_inputs(batch: Decisions) -> np.ndarray:
    """Return the inputs of a critic of states, ``[local, x_self, mean_k x_k, min_k x_k]``."""
    legal = batch.mask[:, :, None]
    mean = (batch.destination * legal).sum(axis=1) / legal.sum(axis=1)
    least = np.where(legal, batch.destination, np.float32(np.inf)).min(axis=1)
    parts = [batch.local, batch.destination[:, 0], mean, least]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def log_softmax(score: np.ndarray, first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the logarithms of the softmax of each decision's scores (S,)."""
    if not len(first):
        return score
    shifted = score - np.maximum.reduceat(score, first).repeat(count)
    total = np.add.reduceat(np.exp(shifted), first)
    shifted -= np.log(total).repeat(count)
    return shifted


class Learner:
    """One agent, during an update on its own decisions.

    Parameters
    ----------
    config : PPOConfig
    actor, critic : DenseNetwork
        For which :func:`is_supported` is true.
    batch : Decisions
    """

    def __init__(
        self, config: PPOConfig, actor: DenseNetwork, critic: DenseNetwork, batch: Decisions
    ) -> None:
        self.config, self.actor, self.critic = config, actor, critic
        rows = self.rows = Rows.of(batch)
        score = self.actor.values(rows.x, CHUNK)
        self.offset: np.ndarray
        if self.config.critic == STATE:
            self.offset, gae_lambda = np.zeros(1, np.float32), self.config.gae_lambda
            self.state = state_inputs(batch)
            self.logs = log_softmax(score, rows.first, rows.number)
            value = self.critic.values(self.state, CHUNK)
        else:
            # A constant of the policy: the critic from before the update.
            action_value, gae_lambda = self.critic.values(rows.x, CHUNK), 0.0
            self.state = rows.x[rows.taken]
            self.offset = action_value / np.float32(self.config.temperature)
            self.logs = log_softmax(score + self.offset, rows.first, rows.number)
            expected = np.exp(self.logs) * action_value
            value = np.add.reduceat(expected, rows.first) if len(batch) else expected
        self.old_log = self.logs[rows.taken]
        self.targets: Targets = targets(self.config, batch, value, gae_lambda)

    def learn(self, rate: float, rng: np.random.Generator) -> dict[str, float]:
        """Update the networks; return the metrics of the update."""
        config, keep = self.config, self.targets.rows
        sums, parts = np.zeros(len(METRICS)), 0
        for _ in range(config.epochs):
            for minibatch in np.array_split(rng.permutation(keep), config.minibatches):
                if not len(minibatch):
                    continue
                for rows in self.chunks(minibatch):
                    sums += self.backward(rows, np.float32(1 / len(minibatch)))
                parts += 1
                if config.learn_actor:
                    self.actor.step(rate)
                self.critic.step(rate * config.critic_rate)
        self.actor.write()
        self.critic.write()
        means = dict(zip(METRICS, (sums / max(parts, 1)).tolist(), strict=True))
        explained = self.targets.explained
        return {"steps": float(len(keep)), **means, "explained_variance": explained}

    def chunks(self, minibatch: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the decisions of a minibatch in parts of about :data:`CHUNK` slots."""
        ends = self.rows.number[minibatch].cumsum()
        if ends[-1] <= CHUNK:
            yield minibatch
            return
        cuts = np.searchsorted(ends, np.arange(CHUNK, ends[-1], CHUNK))
        yield from (part for part in np.split(minibatch, np.unique(cuts)) if len(part))

    def backward(self, rows: np.ndarray, weight: np.float32) -> np.ndarray:
        """Add the gradients of the losses of some decisions; return their metrics, summed.

        Parameters
        ----------
        rows : array of int
        weight : float32
            Of each decision.
        """
        config = self.config
        index, first, count = self.rows.slots(rows)
        x = self.rows.x.take(index, axis=0)
        one, two = self.actor.hidden(x)
        score = self.actor.output(two)
        score += self.offset[index] if len(self.offset) > 1 else self.offset
        logs = log_softmax(score, first, count)
        chance = np.exp(logs)
        entropy = -np.add.reduceat(chance * logs, first)
        taken = first + (self.rows.taken - self.rows.first)[rows]

        log_ratio = logs[taken] - self.old_log[rows]
        ratio, gain = np.exp(log_ratio), self.targets.advantage[rows]
        clipped = np.minimum(np.maximum(ratio, 1 - config.clip), 1 + config.clip)
        plain = ratio * gain
        surrogate = np.minimum(plain, clipped * gain)
        if config.learn_actor:
            # Where clipping decides, the loss does not depend on the ratio.
            slope = plain * ((plain <= surrogate) | (ratio == clipped))
            # Of -surrogate - entropy_weight * entropy, by the scores of all slots.
            by_score = logs + entropy.repeat(count)
            by_score *= np.float32(config.entropy)
            by_score += slope.repeat(count)
            by_score *= chance
            by_score[taken] -= slope
            by_score *= weight
            self.actor.backward(x, one, two, by_score)

        state = self.state[rows]
        one, two = self.critic.hidden(state)
        error = self.critic.output(two) - self.targets.returns[rows]
        self.critic.backward(state, one, two, error * weight)

        kl = ratio - 1 - log_ratio
        beyond = np.abs(ratio - 1) > config.clip
        metrics = -surrogate, 0.5 * error * error, entropy, kl, beyond
        return np.array([np.add.reduce(metric) for metric in metrics], np.float64) * weight
