"""A view of a run that refreshes while it goes on."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fauno_flwr.cli.progress import EventFile
from fauno_flwr.results.directory import read_lines
from fauno_flwr.results.state import RUNNING, UNKNOWN, State, state_of
from fauno_flwr.results.status import (
    COLUMNS,
    failures,
    newest_stage,
    newest_version,
    node_statistics,
)

GOING_ON = (RUNNING, UNKNOWN)  # what runs on another machine cannot be seen to have ended
REFRESH = 1.0  # seconds
LINE_EVERY = 10.0  # seconds between two lines where there is no terminal
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # characters of a sparkline
CURVES = ("train/reward", "train/return", "train/finished_of_ended", "federation/staleness")


class Watch:
    """What is shown of a run.

    Parameters
    ----------
    folder : Path
        Of its results.
    versions : int
        That it is to make.
    """

    def __init__(self, folder: Path, versions: int) -> None:
        self.folder, self.versions = folder, versions
        self.events: list[dict[str, Any]] = []
        self._file = EventFile(folder / "events.jsonl")
        self.state = State(RUNNING)

    def update(self) -> None:
        """Read what the run has written since the last call."""
        self.events += self._file.new()
        self.state = state_of(self.folder, self.events)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Rows of ``metrics.jsonl``."""
        return read_lines(self.folder / "metrics.jsonl")

    def seconds_left(self, metrics: Sequence[dict[str, Any]]) -> float | None:
        """Estimate the seconds until the last version, from those of the last ones."""
        recent = metrics[-10:]
        made = newest_version(self.events)
        if self.state.name != RUNNING or len(recent) < 2 or made >= self.versions:
            return None
        spent = recent[-1]["time/wall"] - recent[0]["time/wall"]
        return float(spent / (len(recent) - 1) * (self.versions - made))

    def line(self) -> str:
        """Return the view in one line."""
        made, left = newest_version(self.events), self.seconds_left(self.metrics)
        text = f"{self.state}: {newest_stage(self.events)}, version {made}/{self.versions}"
        return text if left is None else f"{text}, {left:.0f} s left"

    def view(self) -> RenderableType:
        """Return state, progress, curves, and a table of the nodes."""
        metrics, made = self.metrics, newest_version(self.events)
        curves = Table.grid(padding=(0, 2))
        curves.add_row("versions", ProgressBar(max(self.versions, 1), made, width=WIDTH), f"{made}")
        for name in CURVES:
            values = [row[name] for row in metrics if row.get(name) is not None]
            if values:
                curves.add_row(name, sparkline(values), f"{values[-1]:.3g}")
        parts: list[RenderableType] = [Text(self.line(), style="bold"), curves]
        nodes = Table(box=None, pad_edge=False, header_style="bold")
        nodes.add_column("node")
        for title, _ in COLUMNS:
            nodes.add_column(title, justify="right")
        nodes.add_column("last")
        last = {each["name"]: each["event"] for each in self.events if "name" in each}
        trouble = failures(self.events)
        for name, counted in sorted(node_statistics(self.events).items()):
            cells = [
                f"{counted[key]:.1f}" if key.endswith("mean") else f"{counted[key]:,.0f}"
                for _, key in COLUMNS
            ]
            style = "red" if name in trouble else ""
            nodes.add_row(name, *cells, last.get(name, ""), style=style)
        parts.append(nodes)
        parts += [
            Text(f"{name}: {', '.join(f'{n} x {reason}' for reason, n in counts.most_common(3))}")
            for name, counts in sorted(trouble.items())
        ]
        return Group(*parts)


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Draw the last values as bars of a line of text; equal ones are low."""
    shown = values[-width:]
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1))] for value in shown)


def watch(folder: Path, versions: int, console: Console | None = None) -> State:
    """Show a run until it has ended, and return how.

    A table that refreshes on a terminal; elsewhere a line now and then.

    Parameters
    ----------
    folder : Path
    versions : int
        That the run is to make.
    console : Console, optional
        Default: standard output.
    """
    seen, console = Watch(folder, versions), console or Console()
    seen.update()
    if not console.is_terminal:
        shown, last = "", 0.0
        while True:
            ended = seen.state.name not in GOING_ON
            if seen.line() != shown and (ended or time.monotonic() - last > LINE_EVERY):
                shown, last = seen.line(), time.monotonic()
                typer.echo(shown)
                sys.stdout.flush()
            if ended:
                return seen.state
            time.sleep(REFRESH)
            seen.update()
    with Live(seen.view(), console=console, auto_refresh=False) as live:
        while seen.state.name in GOING_ON:
            time.sleep(REFRESH)
            seen.update()
            live.update(seen.view(), refresh=True)
    return seen.state
