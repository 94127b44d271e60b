"""A table of what was measured, in units that mean something."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest


def flat(info: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a benchmark with their units; those of nested mappings as ``a, b``."""
    for name, value in info.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}, ")
        else:
            yield prefix + name, value


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the numbers that the benchmarks have noted."""
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    rows = [
        (bench.name, value, unit)
        for bench in (session.benchmarks if session else [])
        for unit, value in flat(bench.extra_info)
    ]
    if rows:
        terminalreporter.section("numbers (median)")
        width = max(len(name) for name, _, _ in rows)
        for name, value, unit in rows:
            number = f"{value:,.0f}" if value >= 1000 else f"{value:,.2f}"
            terminalreporter.write_line(f"{name:<{width}} {number:>12} {unit}")
