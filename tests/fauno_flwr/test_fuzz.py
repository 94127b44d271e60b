"""A few seconds of the fuzzers of handshake and settings, and some minutes."""

import pytest

from tests.fuzz import handshake, settings


def test_fuzzed_handshakes() -> None:
    counts = handshake.fuzz(seed=1, budget_seconds=3)
    assert counts["inputs"] > 100
    assert counts["refused"] > 50
    assert counts["stood_in"] > 0


def test_fuzzed_settings() -> None:
    counts = settings.fuzz(seed=1, budget_seconds=4)
    assert counts["refused"] > 3


@pytest.mark.slow
@pytest.mark.parametrize("fuzzer", [handshake, settings])
def test_fuzzed_for_minutes(fuzzer) -> None:
    assert fuzzer.fuzz(seed=2, budget_seconds=120)["inputs"] > 500
