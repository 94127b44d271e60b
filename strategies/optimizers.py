"""Server optimisers: from the merged difference to the next version.

An optimiser is any object with ``step(theta, delta) -> theta`` and a dict ``state`` of arrays. The
strategy clears the state when training begins; checkpoints keep it.
"""

from typing import Protocol

import numpy as np

from strategies.checks import require_number


class ServerOptimizer(Protocol):
    """Computes the next version."""

    state: dict[str, np.ndarray]

    def step(self, theta: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """Return the next version.

        Parameters
        ----------
        theta : array of float64, shape (P,)
            Current version.
        delta : array of float64, shape (P,)
            Merged difference, in the direction in which the nodes have moved: it is added.
        """


class SGD:
    """``u <- momentum u + delta``, ``theta <- theta + rate u``.

    Without momentum it is the step of FAuNO and FedAvg, with momentum FedAvgM (Hsu et al. 2019).

    Parameters
    ----------
    rate : float, default 1.0
    momentum : float, default 0.0
        At least 0, below 1.
    """

    def __init__(self, rate: float = 1.0, momentum: float = 0.0) -> None:
        require_number("rate", rate, above=0)
        require_number("momentum", momentum, at_least=0, below=1)
        self.rate, self.momentum = rate, momentum
        self.state: dict[str, np.ndarray] = {}

    def __repr__(self) -> str:
        return f"SGD(rate={self.rate:g}, momentum={self.momentum:g})"

    def step(self, theta: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """Return the next version."""
        if self.momentum:
            delta = self.momentum * self.state.get("velocity", np.zeros_like(delta)) + delta
            self.state["velocity"] = delta
        return theta + self.rate * delta


class Adam:
    """Adam on the server (Kingma and Ba 2015; FedAdam, Reddi et al. 2021).

    For version t = 1, 2, ...::

        m <- beta1 m + (1 - beta1) delta
        v <- beta2 v + (1 - beta2) delta^2
        theta <- theta + rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon)

    Parameters
    ----------
    rate : float, default 0.1
    beta1, beta2 : float, default 0.9, 0.99
    epsilon : float, default 1e-3
        The defaults are those of Flower's ``FedAdam``, which starts with t = 2.
    """

    def __init__(
        self, rate: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-3
    ) -> None:
        require_number("rate", rate, above=0)
        require_number("beta1", beta1, at_least=0, below=1)
        require_number("beta2", beta2, at_least=0, below=1)
        require_number("epsilon", epsilon, above=0)
        self.rate, self.beta1, self.beta2, self.epsilon = rate, beta1, beta2, epsilon
        self.state: dict[str, np.ndarray] = {}

    def __repr__(self) -> str:
        return (
            f"Adam(rate={self.rate:g}, beta1={self.beta1:g}, beta2={self.beta2:g}, "
            f"epsilon={self.epsilon:g})"
        )

    def step(self, theta: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """Return the next version."""
        zeros = np.zeros_like(delta)
        t = float(self.state.get("t", np.zeros(()))) + 1
        m = self.beta1 * self.state.get("m", zeros) + (1 - self.beta1) * delta
        v = self.beta2 * self.state.get("v", zeros) + (1 - self.beta2) * delta**2
        self.state.update(t=np.array(t), m=m, v=v)
        rate = self.rate * np.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        return theta + rate * m / (np.sqrt(v) + self.epsilon)
