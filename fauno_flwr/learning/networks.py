"""Actors and critics of A agents at once: parameters stacked on a leading axis.

Two kinds. *Equivariant*: the actor scores each destination with the same weights, so it does not
care in which order, or how many, the neighbours are, and a policy moves to a network of another
size unchanged; the critic sees the node, and the mean and the minimum over its destinations.
*Padded*: all that is known of all destinations in one row, filled up to the largest number of slots
in the network, as in the original; it knows the slots by their places and fits no other network.
Either way every agent's networks have one shape, and can be averaged.
"""

from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

POLICY_GAIN, VALUE_GAIN = 0.1, 1.0


class Widths(Protocol):
    """Numbers of features of a decision and of each of its slots, and which of these is a delay."""

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
        A. All copies start equal.
    widths : tuple of int
        Of input, hidden layers and output.
    gain : float
        Of the orthogonal start of the last layer; the others have sqrt(2).
    generator : torch.Generator
        Source of the start.
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
        """Map what comes out of the first layer, (A, M, hidden) before its tanh, to the outputs."""
        x = torch.baddbmm(self.biases[1], torch.tanh(x), self.weights[1])
        return torch.baddbmm(self.biases[2], torch.tanh(x), self.weights[2])


class EquivariantActor(StackedMLP):
    """Score of a destination: MLP of [local, x_k, x_k - min_j x_j]; softmax over the legal ones.

    Parameters
    ----------
    agents : int
    encoding : Widths
    hidden : int
    generator : torch.Generator
    prior : float, default 0
        Above 0, one unit of each hidden layer begins as the expected delay of the destination,
        relative to the shortest one, and counts with this weight against it: learning starts
        from a policy that is about ShortestExpectedDelay's instead of a random one. All of it is
        trained like any other weight. No effect if the encoding does not tell the delay.
    """

    def __init__(
        self,
        agents: int,
        encoding: Widths,
        hidden: int,
        generator: torch.Generator,
        prior: float = 0.0,
    ) -> None:
        inputs = encoding.local + 2 * encoding.destinations
        super().__init__(agents, (inputs, hidden, 1), POLICY_GAIN, generator)
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
        """What of the decisions :meth:`scores` needs, each (A, R, ...); no parameter is in it.

        Parameters
        ----------
        local : Tensor, shape (A, R, ``encoding.local``)
        destination : Tensor, shape (A, R, K, ``encoding.destinations``)
        mask : Tensor of bool, shape (A, R, K)
        """
        return torch.cat([local, smallest(destination, mask)], dim=2), destination, mask

    def scores(self, decision: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
        """Scores (A, R, K) from :meth:`features`, minus infinity where illegal."""
        agents, rows, slots = mask.shape
        width = destination.shape[3]
        weight = self.weights[0]
        # The first layer of [local, x_k, x_k - min_j x_j], but what all slots have in common once.
        local, absolute, relative = weight.split([weight.shape[1] - 2 * width, width, width], dim=1)
        common = torch.cat([local, -relative], dim=1)
        base = torch.baddbmm(self.biases[0], decision, common).unsqueeze(2)
        each = torch.bmm(destination.flatten(1, 2), absolute + relative)
        first = each.reshape(agents, rows, slots, weight.shape[2]) + base
        scores = self.after_first(first.flatten(1, 2)).reshape(agents, rows, slots)
        return scores.masked_fill(~mask, -torch.inf)

    def logits(self, local: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
        """Scores (A, R, K), minus infinity where illegal; parameters as of :meth:`features`."""
        return self.scores(*self.features(local, destination, mask))


class PooledCritic(StackedMLP):
    """Value of a decision: MLP of [local, x_self, mean_k x_k, min_k x_k]."""

    def __init__(
        self, agents: int, encoding: Widths, hidden: int, generator: torch.Generator
    ) -> None:
        inputs = encoding.local + 3 * encoding.destinations
        super().__init__(agents, (inputs, hidden, 1), VALUE_GAIN, generator)

    def features(self, local: Tensor, destination: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Input of the network; parameters as of :meth:`EquivariantActor.features`."""
        legal = mask.unsqueeze(3)
        mean = (destination * legal).sum(2) / legal.sum(2).clamp(min=1)
        least = smallest(destination, mask)
        return (torch.cat([local, destination[:, :, 0], mean, least], dim=2),)

    def values(self, x: Tensor) -> Tensor:
        """Values (A, R) from :meth:`features`."""
        values: Tensor = self(x).squeeze(2)
        return values


class PaddedActor(StackedMLP):
    """Scores of all destinations at once: MLP of [local, x_1, m_1, ..., x_K, m_K].

    Parameters
    ----------
    agents : int
    encoding : Widths
    slots : int
        K: the largest number of slots in the network. ``m_k`` is 1 where the k-th slot is legal,
        ``x_k`` is 0 where it is not.
    hidden : int
    generator : torch.Generator
    """

    def __init__(
        self, agents: int, encoding: Widths, slots: int, hidden: int, generator: torch.Generator
    ) -> None:
        inputs = encoding.local + slots * (encoding.destinations + 1)
        super().__init__(agents, (inputs, hidden, slots), POLICY_GAIN, generator)
        self.slots = slots

    def features(self, local: Tensor, destination: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Input of the network and mask; parameters as of :meth:`EquivariantActor.features`."""
        return flat(self.slots, local, destination, mask), mask

    def scores(self, x: Tensor, mask: Tensor) -> Tensor:
        """Scores (A, R, K) from :meth:`features`, minus infinity where illegal."""
        scores: Tensor = self(x)[:, :, : mask.shape[2]]
        return scores.masked_fill(~mask, -torch.inf)

    def logits(self, local: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
        """As :meth:`EquivariantActor.logits`, with at most as many slots as there are."""
        return self.scores(*self.features(local, destination, mask))


class PaddedCritic(StackedMLP):
    """Value of a decision: MLP of the same row as :class:`PaddedActor`'s."""

    def __init__(
        self, agents: int, encoding: Widths, slots: int, hidden: int, generator: torch.Generator
    ) -> None:
        inputs = encoding.local + slots * (encoding.destinations + 1)
        super().__init__(agents, (inputs, hidden, 1), VALUE_GAIN, generator)
        self.slots = slots

    def features(self, local: Tensor, destination: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Input of the network; parameters as of :meth:`EquivariantActor.features`."""
        return (flat(self.slots, local, destination, mask),)

    def values(self, x: Tensor) -> Tensor:
        """Values (A, R) from :meth:`features`."""
        values: Tensor = self(x).squeeze(2)
        return values


Actor = EquivariantActor | PaddedActor
Critic = PooledCritic | PaddedCritic


def smallest(destination: Tensor, mask: Tensor) -> Tensor:
    """Each feature's minimum over the legal destinations, shape (A, R, D)."""
    return destination.masked_fill(~mask.unsqueeze(3), torch.inf).amin(2)


def flat(slots: int, local: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
    """Rows of a padded network, shape (A, R, F + slots (D + 1)).

    Raises
    ------
    ValueError
        If there are more slots than that.
    """
    require_slots(mask.shape[2], slots)
    told = torch.cat([destination * mask.unsqueeze(3), mask.unsqueeze(3)], dim=3)
    told = functional.pad(told, (0, 0, 0, slots - mask.shape[2]))
    return torch.cat([local, told.flatten(2)], dim=2)


def require_slots(slots: int, at_most: int) -> None:
    """Raise ``ValueError`` if a padded network is shown more slots than it was built for."""
    if slots > at_most:
        raise ValueError(
            f"a decision has {slots} slots: must be at most {at_most}, for which this padded "
            f"network was built (agent.network=equivariant fits any number)"
        )
