"""Following a run of Flower from the shell: how far it is, how it ended, what it wrote."""

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import typer

from fauno_flwr.config.settings import RunConfig


def stop_on_signals() -> None:
    """Turn a termination into an ordinary exit, so that everything started is stopped."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # once is enough: stopping takes a moment
        typer.echo(f"\nfauno: stopped by {signal.Signals(number).name}", err=True)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, stop)


class Progress:
    """Tells how far a run is, from the events that its server writes.

    Parameters
    ----------
    path : Path
        Folder of the run.
    agents : int
        Nodes that learn.
    config : RunConfig
    """

    POLL, QUIET = 0.5, 6.0

    def __init__(self, path: Path, agents: int, config: RunConfig) -> None:
        self.events, self.agents, self.versions = (
            path / "events.jsonl",
            agents,
            config.federation.versions,
        )
        self.offset, self.stage, self.version, self.heard = 0, "starting Flower", 0, set[str]()
        self.live = sys.stderr.isatty()
        self.training_since = 0.0

    def until_the_end(self, status: Callable[[], tuple[str, str]]) -> tuple[str, str]:
        """Wait until the run has finished; returns its status.

        Parameters
        ----------
        status : callable
            Asks the engine, which takes a second: done only when the events do not tell.
        """
        last_news = last_asked = last_shown = time.monotonic()
        shown = ""
        while True:
            time.sleep(self.POLL)
            now = time.monotonic()
            if self._read():
                last_news = now
            text = self._text(now)
            if text != shown and (self.live or now - last_shown > 5 or self.stage not in shown):
                typer.echo(f"\r\033[K{text}" if self.live else text, err=True, nl=not self.live)
                shown, last_shown = text, now
            quiet = now - max(last_news, last_asked) > self.QUIET
            if self.stage == "done" or quiet:
                answer, last_asked = status(), now
                if answer[0].startswith("finished") or answer[0] == "unknown":
                    if self.live:
                        typer.echo("\r\033[K", err=True, nl=False)
                    return answer

    def _read(self) -> bool:
        """Take in new events; returns whether there were any."""
        if not self.events.exists():
            return False
        with self.events.open() as file:
            file.seek(self.offset)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self.offset += len(whole.encode())
        for line in whole.splitlines():
            event = json.loads(line)
            if event["event"] == "stage":
                self.stage = event["stage"]
                if self.stage == "training":
                    self.training_since = time.monotonic()
            elif event["event"] == "reply":
                self.heard.add(event["name"])
            elif event["event"] == "flush":
                self.version = event["version"]
        return bool(whole)

    def _text(self, now: float) -> str:
        if self.stage != "training":
            return f"{self.stage} ..."
        text = (
            f"training: {len(self.heard)}/{self.agents} nodes heard, "
            f"version {self.version}/{self.versions}"
        )
        if self.version:
            left = (now - self.training_since) / self.version * (self.versions - self.version)
            text += f", {left:.0f} s left"
        return text


def keep_log(path: Path, text: str) -> Path:
    """Write Flower's log beside the results, or here if the run failed before there were any."""
    log = (path if path.is_dir() else Path.cwd()) / "flower.log"
    log.write_text(text)
    return log


def print_results(path: Path, config: RunConfig) -> None:
    """Print the comparison and the files of a run that is complete."""
    from fauno_flwr.results.report import format_rows

    summary = json.loads((path / "summary.json").read_text())
    if summary["table"]:
        typer.echo(format_rows(summary["table"], summary["rho"], config.evaluation.worlds))
    seconds = summary["seconds"]["since_start"]
    trained = seconds["collecting" if "collecting" in seconds else "evaluating"]
    trained -= seconds["training"]
    typer.echo(f"\n{summary['versions']} critic versions in {trained:.0f} s of training; wrote")
    for file in sorted(path.rglob("*")):
        if file.is_file():
            typer.echo(f"  {file}")
