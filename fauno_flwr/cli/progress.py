"""How far a run is, from its events; shown on standard error."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from fauno_flwr.federation.failures import kind
from fauno_flwr.results.state import FAILED

CLEAR = "\r\033[K"  # the line of a terminal
BAR = 24  # columns


class Progress:
    """One line about a run: on a terminal a bar, rewritten in place, else a line now and then.

    Parameters
    ----------
    agents : int
        Nodes that learn.
    versions : int
        Versions to make.
    stage : str, default "starting"
        Shown until the first event.
    """

    INTERVAL = 5.0  # seconds between two lines of one stage where there is no terminal

    def __init__(self, agents: int, versions: int, stage: str = "starting") -> None:
        self.agents, self.versions, self.stage = agents, versions, stage
        self.version, self.replied = 0, set[str]()
        self._resumed = 0
        self.live = sys.stderr.isatty()
        self._training_since = self._shown_at = 0.0
        self._shown = self._shown_stage = ""
        self.failed = ""
        self._kinds, self._notices = set[str](), list[str]()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Process an event and show where the run is."""
        self.update(event)
        self.show()

    def update(self, event: Mapping[str, Any]) -> None:
        """Process an event."""
        if event["event"] == "stage":
            self.stage = event["stage"]
            if self.stage == "training":
                self._training_since = time.monotonic()
        elif event["event"] == "reply":
            self.replied.add(event["name"])
        elif event["event"] == "flush":
            self.version = event["version"]
        elif event["event"] == "resume":
            self.version = self._resumed = event["version"]
        elif event["event"] in ("error", "reject", "refused"):
            self._notice(event)
        elif event["event"] == "end" and event["state"] == FAILED:
            self.failed = event["reason"]

    def _notice(self, event: Mapping[str, Any]) -> None:
        """Show a failure if it is the first of its kind."""
        reason = str(event["reason"])
        if kind(reason) not in self._kinds:
            self._kinds.add(kind(reason))
            name = event.get("name", f"node {event['node']}")
            self._notices.append(f"{name}: {reason}")

    def text(self) -> str:
        """Return the line."""
        if self.stage != "training":
            return f"{self.stage} ..."
        text = (
            f"training: {len(self.replied)}/{self.agents} nodes have replied, "
            f"version {self.version}/{self.versions}"
        )
        made = self.version - self._resumed
        if made:
            seconds = time.monotonic() - self._training_since
            left = seconds / made * (self.versions - self.version)
            text += f", {max(left, 0.0):.0f} s left"
        return text

    def show(self) -> None:
        """Print the line if it is new, and if it is time for it; before it, what has failed."""
        for notice in self._notices:
            typer.echo(f"{CLEAR if self.live else ''}{notice}", err=True)
            self._shown = ""
        self._notices.clear()
        text, now = self.text(), time.monotonic()
        due = self.live or self.stage != self._shown_stage or now - self._shown_at > self.INTERVAL
        if text != self._shown and due:
            line = f"{CLEAR}{self._with_bar(text)}" if self.live else text
            typer.echo(line, err=True, nl=not self.live)
            self._shown, self._shown_stage, self._shown_at = text, self.stage, now

    def _with_bar(self, text: str) -> str:
        """Put a bar of the versions made before the text, in one line of the terminal."""
        from rich.console import Console  # 40 ms, and only where there is a terminal
        from rich.progress_bar import ProgressBar

        console = Console(stderr=True)
        room = console.width - 1  # a full line would wrap
        if self.stage != "training" or room < 2 * BAR:
            return text[:room]
        with console.capture() as bar:
            console.print(ProgressBar(max(self.versions, 1), self.version, width=BAR), end="")
        return f"{bar.get()} {text[: room - BAR - 1]}"

    def clear(self) -> None:
        """Remove the line from a terminal."""
        if self.live:
            typer.echo(CLEAR, err=True, nl=False)


class EventFile:
    """Events that a run appends to a file of JSON lines.

    Parameters
    ----------
    path : Path
        Need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the events since the last call; a line that is being written comes later."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            yield json.loads(line)


def follow(
    events: EventFile, progress: Progress, status: Callable[[], tuple[str, str]]
) -> tuple[str, str]:
    """Show the progress of a run of Flower until it has finished; return its status.

    Parameters
    ----------
    events : EventFile
        Of the run.
    progress : Progress
    status : callable
        Ask the engine for the status. It takes a second, so it is called only when the run says
        that it is done, or has not said anything for some seconds.
    """
    poll, quiet = 0.5, 6.0  # seconds
    last_event = last_asked = time.monotonic()
    while True:
        time.sleep(poll)
        now = time.monotonic()
        for event in events.new():
            progress.update(event)
            last_event = now
        progress.show()
        if progress.failed:
            progress.clear()
            return "finished:failed", progress.failed
        if progress.stage == "done" or now - max(last_event, last_asked) > quiet:
            answer, last_asked = status(), time.monotonic()
            if answer[0].startswith("finished") or answer[0] == "unknown":
                for event in events.new():  # written while the engine answered
                    progress.update(event)
                progress.show()
                progress.clear()
                return answer
