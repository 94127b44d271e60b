"""Data of a node, and logistic regression in numpy."""

import numpy as np
from flwr.app import Array, ArrayRecord
from sklearn.datasets import load_breast_cancer

Data = tuple[np.ndarray, np.ndarray]


def load() -> tuple[Data, Data]:
    """Return training set and test set, a fifth of all, with features of unit scale and a one."""
    x, y = load_breast_cancer(return_X_y=True)
    test = np.random.default_rng(0).random(len(y)) < 0.2
    x = (x - x[~test].mean(0)) / x[~test].std(0)
    x = np.column_stack([x, np.ones(len(x))])
    return (x[~test], y[~test]), (x[test], y[test])


def load_test() -> Data:
    """Return the test set."""
    return load()[1]


def load_partition(partition: int, partitions: int) -> Data:
    """Return every n-th example of the training set."""
    x, y = load()[0]
    return x[partition::partitions], y[partition::partitions]


def to_arrays(weights: np.ndarray | None = None) -> ArrayRecord:
    """Return the weights as a record; zeros without any."""
    return ArrayRecord({"weights": Array(np.zeros(31) if weights is None else weights)})


def train(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the weights after ten steps of gradient descent."""
    for _ in range(10):
        probability = 1 / (1 + np.exp(-(x @ weights)))
        weights = weights - 0.1 * x.T @ (probability - y) / len(y)
    return weights


def test(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Return the accuracy."""
    return float(np.mean((x @ weights > 0) == y))
