"""How full messages make the links, and what a training costs the machine."""

import gc
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fauno_flwr.cosim.transport import Transport

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
QUANTILES = {"median": 0.5, "p95": 0.95}
MEGABYTE = 8e6  # bits


class Delays:
    """Seconds that the messages of a training were on their way.

    Parameters
    ----------
    tick : float
        Seconds of a tick.
    """

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._sent: dict[str, float] = {}
        self._seconds: list[float] = []

    def sent(self, key: str, tick: float) -> None:
        """Note that a message sets out; a key is in use until the message has arrived."""
        self._sent[key] = tick

    def arrived(self, key: str, tick: float) -> None:
        """Note that it has arrived."""
        self._seconds.append((tick - self._sent.pop(key)) * self._tick)

    def quantiles(self) -> dict[str, float]:
        """Return the median and the 95th percentile."""
        return quantiles(self._seconds)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return ``median`` and ``p95``; NaN without any value."""
    return {
        name: float(np.quantile(values, level)) if values else float("nan")
        for name, level in QUANTILES.items()
    }


def load_of(transport: Transport, manager: int, ticks: float, tick: float) -> dict[str, Any]:
    """Describe what the links have carried.

    Parameters
    ----------
    transport : Transport
        After a training.
    manager : int
        The server's node; in a gossip the node that would be it.
    ticks : float
        Duration of the training.
    tick : float
        Seconds.

    Returns
    -------
    dict
        ``megabytes`` over all links (a message counts on each hop); of the ``manager``: ``links``
        (both directions), ``megabytes``, and of its busiest link the ``utilisation`` (bits over
        those that fit into the training) and ``busy`` (fraction of time with a message);
        ``elsewhere``: the utilisation of the busiest other link; ``megabits_per_second``: the mean
        rate of the manager's links.
    """
    net = transport.net
    between = transport.source != net.neighbour  # slot 0 is a node itself
    own = between & ((transport.source == manager) | (net.neighbour == manager))
    others = between & ~own
    carried = transport.transferred()
    used = np.zeros(len(between))
    used[between] = carried[between] / (transport.capacity[between] * ticks)
    return {
        "megabytes": float(carried.sum() / MEGABYTE),
        "megabits_per_second": float(transport.capacity[own].mean() / tick / 1e6),
        "manager": {
            "links": int(own.sum()),
            "megabytes": float(carried[own].sum() / MEGABYTE),
            "utilisation": float(used[own].max()),
            "busy": float(transport.busy[own].max() / ticks),
        },
        "elsewhere": float(used[others].max(initial=0.0)),
    }


class Memory:
    """Peak resident memory of this process from now on."""

    def __init__(self) -> None:
        gc.collect()
        if RESET.exists():
            RESET.write_text("5")  # resets the peak, see proc(5)
        self._before = self._peak()

    def megabytes(self) -> dict[str, float]:
        """Return the ``peak``, and the ``growth`` since the beginning."""
        peak = self._peak()
        return {"peak": peak, "growth": peak - self._before}

    @staticmethod
    def _peak() -> float:
        if STATUS.exists():
            line = next(x for x in STATUS.read_text().splitlines() if x.startswith("VmHWM:"))
            return int(line.split()[1]) / 1024
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**2
