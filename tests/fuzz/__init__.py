"""Fuzzers of everything that reaches a server from outside: ``make fuzz``.

A target makes inputs as bytes, and handles one: it returns what came of it in a few words, and
raises if that must not happen. A scenario is a function ``fuzz(seed, seconds)`` that plays many
moves of an attacker and returns counts, among them its ``inputs``; it raises, or counts ``crashes``
or ``poisoned``, for a defect. To add one, write a module like the others and name it here.
"""

import importlib
from pathlib import Path
from typing import Protocol

import numpy as np


class Target(Protocol):
    """What the class ``Fuzzer(folder)`` of a module has."""

    def make(self, rng: np.random.Generator) -> bytes:
        """Return an input."""

    def handle(self, data: bytes) -> str:
        """Handle an input; return the outcome, of which there are few; raise for a defect."""


MODULES = {
    "replies": "tests.fuzz.replies",
    "metrics": "tests.fuzz.metrics",
    "files": "tests.fuzz.files",
    "checkpoints": "tests.fuzz.checkpoints",
}
SCENARIOS = {
    "handshake": "tests.fuzz.handshake",
    "settings": "tests.fuzz.settings",
    "service": "tests.fuzz.service",
}
DEFECTS = ("crashes", "poisoned")  # counts of a scenario


def load(name: str, folder: Path) -> Target:
    """Return the target of that name, in a new state; it may write to a folder."""
    target: Target = importlib.import_module(MODULES[name]).Fuzzer(folder)
    return target


def play(name: str, seed: int, seconds: float) -> dict[str, int]:
    """Play the scenario of that name; return its counts."""
    counts: dict[str, int] = importlib.import_module(SCENARIOS[name]).fuzz(seed, seconds)
    return counts


def require_sentence(error: Exception, most: int) -> None:
    """Assert that an error is one line of at most so many characters."""
    text = str(error)
    assert len(text) <= most, f"a sentence of {len(text)} characters"
    assert "\n" not in text
    assert "\x1b" not in text


def mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """Return bytes that differ in a few places: changed, cut, repeated, or removed."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(len(changed) + 1))
        how = rng.integers(5)
        if how == 0:
            changed[place : place + 1] = rng.bytes(1)
        elif how == 1:
            del changed[place : place + int(rng.integers(1, 9))]
        elif how == 2:
            changed[place:place] = changed[place : place + int(rng.integers(1, 33))]
        elif how == 3:
            changed[place:place] = rng.bytes(int(rng.integers(1, 9)))
        elif rng.random() < 0.2:
            del changed[place:]
    return bytes(changed)
