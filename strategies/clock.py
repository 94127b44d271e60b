"""What an asynchronous strategy asks of time."""

from typing import Protocol


class Clock(Protocol):
    """A clock: the module :mod:`time` is one; a virtual one comes with a grid that simulates."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def sleep(self, seconds: float, /) -> None:
        """Let time pass; a virtual clock may return earlier, when something happens."""
