"""Data of a node, and boosted trees as an array that does not grow.

The splits of a tree are drawn from its number, so that all nodes have the same; only the values of
its leaves are learned. A model is the sum of its trees: a place that is not filled yet is zero, and
the mean of what nodes have added is again a model, whatever version each of them began with.
"""

import numpy as np
from flwr.app import Array, ArrayRecord
from sklearn.datasets import load_breast_cancer

DEPTH = 3
Data = tuple[np.ndarray, np.ndarray]


def load() -> tuple[Data, Data]:
    """Return training set and test set, a fifth of all, with features of unit scale."""
    x, y = load_breast_cancer(return_X_y=True)
    test = np.random.default_rng(0).random(len(y)) < 0.2
    x = (x - x[~test].mean(0)) / x[~test].std(0)
    return (x[~test], y[~test]), (x[test], y[test])


def load_test() -> Data:
    """Return the test set."""
    return load()[1]


def load_partition(partition: int, partitions: int) -> Data:
    """Return every n-th example of the training set."""
    x, y = load()[0]
    return x[partition::partitions], y[partition::partitions]


def empty_model(trees: int) -> ArrayRecord:
    """Return a model without any tree: one row of leaves for each place."""
    return ArrayRecord({"leaves": Array(np.zeros((trees, 2**DEPTH)))})


def leaves_of(tree: int, x: np.ndarray) -> np.ndarray:
    """Return the leaf of each example in a tree, which asks the same question on each level."""
    rng = np.random.default_rng(tree)
    features, thresholds = rng.choice(x.shape[1], DEPTH), rng.normal(size=DEPTH)
    return (x[:, features] > thresholds) @ (1 << np.arange(DEPTH))


def predict(leaves: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the log-odds of each example."""
    filled = np.flatnonzero(leaves.any(axis=1))
    return sum((leaves[tree][leaves_of(tree, x)] for tree in filled), np.zeros(len(x)))


def add_tree(
    leaves: np.ndarray, tree: int, x: np.ndarray, y: np.ndarray, shrinkage: float
) -> np.ndarray:
    """Return the model with one more tree, or one more correction of it: -G / (H + 1) per leaf."""
    probability = 1 / (1 + np.exp(-predict(leaves, x)))
    leaf, size = leaves_of(tree, x), leaves.shape[1]
    gradient = np.bincount(leaf, probability - y, size)
    hessian = np.bincount(leaf, probability * (1 - probability), size)
    grown = leaves.copy()
    grown[tree] -= shrinkage * gradient / (hessian + 1)
    return grown


def test(leaves: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Return the accuracy."""
    return float(np.mean((predict(leaves, x) > 0) == y))
