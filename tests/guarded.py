"""Scenarios of attacks and faults, each with the mutation that removes the guard against it.

A scenario asserts what must hold. With the guard it passes; without it, it has to fail, or the
guard would have no test.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Mutation = Callable[[pytest.MonkeyPatch], None]
Scenario = Callable[[Path], None]
FAILURES = (AssertionError, pytest.fail.Exception)


class Scenarios:
    """Scenarios by name, in the order of their registration; iterating yields the names."""

    def __init__(self) -> None:
        self._all: dict[str, tuple[Scenario, Mutation]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __call__(self, mutation: Mutation, name: str = "") -> Callable[[Scenario], Scenario]:
        """Register the decorated scenario, under its own name by default."""

        def register(scenario: Scenario) -> Scenario:
            self._all[name or scenario.__name__] = (scenario, mutation)
            return scenario

        return register

    def require_holds(self, name: str, folder: Path) -> None:
        """Run a scenario."""
        self._all[name][0](folder)

    def require_fails_unguarded(
        self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Remove the guard of a scenario, and expect it to fail."""
        scenario, mutation = self._all[name]
        mutation(monkeypatch)
        with pytest.raises(FAILURES):
            scenario(folder)


def patch(target: object, name: str, value: object) -> Mutation:
    """Return the mutation that replaces an attribute by `value`."""
    return lambda monkeypatch: monkeypatch.setattr(target, name, value)
