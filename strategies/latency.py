"""Latency models for grids under virtual time: seconds from a message to its reply.

A model is any callable ``(partition_id, k) -> seconds`` for the k-th message to a node.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from strategies.checks import require_number

Duration = Callable[[int, int], float]


@dataclass(frozen=True)
class Latency:
    """Computation and two transfers, times a random factor.

    ::

        seconds = (steps seconds_per_step / speed_i + 2 (delay + bytes / bytes_per_second)) e^z

    ``z`` is normal with mean 0 and standard deviation `jitter`, drawn from ``(seed, i, k)`` alone:
    it does not depend on the order in which messages are sent.

    Parameters
    ----------
    seconds_per_step : float, default 1.0
        Seconds of a training step on a node of speed 1.
    steps : float, default 1.0
        Training steps per message.
    speeds : sequence of float, default (1.0,)
        Relative speed of node i; repeated if there are more nodes.
    num_bytes : float, default 0.0
        Size of the arrays in each direction.
    bytes_per_second : float, default inf
    delay : float, default 0.0
        Propagation delay of a transfer, in seconds.
    jitter : float, default 0.0
    seed : int, default 0
    """

    seconds_per_step: float = 1.0
    steps: float = 1.0
    speeds: Sequence[float] = (1.0,)
    num_bytes: float = 0.0
    bytes_per_second: float = float("inf")
    delay: float = 0.0
    jitter: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("seconds_per_step", "steps", "num_bytes", "delay", "jitter"):
            require_number(name, getattr(self, name), at_least=0)
        if not self.bytes_per_second > 0:
            raise ValueError(f"bytes_per_second is {self.bytes_per_second!r}: must be above 0")
        if not self.speeds:
            raise ValueError("speeds is empty: must hold at least one speed")
        for speed in self.speeds:
            require_number("a speed", speed, above=0)

    def __call__(self, partition_id: int, k: int) -> float:
        """Return the seconds for the k-th message to a node."""
        computing = (
            self.steps * self.seconds_per_step / self.speeds[partition_id % len(self.speeds)]
        )
        transfer = 2 * (self.delay + self.num_bytes / self.bytes_per_second)
        if self.jitter == 0:
            return computing + transfer
        z = np.random.default_rng([self.seed, partition_id, k]).normal(0.0, self.jitter)
        return (computing + transfer) * float(np.exp(z))


@dataclass(frozen=True)
class Trace:
    """Recorded latencies of each node, repeated cyclically.

    Parameters
    ----------
    seconds : mapping of int to sequence of float
        Latencies by partition id.
    """

    seconds: Mapping[int, Sequence[float]]

    def __post_init__(self) -> None:
        for partition_id, times in self.seconds.items():
            if not times:
                raise ValueError(f"the trace of node {partition_id} is empty")
            for time in times:
                require_number(f"a time of node {partition_id}", time, at_least=0)

    @classmethod
    def from_csv(cls, path: Path | str) -> "Trace":
        """Read rows ``partition_id,seconds`` in chronological order, without a header."""
        seconds: dict[int, list[float]] = {}
        with Path(path).open(newline="") as file:
            for number, row in enumerate(csv.reader(file), 1):
                try:
                    partition_id, time = row
                    seconds.setdefault(int(partition_id), []).append(float(time))
                except ValueError:
                    raise ValueError(
                        f"row {number} of {path} is {row}: must be partition_id,seconds"
                    ) from None
        return cls(seconds)

    def __call__(self, partition_id: int, k: int) -> float:
        """Return the seconds for the k-th message to a node."""
        if partition_id not in self.seconds:
            raise ValueError(f"the trace has no node {partition_id}: it has {sorted(self.seconds)}")
        times = self.seconds[partition_id]
        return times[k % len(times)]
