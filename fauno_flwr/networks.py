"""Actors and critics of A agents at once: parameters stacked on a leading axis.

The actor scores each destination with the same weights, so it does not care in which order, or
how many, the neighbours are: a policy moves to a network of another size unchanged. The critic
sees the node, and the mean and the minimum over its destinations, so every agent's critic has the
same shape and can be averaged.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from sim_env.features import Encoding


class StackedMLP(nn.Module):
    """A copies of a tanh network with two hidden layers, one batched product per layer.

    Parameters
    ----------
    agents : int
        A. All copies start equal.
    inputs, hidden : int
        Widths; the output has one number.
    gain : float
        Of the orthogonal start of the last layer; the others have sqrt(2).
    generator : torch.Generator
        Source of the start.
    """

    def __init__(
        self, agents: int, inputs: int, hidden: int, gain: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        widths = (inputs, hidden, hidden, 1)
        for layer, (before, after) in enumerate(pairwise(widths)):
            start = torch.empty(before, after)
            nn.init.orthogonal_(start, gain if layer == 2 else 2**0.5, generator=generator)
            self.weights.append(nn.Parameter(start.expand(agents, -1, -1).clone()))
            self.biases.append(nn.Parameter(torch.zeros(agents, 1, after)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (A, M, inputs) to (A, M)."""
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if layer < 2:
                x = torch.tanh(x)
        return x.squeeze(-1)


class EquivariantActor(StackedMLP):
    """Score of a destination: MLP of [local, x_k, x_k - min_j x_j]; softmax over the legal ones."""

    def __init__(
        self, agents: int, encoding: Encoding, hidden: int, generator: torch.Generator
    ) -> None:
        inputs = encoding.local + 2 * encoding.destinations
        super().__init__(agents, inputs, hidden, 0.1, generator)

    def logits(self, local: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
        """Scores, minus infinity where illegal.

        Parameters
        ----------
        local : Tensor, shape (A, R, ``encoding.local``)
        destination : Tensor, shape (A, R, K, ``encoding.destinations``)
        mask : Tensor of bool, shape (A, R, K)

        Returns
        -------
        Tensor, shape (A, R, K)
        """
        agents, rows, slots = mask.shape
        best = smallest(destination, mask).unsqueeze(2)
        x = torch.cat(
            [local.unsqueeze(2).expand(-1, -1, slots, -1), destination, destination - best], dim=3
        )
        scores = self(x.reshape(agents, rows * slots, -1)).reshape(agents, rows, slots)
        return scores.masked_fill(~mask, -torch.inf)


class PooledCritic(StackedMLP):
    """Value of a decision: MLP of [local, x_self, mean_k x_k, min_k x_k]."""

    def __init__(
        self, agents: int, encoding: Encoding, hidden: int, generator: torch.Generator
    ) -> None:
        inputs = encoding.local + 3 * encoding.destinations
        super().__init__(agents, inputs, hidden, 1.0, generator)

    def values(self, local: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
        """Values, shape (A, R); parameters as in :meth:`EquivariantActor.logits`."""
        legal = mask.unsqueeze(3)
        mean = (destination * legal).sum(2) / legal.sum(2).clamp(min=1)
        x = torch.cat([local, destination[:, :, 0], mean, smallest(destination, mask)], dim=2)
        return self(x)


def smallest(destination: Tensor, mask: Tensor) -> Tensor:
    """Each feature's minimum over the legal destinations, shape (A, R, D)."""
    return destination.masked_fill(~mask.unsqueeze(3), torch.inf).amin(2)
