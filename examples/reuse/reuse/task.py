"""Network, data of a node, training and testing."""

import torch
from torch import nn

FEATURES, EXAMPLES = 8, 256


def make_net() -> nn.Module:
    """Return the network, with the same initial parameters on every node."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 32), nn.Tanh(), nn.Linear(32, 1))


def make_data(partition: int, shift: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs of a partition, around its own mean, and a smooth function of them."""
    teacher = torch.Generator().manual_seed(1)
    a = torch.randn(FEATURES, 3, generator=teacher) / FEATURES**0.5
    b = torch.randn(3, 1, generator=teacher)
    own = torch.Generator().manual_seed(100 + partition)
    mean = shift * torch.randn(FEATURES, generator=own)
    x = mean + torch.randn(EXAMPLES, FEATURES, generator=own)
    return x, torch.tanh(x @ a) @ b


def train(net: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int) -> float:
    """Train by plain SGD; return the loss of the last epoch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
    return total / len(x)


@torch.no_grad()
def test(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the mean squared error."""
    return float(nn.functional.mse_loss(net(x), y))
