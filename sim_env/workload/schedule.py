"""Arrival rates that change with time: a multiplier for every tick."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

import numpy as np

from sim_env.errors import (
    Use,
    require_choice,
    require_effect,
    require_kind,
    require_number,
    require_whole,
    with_kind,
)

# A slot that begins this fraction of itself after a tick counts as begun: 3 * 0.1 s is 0.3 s.
ROUNDING = 1e-9
SHORTEST_SLOT = 0.01  # seconds: every slot is computed, and a run has many seconds


@dataclass
class Step:
    """A constant stretch of a schedule.

    Parameters
    ----------
    multiplier : float
        Of the arrival rate.
    seconds : float
        Duration.
    """

    multiplier: float
    seconds: float


@dataclass
class Schedule:
    """Change of the arrival rate with time, as a multiplier.

    With ``workload.rate=1`` the multipliers are tasks per second, and the defaults those of the
    original simulator.

    Parameters
    ----------
    kind : str
        ``constant``: 1. ``linear``: from `low` up to `high`, which is then kept. ``zigzag``: up
        and down; the ends are held for two slots. ``uniform``: drawn from [`low`, `high`) for
        every slot. ``steps``: those of `steps`.
    low, high : float
        Ends of ``linear``, ``zigzag`` and ``uniform``.
    step : float
        Change of ``linear`` and ``zigzag`` from slot to slot.
    slot : float
        Seconds between changes, at least 0.01.
    steps : list of Step
        Of ``steps``, as in ``[{multiplier: 1, seconds: 100}, {multiplier: 2.5, seconds: 50}]``;
        the last multiplier is kept for ever.
    seed : int
        Seed of ``uniform``.
    """

    uses: ClassVar[dict[str, Use]] = {
        "low": with_kind("kind", "linear", "zigzag", "uniform"),
        "high": with_kind("kind", "linear", "zigzag", "uniform"),
        "step": with_kind("kind", "linear", "zigzag"),
        "slot": with_kind("kind", "linear", "zigzag", "uniform"),
        "steps": with_kind("kind", "steps"),
        "seed": with_kind("kind", "uniform"),
    }

    kind: str = "constant"
    low: float = 1.0
    high: float = 10.0
    step: float = 1.0
    slot: float = 100.0
    steps: list[Step] = field(default_factory=list)
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("workload.schedule.kind", self.kind, (*SLOTS, "steps"))
        require_number("workload.schedule.low", self.low, at_least=0)
        require_number("workload.schedule.high", self.high, at_least=self.low, above=0)
        require_number("workload.schedule.step", self.step, above=0)
        require_number("workload.schedule.slot", self.slot, at_least=SHORTEST_SLOT)
        require_whole("workload.schedule.seed", self.seed, at_least=0)
        require_steps(self.steps, at_least_one=self.kind == "steps")
        require_effect("workload.schedule.", self, self.uses)

    @property
    def highest(self) -> float:
        """The largest multiplier that may occur."""
        if self.kind == "steps":
            return max(step.multiplier for step in self.steps)
        return 1.0 if self.kind == "constant" else self.high


def multipliers(schedule: Schedule, ticks: int, tick_seconds: float, start: int = 0) -> np.ndarray:
    """Compute the multiplier of the arrival rate in every tick.

    Parameters
    ----------
    schedule : Schedule
    ticks : int
        Number of ticks.
    tick_seconds : float
        Seconds of a tick.
    start : int, default 0
        First tick.

    Returns
    -------
    array of float, shape (ticks,)
        A tick has the multiplier of the slot in which it begins.
    """
    begin = np.arange(start, start + ticks) * tick_seconds
    if schedule.kind == "steps":
        levels = np.array([step.multiplier for step in schedule.steps], float)
        ends = np.cumsum([step.seconds for step in schedule.steps], dtype=float)[:-1]
        return levels[np.searchsorted(ends * (1 - ROUNDING), begin, "right")]
    slot = np.floor(begin / schedule.slot + ROUNDING).astype(int)
    first, slots = (int(slot[0]), int(slot[-1]) + 1) if ticks else (0, 0)
    values = islice(SLOTS[schedule.kind](schedule), first, slots)
    return np.fromiter(values, float, slots - first)[slot - first]


def require_steps(steps: object, *, at_least_one: bool = True) -> None:
    """Raise ``ValueError`` unless `steps` are possible.

    Seconds must be above 0; multipliers must not be negative, nor all 0.
    """
    example = "such as [{multiplier: 1, seconds: 100}]"
    require_kind("workload.schedule.steps", steps, list, f"a list of steps, {example}")
    assert isinstance(steps, list)
    for number, step in enumerate(steps):
        where = f"workload.schedule.steps[{number}]"
        require_kind(where, step, Step, "a Step")
        require_number(f"{where}: multiplier", step.multiplier, at_least=0)
        require_number(f"{where}: seconds", step.seconds, above=0)
    if at_least_one and not steps:
        raise ValueError(f"workload.schedule.steps is []: must have at least one step, {example}")
    if steps and not any(step.multiplier for step in steps):
        raise ValueError("workload.schedule.steps are all 0: must have a multiplier above 0")


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
