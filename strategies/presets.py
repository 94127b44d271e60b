"""Strategies of the literature, as settings of :class:`BufferedAsync`.

Every argument of :class:`BufferedAsync` may be given, and overrides the preset.
"""

from typing import Any

from strategies.buffered_async import ON_VERSION, BufferedAsync
from strategies.merge import BY_COUNT
from strategies.optimizers import SGD
from strategies.staleness import Polynomial


class FAuNO(BufferedAsync):
    """K = half of the nodes, weighted by training steps, no discount (arXiv 2506.02668)."""

    def __init__(self, buffer_size: float = 0.5, **settings: Any) -> None:
        super().__init__(buffer_size, **settings)


class FedBuff(BufferedAsync):
    """``theta <- theta + rate (1/K) sum_m s(tau_m) delta_m`` (Nguyen et al. 2022, algorithm 1).

    ``s(tau) = (1 + tau)^-0.5`` and no weights; the paper's division is by K, not by the sum of s.
    """

    def __init__(self, buffer_size: float = 10, *, rate: float = 1.0, **settings: Any) -> None:
        paper: dict[str, Any] = {
            "weighted_by_key": None,
            "staleness": Polynomial(0.5),
            "normalize": BY_COUNT,
            "server_optimizer": SGD(rate),
        }
        super().__init__(buffer_size, **{**paper, **settings})


class FedAsync(BufferedAsync):
    """``theta <- (1 - a) theta + a theta_m`` with ``a = rate s(tau)`` (Xie et al. 2019).

    Each reply is mixed into the newest version, whatever its base; ``s(tau) = (1 + tau)^-0.5``.
    """

    def __init__(self, buffer_size: float = 1, *, rate: float = 0.6, **settings: Any) -> None:
        paper: dict[str, Any] = {
            "weighted_by_key": None,
            "staleness": Polynomial(0.5),
            "normalize": BY_COUNT,
            "relative_to_newest": True,
            "server_optimizer": SGD(rate),
        }
        super().__init__(buffer_size, **{**paper, **settings})


class SyncBuffered(BufferedAsync):
    """FedAvg with the guard and checkpoints of this package: K = all, in synchronous rounds."""

    def __init__(self, buffer_size: float = 1.0, **settings: Any) -> None:
        super().__init__(buffer_size, **{"refill": ON_VERSION, **settings})
