"""Staleness rules: the weight of an update that started from an older version.

A rule is any callable from the staleness tau >= 0 (versions made since the update's base) to a
weight s >= 0; an update of weight 0 is rejected when it arrives.
"""

from collections.abc import Callable
from dataclasses import dataclass

from strategies.checks import require_number

StalenessRule = Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """``s(tau) = 1``: a stale update weighs as much as a fresh one, as in FAuNO."""

    def __call__(self, staleness: int) -> float:
        """Return the weight of an update."""
        return 1.0


@dataclass(frozen=True)
class Polynomial:
    """``s(tau) = (1 + tau)^-exponent`` (FedAsync, Xie et al. 2019; FedBuff, Nguyen et al. 2022).

    Parameters
    ----------
    exponent : float, default 0.5
    """

    exponent: float = 0.5

    def __post_init__(self) -> None:
        require_number("exponent", self.exponent, at_least=0)

    def __call__(self, staleness: int) -> float:
        """Return the weight of an update."""
        return float((1 + staleness) ** -self.exponent)


@dataclass(frozen=True)
class Hinge:
    """``s(tau) = 1`` up to `delay`, then ``1 / (slope (tau - delay) + 1)`` (Xie et al. 2019).

    Parameters
    ----------
    slope : float, default 10.0
        The paper's a.
    delay : float, default 4.0
        The paper's b, in versions.
    """

    slope: float = 10.0
    delay: float = 4.0

    def __post_init__(self) -> None:
        require_number("slope", self.slope, at_least=0)
        require_number("delay", self.delay, at_least=0)

    def __call__(self, staleness: int) -> float:
        """Return the weight of an update."""
        return 1.0 / (self.slope * max(staleness - self.delay, 0.0) + 1.0)


@dataclass(frozen=True)
class CutOff:
    """``s(tau) = rule(tau)`` up to `limit`, then 0.

    Parameters
    ----------
    limit : int
        Largest staleness with a weight.
    rule : callable, default Constant()
    """

    limit: int
    rule: StalenessRule = Constant()

    def __post_init__(self) -> None:
        require_number("limit", self.limit, at_least=0)

    def __call__(self, staleness: int) -> float:
        """Return the weight of an update."""
        return self.rule(staleness) if staleness <= self.limit else 0.0
