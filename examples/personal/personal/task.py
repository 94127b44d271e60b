"""Data of a node with labels of its own, network, training and testing."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

BODY, HEAD = "0.", "2."  # how the names of their parameters begin
Data = tuple[torch.Tensor, torch.Tensor]
Parameters = dict[str, torch.Tensor]


def make_net() -> nn.Module:
    """Return the network, with the same initial parameters everywhere."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def part_of(net: nn.Module, part: str) -> Parameters:
    """Return the parameters of the body or of the head."""
    return {name: each for name, each in net.state_dict().items() if name.startswith(part)}


def load_partition(partition: int, partitions: int) -> tuple[Data, Data]:
    """Return training and test set of a node, which numbers the ten classes in its own way."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[partition::partitions]
    own = np.random.default_rng(100 + partition).permutation(10)
    inputs, labels = torch.from_numpy((x[order] / 16).astype(np.float32)), own[y[order]]
    half = len(order) // 2
    targets = torch.from_numpy(labels)
    return (inputs[:half], targets[:half]), (inputs[half:], targets[half:])


def train(
    net: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, learning_rate: float
) -> None:
    """Train body and head by plain SGD."""
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(16):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()


@torch.no_grad()
def test(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the accuracy."""
    return float((net(x).argmax(1) == y).double().mean())
