"""The clock of a strategy: real time, or the virtual time of a simulated grid."""

from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Clock of a strategy; the module :mod:`time` is one."""

    def monotonic(self) -> float:
        """Return the seconds since a fixed moment; never decreases."""

    def sleep(self, seconds: float, /) -> None:
        """Wait; a virtual clock may return earlier, at the next event."""


class VirtualClock:
    """Clock that advances only during :meth:`sleep`.

    Parameters
    ----------
    next_event : callable
        Time of the next event after now; None if there is none.
    """

    def __init__(self, next_event: Callable[[], float | None]) -> None:
        self.now, self._next_event = 0.0, next_event

    def monotonic(self) -> float:
        """Return the virtual time in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds`, or to the next event if that is earlier."""
        event = self._next_event()
        end = self.now + seconds
        self.now = end if event is None else min(event, end)
