"""A network of one agent in compiled code: outputs, gradients and steps of Adam, without autograd.

A client's network is small (three layers, 32 units): what torch takes for it is mostly the overhead
of its operations, padding, and a tanh that is ten times slower.
"""

from typing import NamedTuple

import numpy as np

from fauno_flwr.learning.adam import StackedAdam
from fauno_flwr.learning.arithmetic import add_outer, add_products, copy, dot, tanh
from sim_env.engine.compilation import compiled, part

BLOCK = 256  # rows whose activations are computed together: they stay in the cache
BETA1, BETA2 = map(np.float32, StackedAdam.BETAS)
EPSILON, ONE = np.float32(StackedAdam.EPSILON), np.float32(1)


class Layers(NamedTuple):
    """Three layers of I inputs, H units, H units, and one output; float32."""

    first: np.ndarray  # (I, H)
    first_bias: np.ndarray  # (H,)
    middle: np.ndarray  # (H, H)
    middle_bias: np.ndarray  # (H,)
    last: np.ndarray  # (H,)
    last_bias: np.ndarray  # (1,)


class Network(NamedTuple):
    """Parameters with their gradient and the state of Adam, as compiled code takes them."""

    layers: Layers
    slopes: Layers  # by the parameters
    parameters: np.ndarray  # float32 (P,): all layers, whose arrays are views of it
    gradient: np.ndarray  # float32 (P,): as the slopes
    moment: np.ndarray  # float32 (P,)
    second_moment: np.ndarray  # float32 (P,)
    steps: np.ndarray  # float32 (1,)
    max_norm: float


class Activations(NamedTuple):
    """Room for what a network computes of a block of rows."""

    x: np.ndarray  # float32 (N, I)
    one: np.ndarray  # float32 (N, H)
    two: np.ndarray  # float32 (N, H)
    out: np.ndarray  # float32 (N,)
    slope: np.ndarray  # float32 (N,): of the loss by the outputs
    back: np.ndarray  # float32 (N, H): the slope by the first hidden layer
    turned: np.ndarray  # float32 (H, H): the middle layer, transposed


def make_activations(network: Network, rows: int) -> Activations:
    """Allocate room for a network and blocks of at most so many rows."""
    inputs, hidden = network.layers.first.shape
    units = rows, hidden
    shapes = (rows, inputs), units, units, rows, rows, units, (hidden, hidden)
    return Activations(*(np.zeros(shape, np.float32) for shape in shapes))


@part
def forward(layers, room, rows):
    """Compute the activations of both hidden layers, and the outputs, for inputs ``room.x``."""
    for r in range(rows):
        copy(layers.first_bias, room.one[r])
        copy(layers.middle_bias, room.two[r])
    add_products(room.x, layers.first, room.one, rows)
    for r in range(rows):
        tanh(room.one[r])
    add_products(room.one, layers.middle, room.two, rows)
    for r in range(rows):
        tanh(room.two[r])
        room.out[r] = dot(room.two[r], layers.last) + layers.last_bias[0]


@part
def backward(network, room, rows):
    """Add to the gradient what ``room.slope`` amounts to; overwrite the activations."""
    layers, slopes = network.layers, network.slopes
    for r in range(rows):
        slope, two = room.slope[r], room.two[r]
        slopes.last_bias[0] += slope
        for h in range(len(two)):
            slopes.last[h] += slope * two[h]
            two[h] = (ONE - two[h] * two[h]) * (slope * layers.last[h])
            slopes.middle_bias[h] += two[h]
    add_outer(room.one, room.two, rows, slopes.middle)
    for g in range(layers.middle.shape[0]):
        for h in range(layers.middle.shape[1]):
            room.turned[h, g] = layers.middle[g, h]
    for r in range(rows):
        back = room.back[r]
        for h in range(len(back)):
            back[h] = 0
    add_products(room.two, room.turned, room.back, rows)
    for r in range(rows):
        one, back = room.one[r], room.back[r]
        for h in range(len(one)):
            one[h] = (ONE - one[h] * one[h]) * back[h]
            slopes.first_bias[h] += one[h]
    add_outer(room.x, room.one, rows, slopes.first)


@part
def step(network, rate):
    """Take a step of Adam by the gradient, clipped as in :class:`StackedAdam`, and clear it."""
    square = 0.0
    for i in range(len(network.gradient)):
        square += network.gradient[i] * network.gradient[i]
    clip = np.float32(min(1.0, network.max_norm / (np.sqrt(square) + 1e-6)))
    network.steps[0] += ONE
    steps = float(network.steps[0])
    scale = np.float32(rate / (1.0 - float(BETA1) ** steps))
    correction = np.float32(1.0 / (1.0 - float(BETA2) ** steps))
    for i in range(len(network.gradient)):
        g = network.gradient[i] * clip
        first = network.moment[i] + (g - network.moment[i]) * (ONE - BETA1)
        second = network.second_moment[i] + (g * g - network.second_moment[i]) * (ONE - BETA2)
        network.moment[i], network.second_moment[i] = first, second
        network.parameters[i] -= first / (np.sqrt(second * correction) + EPSILON) * scale
        network.gradient[i] = 0


@compiled
def evaluate(layers, x, room, out):
    """Compute the outputs `out` (N,) for inputs `x` (N, I)."""
    size = room.x.shape[0]
    for begin in range(0, len(x), size):
        rows = min(size, len(x) - begin)
        for r in range(rows):
            copy(x[begin + r], room.x[r])
        forward(layers, room, rows)
        copy(room.out[:rows], out[begin:])


class DenseNetwork:
    """A copy of one agent's tanh network with one output, and of its optimiser's state.

    Parameters
    ----------
    optimizer : StackedAdam
        Of a StackedMLP whose last layer has one unit.
    agent : int
        Index in the stack.
    """

    def __init__(self, optimizer: StackedAdam, agent: int) -> None:
        self._stacked = [p.detach().numpy()[agent] for p in optimizer.parameters]
        first, second = optimizer.first[agent].numpy(), optimizer.second[agent].numpy()
        steps = optimizer.steps[agent : agent + 1].numpy()
        self._moments = [first, second, steps]
        parameters = np.concatenate([p.ravel() for p in self._stacked])
        gradient = np.zeros_like(parameters)
        self.network = Network(
            self._layers(parameters),
            self._layers(gradient),
            parameters,
            gradient,
            first.copy(),
            second.copy(),
            steps.copy(),
            float(optimizer.max_norm),
        )

    def _views(self, flat: np.ndarray) -> list[np.ndarray]:
        views, begin = [], 0
        for parameter in self._stacked:
            end = begin + parameter.size
            views.append(flat[begin:end].reshape(parameter.shape))
            begin = end
        return views

    def _layers(self, flat: np.ndarray) -> Layers:
        first, middle, last, *biases = self._views(flat)  # the order of a StackedMLP
        one, two, three = (bias.reshape(-1) for bias in biases)
        return Layers(first, one, middle, two, last.reshape(-1), three)

    def values(self, x: np.ndarray) -> np.ndarray:
        """Return the outputs (N,) for inputs (N, I)."""
        out = np.zeros(len(x), np.float32)
        evaluate(self.network.layers, x, make_activations(self.network, BLOCK), out)
        return out

    def write(self) -> None:
        """Replace the agent in the stack by this copy, its optimiser too."""
        network = self.network
        own = [
            *self._views(network.parameters),
            network.moment,
            network.second_moment,
            network.steps,
        ]
        for stacked, new in zip([*self._stacked, *self._moments], own, strict=True):
            stacked[:] = new
