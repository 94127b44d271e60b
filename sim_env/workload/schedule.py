"""Rates that change with time: a multiplier for every tick."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from sim_env.errors import require_choice, require_kind, require_number, require_whole

# A slot that begins this fraction of itself after a tick counts as begun: 3 * 0.1 s is 0.3 s.
ROUNDING = 1e-9
SHORTEST_SLOT = 0.01  # seconds: every slot is computed, and a run has many seconds


@dataclass
class Schedule:
    """How the rate of arrivals changes with time, as a multiplier of it.

    With ``workload.rate=1`` the multipliers are tasks per second, and the defaults those of the
    original simulator.

    Parameters
    ----------
    kind : str
        ``constant``: 1. ``linear``: from `low` up to `high`, which then stays. ``zigzag``: up and
        down again; the ends are held for two slots. ``uniform``: drawn from [`low`, `high`) for
        every slot. ``steps``: as `steps` says.
    low, high : float
        Ends of ``linear``, ``zigzag`` and ``uniform``.
    step : float
        What ``linear`` and ``zigzag`` change by, from slot to slot.
    slot : float
        Seconds between changes, at least 0.01.
    steps : str
        Of ``steps``: pairs of a multiplier and the seconds that it lasts, as in
        ``1-100,2.5-50``; the last multiplier stays.
    seed : int
        Of ``uniform``.
    """

    kind: str = "constant"
    low: float = 1.0
    high: float = 10.0
    step: float = 1.0
    slot: float = 100.0
    steps: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("workload.schedule.kind", self.kind, (*SLOTS, "steps"))
        require_number("workload.schedule.low", self.low, at_least=0)
        require_number("workload.schedule.high", self.high, at_least=self.low, above=0)
        require_number("workload.schedule.step", self.step, above=0)
        require_number("workload.schedule.slot", self.slot, at_least=SHORTEST_SLOT)
        require_whole("workload.schedule.seed", self.seed, at_least=0)
        if self.kind == "steps":
            require_kind("workload.schedule.steps", self.steps, str, "text such as 1-100,2.5-50")
            parse_steps(self.steps)

    @property
    def highest(self) -> float:
        """The largest multiplier that may come."""
        if self.kind == "steps":
            return max(multiplier for multiplier, _ in parse_steps(self.steps))
        return 1.0 if self.kind == "constant" else self.high


def multipliers(schedule: Schedule, ticks: int, tick_seconds: float, start: int = 0) -> np.ndarray:
    """Multiplier of the rate in every tick.

    Parameters
    ----------
    schedule : Schedule
        What changes.
    ticks : int
        Number of ticks.
    tick_seconds : float
        Seconds of a tick.
    start : int, default 0
        The first of them.

    Returns
    -------
    array of float, shape (ticks,)
        A tick takes the multiplier of the slot in which it begins.
    """
    begin = np.arange(start, start + ticks) * tick_seconds
    if schedule.kind == "steps":
        values, durations = np.array(parse_steps(schedule.steps)).T
        ends = np.cumsum(durations)[:-1]
        return values[np.searchsorted(ends * (1 - ROUNDING), begin, "right")]
    slot = np.floor(begin / schedule.slot + ROUNDING).astype(int)
    first, slots = (int(slot[0]), int(slot[-1]) + 1) if ticks else (0, 0)
    values = islice(SLOTS[schedule.kind](schedule), first, slots)
    return np.fromiter(values, float, slots - first)[slot - first]


def parse_steps(text: str) -> list[tuple[float, float]]:
    """Multipliers and seconds of ``multiplier-seconds,multiplier-seconds,...``.

    Raises
    ------
    ValueError
        For a part that is not such a pair, seconds that are not above 0, or multipliers that are
        negative or all 0.
    """
    pairs = []
    for part in text.split(","):
        multiplier, _, seconds = part.strip().rpartition("-")
        try:
            pair = float(multiplier), float(seconds)
        except ValueError as error:
            raise ValueError(
                f"workload.schedule.steps is {text!r}: must be pairs multiplier-seconds with "
                f"commas between them, such as 1-100,2.5-50 (not {part.strip()!r})"
            ) from error
        require_number(
            f"workload.schedule.steps: multiplier in {part.strip()!r}", pair[0], at_least=0
        )
        require_number(f"workload.schedule.steps: seconds in {part.strip()!r}", pair[1], above=0)
        pairs.append(pair)
    if not any(multiplier for multiplier, _ in pairs):
        raise ValueError(f"workload.schedule.steps is {text!r}: must have a multiplier above 0")
    return pairs


def _constant(_: Schedule) -> Iterator[float]:
    while True:
        yield 1.0


def _linear(schedule: Schedule) -> Iterator[float]:
    value = schedule.low
    while True:
        yield value
        value = min(value + schedule.step, schedule.high)


def _zigzag(schedule: Schedule) -> Iterator[float]:
    value, step = schedule.low, schedule.step
    while True:
        yield value
        value += step
        if not schedule.low <= value <= schedule.high:
            value = schedule.high if step > 0 else schedule.low
            step = -step


def _uniform(schedule: Schedule) -> Iterator[float]:
    rng = np.random.default_rng(schedule.seed)
    while True:
        yield rng.uniform(schedule.low, schedule.high)


# Values from slot to slot; the slots of ``steps`` have lengths of their own.
SLOTS = {"constant": _constant, "linear": _linear, "zigzag": _zigzag, "uniform": _uniform}
