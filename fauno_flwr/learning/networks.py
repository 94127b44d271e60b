"""Actors and critics of A agents, their parameters stacked on a leading axis.

*Equivariant*: the actor scores every destination with the same weights, so the order and the number
of neighbours do not matter, and a policy transfers to a network of any size; the critic's input is
the node, and the mean and the minimum over its destinations. *Padded*: one row with the features of
all destinations, padded to the largest number of slots in the network, as in the original; it fits
no network with another largest number. In both, the networks of all agents have the same shape, so
that they can be averaged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from fauno_flwr.config.agent import EQUIVARIANT, NETWORK_GROUP, PADDED
from fauno_flwr.config.errors import ConfigError
from sim_env import plugins

POLICY_GAIN, VALUE_GAIN, ACTION_VALUE_GAIN = 0.1, 1.0, 0.01


class Widths(Protocol):
    """Numbers of features of a decision and of a slot, and the index of the slot's delay."""

    @property
    def local(self) -> int: ...  # noqa: D102

    @property
    def destinations(self) -> int: ...  # noqa: D102

    @property
    def delay(self) -> int | None: ...  # noqa: D102


class StackedMLP(nn.Module):
    """A copies of a tanh network with two hidden layers, one batched product per layer.

    Parameters
    ----------
    agents : int
        Number of copies A; all start equal.
    widths : tuple of int
        Widths of the input, the hidden layers and the output.
    gain : float
        Gain of the orthogonal initialisation of the last layer; that of the others is sqrt(2).
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(
        self, agents: int, widths: tuple[int, int, int], gain: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        inputs, hidden, outputs = widths
        for layer, (before, after) in enumerate(pairwise((inputs, hidden, hidden, outputs))):
            start = torch.empty(before, after)
            nn.init.orthogonal_(start, gain if layer == 2 else 2**0.5, generator=generator)
            self.weights.append(nn.Parameter(start.expand(agents, -1, -1).clone()))
            self.biases.append(nn.Parameter(torch.zeros(agents, 1, after)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (A, M, inputs) to (A, M, outputs)."""
        return self.after_first(torch.baddbmm(self.biases[0], x, self.weights[0]))

    def after_first(self, x: Tensor) -> Tensor:
        """Map the output of the first layer before its tanh, (A, M, hidden), to the outputs."""
        x = torch.baddbmm(self.biases[1], torch.tanh(x), self.weights[1])
        return torch.baddbmm(self.biases[2], torch.tanh(x), self.weights[2])


