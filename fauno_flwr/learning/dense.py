"""A network of one agent in numpy: outputs, gradients and steps of Adam, without autograd.

A client's network is small (three layers, 32 units): what torch takes for it is mostly the overhead
of its operations, padding, and a tanh that is ten times slower than numpy's.
"""

import numpy as np
from torch import nn

from fauno_flwr.learning.agents import StackedAdam

# OpenBLAS starts threads for larger products, which wait for each other: far slower at these sizes.
MULTIPLICATIONS, ELEMENTS = 2**18, 2**13


def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute ``a @ b``, shape (N, O), for many rows of `a` (N, I) and `b` (I, O)."""
    rows = _block(*b.shape)
    if len(a) <= rows:
        return np.matmul(a, b)
    out = np.empty((len(a), b.shape[1]), np.float32)
    whole = len(a) - len(a) % rows
    np.matmul(
        a[:whole].reshape(-1, rows, a.shape[1]), b, out=out[:whole].reshape(-1, rows, b.shape[1])
    )
    np.matmul(a[whole:], b, out=out[whole:])
    return out


def transposed_times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute ``a.T @ b``, shape (I, O), for many rows of `a` (N, I) and `b` (N, O)."""
    inputs, outputs = a.shape[1], b.shape[1]
    rows = _block(inputs, outputs)
    if len(a) <= rows:
        return np.matmul(a.T, b)
    whole = len(a) - len(a) % rows
    left = a[:whole].reshape(-1, rows, inputs).transpose(0, 2, 1)
    total = np.add.reduce(np.matmul(left, b[:whole].reshape(-1, rows, outputs)))
    total += np.matmul(a[whole:].T, b[whole:])
    return total


def _block(inputs: int, outputs: int) -> int:
    """Return the rows of a block: as many as there may be without threads."""
    most = min(MULTIPLICATIONS // (inputs * outputs), ELEMENTS // max(inputs, outputs))
    return max(1, most)


class DenseNetwork:
    """A copy of one agent's tanh network with one output, with its optimiser.

    Parameters
    ----------
    module : StackedMLP
        Its last layer has one unit.
    optimizer : StackedAdam
        Of `module`.
    agent : int
        Index in the stack.
    """

    def __init__(self, module: nn.Module, optimizer: StackedAdam, agent: int) -> None:
        self._stacked = [p.detach()[agent].numpy() for p in optimizer.parameters]
        self._first, self._second = optimizer.first[agent].numpy(), optimizer.second[agent].numpy()
        self._steps, self._place = optimizer.steps, agent
        self._max_norm = optimizer.max_norm
        self.parameters = np.concatenate([p.ravel() for p in self._stacked])
        self.gradient = np.zeros_like(self.parameters)
        own, slope = (
            dict(zip(module.state_dict(), self._views(flat), strict=True))
            for flat in (self.parameters, self.gradient)
        )
        self._weights, self._biases = _layers(own)
        self._weight_slopes, self._bias_slopes = _layers(slope)

    def _views(self, flat: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([p.size for p in self._stacked])
        parts = np.split(flat, ends[:-1])
        return [part.reshape(p.shape) for part, p in zip(parts, self._stacked, strict=True)]

    def hidden(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the activations of both hidden layers, each (N, H), for inputs (N, I)."""
        one = times(x, self._weights[0])
        one += self._biases[0]
        np.tanh(one, out=one)
        two = times(one, self._weights[1])
        two += self._biases[1]
        np.tanh(two, out=two)
        return one, two

    def output(self, two: np.ndarray) -> np.ndarray:
        """Return the outputs (N,) from the second hidden layer."""
        out = times(two, self._weights[2])
        out += self._biases[2]
        return out[:, 0]

    def values(self, x: np.ndarray, chunk: int) -> np.ndarray:
        """Return the outputs (N,) for inputs (N, I), computed for `chunk` rows at a time."""
        parts = [self.output(self.hidden(x[i : i + chunk])[1]) for i in range(0, len(x), chunk)]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def backward(self, x: np.ndarray, one: np.ndarray, two: np.ndarray, slope: np.ndarray) -> None:
        """Add to the gradient what the derivatives of a loss by the outputs, (N,), amount to.

        `one` and `two`, the result of :meth:`hidden`, are overwritten.
        """
        column = slope[:, None]
        self._weight_slopes[2][:] += transposed_times(two, column)
        self._bias_slopes[2][:] += np.add.reduce(slope)
        self._layer(1, one, two, column * self._weights[2][:, 0])
        self._layer(0, x, one, times(two, self._weights[1].T))

    def _layer(self, layer: int, x: np.ndarray, y: np.ndarray, slope: np.ndarray) -> None:
        """Add the gradient of a layer ``y = tanh(x W + b)``; `y` becomes the slope before tanh."""
        np.multiply(y, y, out=y)
        np.subtract(np.float32(1), y, out=y)
        np.multiply(y, slope, out=y)
        self._weight_slopes[layer][:] += transposed_times(x, y)
        self._bias_slopes[layer][:] += np.add.reduce(y)

    def step(self, rate: float) -> None:
        """Take a step of Adam by the gradient, clipped as in :class:`StackedAdam`, and clear it."""
        g, (beta1, beta2) = self.gradient, StackedAdam.BETAS
        norm = float(np.sqrt(np.einsum("i,i->", g, g, dtype=np.float64)))
        g *= np.float32(min(1.0, self._max_norm / (norm + 1e-6)))
        self._steps[self._place] += 1
        steps = float(self._steps[self._place])
        self._first += (g - self._first) * np.float32(1 - beta1)
        self._second += (g * g - self._second) * np.float32(1 - beta2)
        spread = np.sqrt(self._second / np.float32(1 - beta2**steps))
        spread += np.float32(StackedAdam.EPSILON)
        self.parameters -= self._first / spread * np.float32(rate / (1 - beta1**steps))
        g[:] = 0

    def write(self) -> None:
        """Replace the parameters of the agent in the stack by these."""
        for stacked, own in zip(self._stacked, self._views(self.parameters), strict=True):
            stacked[:] = own


def _layers(named: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    weights, biases = (
        [named[f"{kind}.{layer}"] for layer in range(3)] for kind in ("weights", "biases")
    )
    return weights, biases
