"""Checks of the arguments that all strategies here share."""

import math
from collections.abc import Callable

from strategies.buffer import require_buffer_size
from strategies.checks import require_number, require_whole


def require_shared(
    *,
    buffer_size: float,
    fraction_evaluate: float,
    min_available_nodes: int,
    ttl: float | Callable[[int], float] | None,
    poll_interval: float,
    refresh_interval: float,
    backoff: float,
    max_backoff: float,
    max_failures: int,
    patience: float,
) -> None:
    """Check the arguments of :class:`strategies.BufferedAsync` that other strategies have, too.

    Raises
    ------
    ValueError
        If one of them is impossible.
    """
    require_buffer_size(buffer_size)
    require_number("fraction_evaluate", fraction_evaluate, at_least=0, at_most=1)
    require_whole("min_available_nodes", min_available_nodes, at_least=1)
    if ttl is not None and not callable(ttl):
        require_number("ttl", ttl, above=0)
    require_number("poll_interval", poll_interval, above=0)
    require_number("refresh_interval", refresh_interval, at_least=0)
    require_number("backoff", backoff, at_least=0)
    require_number("max_backoff", max_backoff, at_least=backoff)
    require_whole("max_failures", max_failures, at_least=1)
    require_number("patience", patience, at_least=0)


def read_length(num_rounds: int, timeout: float | None) -> float:
    """Check how long to train; return the timeout in seconds, infinite for None.

    Raises
    ------
    ValueError
        If `num_rounds` or `timeout` is impossible.
    """
    require_whole("num_rounds", num_rounds, at_least=0)
    if timeout is None:
        return math.inf
    require_number("timeout", timeout, above=0)
    return timeout
