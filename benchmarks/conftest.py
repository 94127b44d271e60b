"""A table of what was measured, in units that mean something."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the rates of all benchmarks."""
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    rows = [
        (bench.name, rate, unit)
        for bench in (session.benchmarks if session else [])
        for unit, rate in bench.extra_info.items()
    ]
    if rows:
        terminalreporter.section("rates (median)")
        for name, rate, unit in rows:
            terminalreporter.write_line(f"{name:<55} {rate:>14,.0f} {unit}")