class EquivariantActor(StackedMLP):
    """Score each destination: MLP of [local, x_k, x_k - min_j x_j]; softmax over the legal ones.

    Parameters
    ----------
    agents : int
    encoding : Widths
    hidden : int
    generator : torch.Generator
    prior : float, default 0
        Above 0, one unit of each hidden layer is initialised to the expected delay of the
        destination relative to the shortest one, and lowers its score with this weight: the initial
        policy is close to ShortestExpectedDelay. These weights are trained like all others. No
        effect if the encoding has no delay.
    gain : float, default 0.1
        Of the initial weights of the last layer.
    """

    def __init__(
        self,
        agents: int,
        encoding: Widths,
        hidden: int,
        generator: torch.Generator,
        prior: float = 0.0,
        gain: float = POLICY_GAIN,
    ) -> None:
        inputs = encoding.local + 2 * encoding.destinations
        super().__init__(agents, (inputs, hidden, 1), gain, generator)
        if prior > 0 and encoding.delay is not None:
            self._expect_delay(encoding.local + encoding.destinations + encoding.delay, prior)

    @torch.no_grad()
    def _expect_delay(self, relative_delay: int, weight: float) -> None:
        first, middle, last = self.weights
        first[:, :, 0] = 0
        first[:, relative_delay, 0] = 1
        middle[:, :, 0] = 0
        middle[:, 0, :] = 0
        middle[:, 0, 0] = 1
        last[:, 0, 0] = -weight

    def features(self, local: Tensor, destination: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs of :meth:`scores`, each (A, R, ...); they depend on no parameter.

        Parameters
        ----------
        local : Tensor, shape (A, R, ``encoding.local``)
        destination : Tensor, shape (A, R, K, ``encoding.destinations``)
        mask : Tensor of bool, shape (A, R, K)
        """
        return torch.cat([local, smallest(destination, mask)], dim=2), destination, mask

    def scores(self, decision: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
        """Return scores (A, R, K) from :meth:`features`, minus infinity where illegal."""
        agents, rows, slots = mask.shape
        width = destination.shape[3]
        weight = self.weights[0]
        # First layer of [local, x_k, x_k - min_j x_j]; what all slots have in common only once.
        local, absolute, relative = weight.split([weight.shape[1] - 2 * width, width, width], dim=1)
        common = torch.cat([local, -relative], dim=1)
        base = torch.baddbmm(self.biases[0], decision, common).unsqueeze(2)
        each = torch.bmm(destination.flatten(1, 2), absolute + relative)
        first = each.reshape(agents, rows, slots, weight.shape[2]) + base
        scores = self.after_first(first.flatten(1, 2)).reshape(agents, rows, slots)
        return scores.masked_fill(~mask, -torch.inf)

    def logits(self, local: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
        """Return scores (A, R, K), minus infinity where illegal; parameters: :meth:`features`."""
        return self.scores(*self.features(local, destination, mask))

    def taken(self, features: tuple[Tensor, ...], action: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs of :meth:`score` for the actions (A, R), from :meth:`features`."""
        decision, destination, _ = features
        index = action[:, :, None, None].expand(-1, -1, 1, destination.shape[3])
        return decision, destination.gather(2, index)

    def score(self, decision: Tensor, destination: Tensor) -> Tensor:
        """Return scores (A, R) of the actions that were :meth:`taken`."""
        legal = torch.ones(destination.shape[:3], dtype=torch.bool)
        return self.scores(decision, destination, legal).squeeze(2)


class PooledCritic(StackedMLP):
    """Estimate the value of a decision: MLP of [local, x_self, mean_k x_k, min_k x_k]."""

    def __init__(
        self, agents: int, encoding: Widths, hidden: int, generator: torch.Generator
    ) -> None:
        inputs = encoding.local + 3 * encoding.destinations
        super().__init__(agents, (inputs, hidden, 1), VALUE_GAIN, generator)

    def features(self, local: Tensor, destination: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return the input of the network; parameters as of :meth:`EquivariantActor.features`."""
        legal = mask.unsqueeze(3)
        mean = (destination * legal).sum(2) / legal.sum(2).clamp(min=1)
        least = smallest(destination, mask)
        return (torch.cat([local, destination[:, :, 0], mean, least], dim=2),)

    def values(self, x: Tensor) -> Tensor:
        """Return values (A, R) from :meth:`features`."""
        values: Tensor = self(x).squeeze(2)
        return values


class PaddedActor(StackedMLP):
    """Score all destinations at once: MLP of [local, x_1, m_1, ..., x_K, m_K].

    Parameters
    ----------
    agents : int
    encoding : Widths
    slots : int
        K: the largest number of slots in the network. ``m_k`` is 1 where the k-th slot is legal,
        ``x_k`` is 0 where it is not.
    hidden : int
    generator : torch.Generator
    gain : float, default 0.1
        Of the initial weights of the last layer.
    """

    def __init__(
        self,
        agents: int,
        encoding: Widths,
        slots: int,
        hidden: int,
        generator: torch.Generator,
        gain: float = POLICY_GAIN,
    ) -> None:
        inputs = encoding.local + slots * (encoding.destinations + 1)
        super().__init__(agents, (inputs, hidden, slots), gain, generator)
        self.slots = slots

    def features(self, local: Tensor, destination: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return input and mask; parameters as of :meth:`EquivariantActor.features`."""
        return flat(self.slots, local, destination, mask), mask

    def scores(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return scores (A, R, K) from :meth:`features`, minus infinity where illegal."""
        scores: Tensor = self(x)[:, :, : mask.shape[2]]
        return scores.masked_fill(~mask, -torch.inf)

    def logits(self, local: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
        """Return scores as :meth:`EquivariantActor.logits` does, for at most ``slots`` slots."""
        return self.scores(*self.features(local, destination, mask))

    def taken(self, features: tuple[Tensor, ...], action: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs of :meth:`score` for the actions (A, R), from :meth:`features`."""
        return features[0], action

    def score(self, x: Tensor, action: Tensor) -> Tensor:
        """Return scores (A, R) of the actions that were :meth:`taken`."""
        return self(x).gather(2, action.unsqueeze(2)).squeeze(2)


class PaddedCritic(StackedMLP):
    """Estimate the value of a decision: MLP of the same row as :class:`PaddedActor`'s."""

    def __init__(
        self, agents: int, encoding: Widths, slots: int, hidden: int, generator: torch.Generator
    ) -> None:
        inputs = encoding.local + slots * (encoding.destinations + 1)
        super().__init__(agents, (inputs, hidden, 1), VALUE_GAIN, generator)
        self.slots = slots

    def features(self, local: Tensor, destination: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return the input of the network; parameters as of :meth:`EquivariantActor.features`."""
        return (flat(self.slots, local, destination, mask),)

    def values(self, x: Tensor) -> Tensor:
        """Return values (A, R) from :meth:`features`."""
        values: Tensor = self(x).squeeze(2)
        return values


Actor = EquivariantActor | PaddedActor


class Critic(Protocol):
    """A stacked network that estimates values; a :class:`torch.nn.Module`."""

    def features(self, local: Tensor, destination: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs of :meth:`values`; parameters: :meth:`EquivariantActor.features`."""

    def values(self, *features: Tensor) -> Tensor:
        """Return values (A, R) from :meth:`features`."""


class Sizes(NamedTuple):
    """Sizes of the networks of A agents.

    Parameters
    ----------
    agents : int
        A.
    encoding : Widths
    slots : int
        Largest number of slots in the network of nodes.
    hidden : int
        Width of the hidden layers.
    prior : float
        See :class:`EquivariantActor`.
    gain : float, default 0.1
        Of the last layer of an actor. A critic of actions is an actor without prior whose gain is
        0.01: its initial values are close to 0.
    """

    agents: int
    encoding: Widths
    slots: int
    hidden: int
    prior: float
    gain: float = POLICY_GAIN


@dataclass(frozen=True)
class Networks:
    """A choice of ``agent.network``: what makes the actors and the critics.

    Parameters
    ----------
    actor : callable
        ``(sizes, generator) -> EquivariantActor or PaddedActor``: acting is compiled, and knows
        these two.
    critic : callable
        ``(sizes, generator) -> Critic``, any module with parameters on a leading agent axis; the
        critic of states (``agent.critic=state``).
    """

    actor: Callable[[Sizes, torch.Generator], Actor]
    critic: Callable[[Sizes, torch.Generator], nn.Module]


def _equivariant_actor(s: Sizes, generator: torch.Generator) -> Actor:
    return EquivariantActor(s.agents, s.encoding, s.hidden, generator, s.prior, s.gain)


def _pooled_critic(s: Sizes, generator: torch.Generator) -> nn.Module:
    return PooledCritic(s.agents, s.encoding, s.hidden, generator)


def _padded_actor(s: Sizes, generator: torch.Generator) -> Actor:
    return PaddedActor(s.agents, s.encoding, s.slots, s.hidden, generator, s.gain)


def _padded_critic(s: Sizes, generator: torch.Generator) -> nn.Module:
    return PaddedCritic(s.agents, s.encoding, s.slots, s.hidden, generator)


NETWORKS = {
    EQUIVARIANT: Networks(_equivariant_actor, _pooled_critic),
    PADDED: Networks(_padded_actor, _padded_critic),
}


def find_networks(name: str) -> Networks:
    """Return the networks of that name, or at that import path.

    Raises
    ------
    ConfigError
        If there are none.
    """
    try:
        found = plugins.find("agent.network", name, NETWORKS, NETWORK_GROUP)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(found, Networks):
        raise ConfigError(
            f"agent.network is {name!r}: must be a {Networks.__module__}.Networks, not {found!r}"
        )
    return found


def smallest(destination: Tensor, mask: Tensor) -> Tensor:
    """Return each feature's minimum over the legal destinations, shape (A, R, D)."""
    return destination.masked_fill(~mask.unsqueeze(3), torch.inf).amin(2)


def flat(slots: int, local: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
    """Return the rows of a padded network, shape (A, R, F + slots (D + 1)).

    Raises
    ------
    ValueError
        If there are more slots than that.
    """
    require_slots(mask.shape[2], slots)
    slot = torch.cat([destination * mask.unsqueeze(3), mask.unsqueeze(3)], dim=3)
    padded = functional.pad(slot, (0, 0, 0, slots - mask.shape[2]))
    return torch.cat([local, padded.flatten(2)], dim=2)


def require_slots(slots: int, at_most: int) -> None:
    """Raise ``ValueError`` for more slots than a padded network was built for."""
    if slots > at_most:
        raise ValueError(
            f"a decision has {slots} slots: must be at most {at_most}, for which this padded "
            f"network was built (agent.network=equivariant fits any number)"
        )
