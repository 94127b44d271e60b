"""PPO-Clip of one agent in compiled code, for networks with one output per row: the default ones.

The same algorithm as :func:`fauno_flwr.learning.ppo.update`, several times faster: only legal slots
are rows, without padding, and the gradients are those of :mod:`fauno_flwr.learning.dense`. A test
compares the two.
"""

from typing import NamedTuple

import numpy as np
from torch import nn

from fauno_flwr.config.agent import STATE, PPOConfig
from fauno_flwr.learning.arithmetic import copy
from fauno_flwr.learning.dense import (
    BLOCK,
    DenseNetwork,
    backward,
    forward,
    make_activations,
    step,
)
from fauno_flwr.learning.networks import EquivariantActor, PooledCritic
from fauno_flwr.learning.targets import Targets, targets
from fauno_flwr.learning.transitions import Decisions
from sim_env.engine.compilation import compiled, part

METRICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


def is_supported(config: PPOConfig, actor: nn.Module, critic: nn.Module) -> bool:
    """Return whether the networks are those that this module computes: of these very classes."""
    expected = PooledCritic if config.critic == STATE else EquivariantActor
    return type(actor) is EquivariantActor and type(critic) is expected


ONE, ZERO = np.float32(1), np.float32(0)


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
        number = batch.mask.sum(axis=1)
        first = np.cumsum(number) - number
        inputs = batch.local.shape[1] + 2 * batch.destination.shape[2]
        x = np.empty((int(number.sum()), inputs), np.float32)
        rows = cls(x, first, number, np.empty_like(first))
        join(batch.local, batch.destination, batch.mask, batch.action, rows)
        return rows


@compiled
def join(local, destination, mask, action, rows):
    """Fill ``rows.x`` and ``rows.taken``."""
    own, width = local.shape[1], destination.shape[2]
    for r in range(len(local)):
        first, slot = rows.first[r], 0
        for k in range(mask.shape[1]):
            if not mask[r, k]:
                continue
            x = rows.x[first + slot]
            copy(local[r], x)
            copy(destination[r, k], x[own:])
            if k == action[r]:
                rows.taken[r] = first + slot
            slot += 1
        for f in range(width):
            least = rows.x[first, own + f]
            for k in range(1, slot):
                least = min(least, rows.x[first + k, own + f])
            for k in range(slot):
                rows.x[first + k, own + width + f] = rows.x[first + k, own + f] - least


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


class Batch(NamedTuple):
    """What R decisions with S legal slots in all are trained on."""

    x: np.ndarray  # float32 (S, I): inputs of the actor
    first: np.ndarray  # int64 (R,): first slot of each decision
    number: np.ndarray  # int64 (R,): of its slots
    taken: np.ndarray  # int64 (R,): the slot that was chosen
    offset: np.ndarray  # float32 (S,): added to the actor's scores
    state: np.ndarray  # float32 (R, J): inputs of the critic
    old_log: np.ndarray  # float32 (R,): logarithm of the probability of the choice
    advantage: np.ndarray  # float32 (R,)
    returns: np.ndarray  # float32 (R,)


class Hyperparameters(NamedTuple):
    """Settings of PPO as compiled code takes them."""

    actor_rate: float
    critic_rate: float
    clip: np.float32
    entropy: np.float32
    learn_actor: bool


@compiled
def learn(actor, critic, batch, order, ends, settings, score_room, value_room, sums):
    """Take a step of each network by each minibatch; add the metrics to `sums` (5,).

    Parameters
    ----------
    actor, critic : Network
    batch : Batch
    order : array of int64
        The decisions of all minibatches, one minibatch after the other.
    ends : array of int64
        Where each minibatch ends in that order.
    settings : Hyperparameters
    score_room, value_room : Activations
        Of actor and critic; with room for as many rows as any decision has slots.
    sums : array of float64
        In the order of :data:`METRICS`.
    """
    begin = 0
    for end in ends:
        weight, block = np.float32(1.0 / max(end - begin, 1)), begin
        while block < end:
            block = learn_block(
                actor,
                critic,
                batch,
                order,
                block,
                end,
                weight,
                settings,
                score_room,
                value_room,
                sums,
            )
        if end > begin:
            if settings.learn_actor:
                step(actor, settings.actor_rate)
            step(critic, settings.critic_rate)
        begin = end


@part
def learn_block(
    actor, critic, batch, order, begin, end, weight, settings, score_room, value_room, sums
):
    """Add the gradients of as many decisions as there is room for; return where they end.

    `weight` is that of each decision.
    """
    slots, upto = 0, begin
    while upto < end and slots + batch.number[order[upto]] <= len(score_room.x):
        row = order[upto]
        for k in range(batch.number[row]):
            copy(batch.x[batch.first[row] + k], score_room.x[slots])
            slots += 1
        copy(batch.state[row], value_room.x[upto - begin])
        upto += 1
    forward(actor.layers, score_room, slots)
    forward(critic.layers, value_room, upto - begin)
    first = 0
    for i in range(begin, upto):
        row, last = order[i], first + batch.number[order[i]]
        error = value_room.out[i - begin] - batch.returns[row]
        value_room.slope[i - begin] = error * weight
        score, slope = score_room.out[first:last], score_room.slope[first:last]
        policy_metrics(batch, row, score, slope, weight, settings, sums)
        sums[1] += weight * 0.5 * error * error
        first = last
    if settings.learn_actor:
        backward(actor, score_room, slots)
    backward(critic, value_room, upto - begin)
    return upto


