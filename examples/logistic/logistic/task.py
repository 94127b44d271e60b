"""Data of a node, and a model of scikit-learn as arrays."""

import numpy as np
from flwr.app import Array, ArrayRecord
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier

FEATURES = 30
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


def to_arrays(model: SGDClassifier | None = None) -> ArrayRecord:
    """Return the parameters of a model; zeros without one."""
    coef, intercept = np.zeros((1, FEATURES)), np.zeros(1)
    if model is not None:
        coef, intercept = model.coef_, model.intercept_
    return ArrayRecord({"coef": Array(coef), "intercept": Array(intercept)})


def train(arrays: ArrayRecord, x: np.ndarray, y: np.ndarray, seed: int) -> SGDClassifier:
    """Return the model that an epoch makes of these parameters."""
    model = SGDClassifier(
        loss="log_loss",
        learning_rate="constant",
        eta0=0.01,
        max_iter=1,
        tol=None,  # an epoch is not expected to converge
        random_state=seed,
    )
    coef, intercept = (arrays[name].numpy() for name in ("coef", "intercept"))
    return model.fit(x, y, coef_init=coef, intercept_init=intercept)


def test(arrays: ArrayRecord, x: np.ndarray, y: np.ndarray) -> float:
    """Return the accuracy."""
    decision = x @ arrays["coef"].numpy().T + arrays["intercept"].numpy()
    return float(np.mean((decision[:, 0] > 0) == y))
