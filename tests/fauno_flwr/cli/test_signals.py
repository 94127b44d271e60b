"""Stop signals: nothing swallows them, and nothing interrupts the stopping."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from fauno_flwr.cli import signals
from fauno_flwr.cli.signals import Stopped, StopRequest, unwinding

PATIENCE = 0.1


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch):
    """Restore the handlers, which stay ignored after a stop."""
    monkeypatch.setattr(signals, "PATIENCE", PATIENCE)
    before = [(each, signal.getsignal(each)) for each in (*signals.SIGNALS, signal.SIGALRM)]
    yield
    for each, handler in before:
        signal.signal(each, handler)


class Deaf:
    """Is interrupted in its destructor, in which exceptions are only printed."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(PATIENCE / 2)


def interrupted_in_a_destructor() -> None:
    with unwinding():
        Deaf()
        time.sleep(50 * PATIENCE)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_is_swallowed_is_raised_again() -> None:
    with pytest.raises(Stopped):
        interrupted_in_a_destructor()


def interrupted_in_foreign_code() -> None:
    with unwinding():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(50 * PATIENCE)
        except SystemExit:
            raise SystemExit(1) from None


def interrupted_at_the_end() -> None:
    with unwinding():
        Deaf()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("function", [interrupted_in_foreign_code, interrupted_at_the_end])
def test_a_stop_stays_one_whatever_code_makes_of_it(function: Callable[[], None]) -> None:
    with pytest.raises(Stopped):
        function()
    time.sleep(3 * PATIENCE)  # no alarm is left


def stop_slowly(request: StopRequest | None, done: list[str]) -> None:
    with unwinding(request):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(50 * PATIENCE)
            done.append("went on")
        finally:
            time.sleep(4 * PATIENCE)
            done.append("stopped")


@pytest.mark.parametrize("request_to_stop", [None, StopRequest()])
def test_what_was_started_is_stopped_without_interruption(
    request_to_stop: StopRequest | None,
) -> None:
    done: list[str] = []
    with pytest.raises(Stopped):
        stop_slowly(request_to_stop, done)
    assert done == ["stopped"]
    time.sleep(3 * PATIENCE)  # no alarm is left
