"""Data of a node, and the network in numpy: the server needs no torch."""

import numpy as np

FEATURES, HIDDEN, EXAMPLES = 8, 32, 256


def make_parameters() -> dict[str, np.ndarray]:
    """Return version 0, named as in the ``state_dict`` of the clients' torch network."""
    rng = np.random.default_rng(0)

    def uniform(*shape: int, inputs: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(inputs**0.5)

    return {
        "0.weight": uniform(HIDDEN, FEATURES, inputs=FEATURES),
        "0.bias": uniform(HIDDEN, inputs=FEATURES),
        "2.weight": uniform(1, HIDDEN, inputs=HIDDEN),
        "2.bias": uniform(1, inputs=HIDDEN),
    }


def make_data(partition: int, shift: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs of a partition, around its own mean, and a smooth function of them."""
    teacher, own = np.random.default_rng(6), np.random.default_rng(100 + partition)
    a = teacher.normal(size=(FEATURES, 3)) / FEATURES**0.5
    b = teacher.normal(size=(3, 1))
    x = shift * own.normal(size=FEATURES) + own.normal(size=(EXAMPLES, FEATURES))
    return x.astype(np.float32), (np.tanh(x @ a) @ b).astype(np.float32)


def test(parameters: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean squared error."""
    hidden = np.tanh(x @ parameters["0.weight"].T + parameters["0.bias"])
    error = hidden @ parameters["2.weight"].T + parameters["2.bias"] - y
    return float(np.mean(error**2))