@part
def policy_metrics(batch, row, score, slope, weight, settings, sums):
    """Compute the slope of the loss by the scores of one decision, and add its metrics."""
    first, taken = batch.first[row], batch.taken[row] - batch.first[row]
    for k in range(len(score)):
        score[k] += batch.offset[first + k]
    log_softmax_of(score)
    entropy = np.float32(0)
    for k in range(len(score)):
        slope[k] = np.exp(score[k])
        entropy -= slope[k] * score[k]
    log_ratio = score[taken] - batch.old_log[row]
    ratio, gain = np.exp(log_ratio), batch.advantage[row]
    clipped = min(max(ratio, ONE - settings.clip), ONE + settings.clip)
    surrogate = min(ratio * gain, clipped * gain)
    # Where clipping decides, the loss does not depend on the ratio.
    by_log = ratio * gain if ratio * gain <= surrogate or ratio == clipped else ZERO
    # Of -surrogate - entropy_weight * entropy, by the scores of all slots.
    for k in range(len(score)):
        slope[k] *= (score[k] + entropy) * settings.entropy + by_log
    slope[taken] -= by_log
    for k in range(len(score)):
        slope[k] *= weight
    sums[0] -= weight * surrogate
    sums[2] += weight * entropy
    sums[3] += weight * (ratio - ONE - log_ratio)
    sums[4] += weight * (abs(ratio - ONE) > settings.clip)


@part
def log_softmax_of(score):
    """Replace the scores of one decision by the logarithms of their softmax."""
    highest, total = score[0], np.float32(0)
    for k in range(1, len(score)):
        highest = max(highest, score[k])
    for k in range(len(score)):
        total += np.exp(score[k] - highest)
    shift = highest + np.log(total)
    for k in range(len(score)):
        score[k] -= shift


class Learner:
    """A copy of one agent that learns on its own, beside the stack it is from.

    Parameters
    ----------
    config : PPOConfig
    actor, critic : DenseNetwork
        For which :func:`is_supported` is true.
    """

    def __init__(self, config: PPOConfig, actor: DenseNetwork, critic: DenseNetwork) -> None:
        self.config, self.actor, self.critic = config, actor, critic

    def learn(
        self, decisions: Decisions, rate: float, rng: np.random.Generator
    ) -> dict[str, float]:
        """Update the networks on these decisions; return the metrics of the update."""
        config = self.config
        batch, learned = self._prepare(decisions)
        minibatches = [
            minibatch
            for _ in range(config.epochs)
            for minibatch in np.array_split(rng.permutation(learned.rows), config.minibatches)
        ]
        sizes = np.array([len(minibatch) for minibatch in minibatches])
        actor, critic = self.actor.network, self.critic.network
        sums, room = np.zeros(len(METRICS)), max(BLOCK, int(batch.number.max(initial=0)))
        settings = Hyperparameters(
            float(rate),
            float(rate * config.critic_rate),
            np.float32(config.clip),
            np.float32(config.entropy),
            config.learn_actor,
        )
        rooms = make_activations(actor, room), make_activations(critic, room)
        order, ends = np.concatenate(minibatches), np.cumsum(sizes)
        learn(actor, critic, batch, order, ends, settings, *rooms, sums)
        parts = max(int(np.count_nonzero(sizes)), 1)
        means = dict(zip(METRICS, (sums / parts).tolist(), strict=True))
        steps = float(len(learned.rows))
        return {"steps": steps, **means, "explained_variance": learned.explained}

    def _prepare(self, decisions: Decisions) -> tuple[Batch, Targets]:
        """Compute what the networks of before the update say of the decisions."""
        config, rows = self.config, Rows.of(decisions)
        score = self.actor.values(rows.x)
        if config.critic == STATE:
            offset, gae_lambda = np.zeros_like(score), config.gae_lambda
            state = state_inputs(decisions)
            logs = log_softmax(score, rows.first, rows.number)
            value = self.critic.values(state)
        else:
            # A constant of the policy: the critic from before the update.
            action_value, gae_lambda = self.critic.values(rows.x), 0.0
            state = rows.x[rows.taken]
            offset = action_value / np.float32(config.temperature)
            logs = log_softmax(score + offset, rows.first, rows.number)
            expected = np.exp(logs) * action_value
            value = np.add.reduceat(expected, rows.first) if len(decisions) else expected
        learned = targets(config, decisions, value, gae_lambda)
        old_log = logs[rows.taken]
        return Batch(*rows, offset, state, old_log, learned.advantage, learned.returns), learned

    def write(self) -> None:
        """Replace the agent in the stack by this one."""
        self.actor.write()
        self.critic.write()
