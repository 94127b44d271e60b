"""Digits, a linear network, training and testing."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

Data = tuple[torch.Tensor, torch.Tensor]


def make_net() -> nn.Module:
    """Return the network, with the same initial parameters everywhere."""
    torch.manual_seed(0)
    return nn.Linear(64, 10)


def load() -> tuple[Data, Data]:
    """Return training set and test set, a fifth of all."""
    x, y = load_digits(return_X_y=True)
    test = np.random.default_rng(0).random(len(y)) < 0.2
    inputs, labels = torch.from_numpy((x / 16).astype(np.float32)), torch.from_numpy(y)
    return (inputs[~test], labels[~test]), (inputs[test], labels[test])


def load_test() -> Data:
    """Return the test set."""
    return load()[1]


def load_partition(partition: int, partitions: int) -> Data:
    """Return every n-th example of the training set."""
    x, y = load()[0]
    return x[partition::partitions], y[partition::partitions]


def train(net: nn.Module, x: torch.Tensor, y: torch.Tensor, learning_rate: float) -> float:
    """Train for an epoch by plain SGD; return its loss."""
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    total = 0.0
    for batch in torch.randperm(len(x)).split(16):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(x)


@torch.no_grad()
def test(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the accuracy."""
    return float((net(x).argmax(1) == y).double().mean())
