"""What an asynchronous strategy asks of time."""

from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """A clock: the module :mod:`time` is one; a virtual one comes with a grid that simulates."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def sleep(self, seconds: float, /) -> None:
        """Let time pass; a virtual clock may return earlier, when something happens."""


class VirtualClock:
    """A clock that stands still until somebody sleeps.

    Parameters
    ----------
    next_event : callable
        Time, after now, of the next thing that will happen; None if nothing will.
    """

    def __init__(self, next_event: Callable[[], float | None]) -> None:
        self.now, self._next_event = 0.0, next_event

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Jump by `seconds`, or to the next event if that comes earlier."""
        event = self._next_event()
        end = self.now + seconds
        self.now = end if event is None else min(event, end)
