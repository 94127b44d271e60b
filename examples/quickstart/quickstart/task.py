"""Data of a node, network, training and testing."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

CLASSES = 10


def make_net() -> nn.Module:
    """Return the network, with the same initial parameters everywhere."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return inputs, labels, and which examples belong to the test set, a fifth of all."""
    x, y = load_digits(return_X_y=True)
    test = np.random.default_rng(0).random(len(y)) < 0.2
    return (x / 16).astype(np.float32), y, test


def load_test() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the test set."""
    x, y, test = load()
    return torch.from_numpy(x[test]), torch.from_numpy(y[test])


def load_partition(partition: int, partitions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the examples of a node: of each label a share drawn from a Dirichlet distribution."""
    x, y, test = load()
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.full(partitions, 0.5), CLASSES)
    owner = np.array([rng.choice(partitions, p=shares[label]) for label in y])
    mine = (owner == partition) & ~test
    return torch.from_numpy(x[mine]), torch.from_numpy(y[mine])


def train(
    net: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, learning_rate: float
) -> float:
    """Train by plain SGD; return the loss of the last epoch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    total = 0.0
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(x)).split(16):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
    return total / max(len(x), 1)


@torch.no_grad()
def test(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the accuracy."""
    return float((net(x).argmax(1) == y).double().mean())
