"""Stop signals: one sentence and exit code 128 + n at any moment, also during the imports.

This module is imported before all others, so it imports little.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 2.0  # seconds until a stop that has not been met is enforced


class Stopped(SystemExit):
    """The command was stopped by a signal.

    Parameters
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name

    def __str__(self) -> str:
        return self.name


class StopRequest:
    """A signal that has arrived while a command was in a state that should not be left as it is."""

    def __init__(self) -> None:
        self._number = 0

    def receive(self, number: int) -> None:
        """Handle a signal: :meth:`check` raises, or else an alarm does."""
        self._number = number
        signal.signal(signal.SIGALRM, lambda *_: self.check())
        signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)

    def check(self) -> None:
        """Raise ``Stopped`` if a signal has arrived; once."""
        number, self._number = self._number, 0
        if number:
            _raise(number)


def exit_at_once() -> None:
    """Let stop signals end this process at once, without a traceback."""

    def stop(number: int, frame: FrameType | None) -> None:
        _announce(number)
        # No clean-up: it would be the traceback of whatever is interrupted, such as an import.
        os._exit(128 + number)

    _handle(stop)


@contextlib.contextmanager
def unwinding(request: StopRequest | None = None) -> Iterator[None]:
    """Let stop signals raise ``Stopped`` within a context, so that what was started is stopped.

    Parameters
    ----------
    request : StopRequest, optional
        Raises at its next check instead of at once.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        _announce(number)
        received.append(number)
        (_raise if request is None else request.receive)(number)

    before = {each: signal.getsignal(each) for each in SIGNALS}
    _handle(stop)
    try:
        yield
    except BaseException as error:
        if not received:
            _restore(before)
            raise
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        if isinstance(error, Stopped):
            raise  # all further signals stay ignored
        # Compiled code replaces exceptions of signal handlers by its own.
        raise Stopped(received[0]) from error
    if received:  # and swallowed until the end
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        raise Stopped(received[0])
    _restore(before)


def _raise(number: int) -> None:
    """Raise ``Stopped``, and again as long as something swallows it.

    Of an exception in a destructor, or in a callback of compiled code, Python only prints a note.
    """

    def again(*_: object) -> None:
        error = sys.exc_info()[1]
        while error is not None:
            if isinstance(error, Stopped):
                return  # what was started is being stopped
            error = error.__context__
        raise Stopped(number)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)
    raise Stopped(number)


def _handle(handler: object) -> None:
    for each in SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(each, handler)  # type: ignore[arg-type]


def _restore(handlers: Mapping[signal.Signals, object]) -> None:
    for each, handler in handlers.items():
        signal.signal(each, handler)  # type: ignore[arg-type]


def _announce(number: int) -> None:
    """Say that the command stops; a second signal must not interrupt the stopping."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    line = f"fauno: stopped by {signal.Signals(number).name}\n"
    with contextlib.suppress(OSError):
        # Not through sys.stderr, whose buffer may be locked by what is interrupted.
        os.write(2, (f"\n{line}" if os.isatty(2) else line).encode())
