"""How much an update still counts that started from an older version."""

from collections.abc import Callable

StalenessWeight = Callable[[int], float]


def constant(staleness: int) -> float:
    """``s(tau) = 1``: an old update counts like a new one; FAuNO's choice."""
    return 1.0


def polynomial(exponent: float = 0.5) -> StalenessWeight:
    """``s(tau) = (1 + tau)^-exponent``; 0.5 is the choice of FedBuff (Nguyen et al. 2022)."""
    if not exponent >= 0:
        raise ValueError(f"exponent is {exponent!r}: must be at least 0")
    return lambda staleness: float((1 + staleness) ** -exponent)
