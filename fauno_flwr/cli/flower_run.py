"""What ``fauno simulate`` and ``fauno deploy local`` have in common: a run of Flower's engine."""

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from fauno_flwr.cli.progress import EventFile, Progress, follow
from fauno_flwr.cli.signals import Stopped, unwinding
from fauno_flwr.config.loading import absolute_overrides
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.deployment.engine import Engine, EngineError
from fauno_flwr.results.state import FAILED, INTERRUPTED, State, append_end
from fauno_flwr.results.status import describe_privacy, read_events

LOG_LINES = 100_000  # of the engine's log, kept when a run has failed
COMPLETED = "finished:completed"


@contextmanager
def stop_on_signals(out: Path) -> Iterator[None]:
    """Stop all that was started when a signal comes; then the events of the run end with it.

    Parameters
    ----------
    out : Path
        Folder of the results.
    """
    try:
        with unwinding():
            yield
    except Stopped as stopped:
        append_end(out, State(INTERRUPTED, stopped.name))
        raise


def run_config(conf: str, overrides: Sequence[str], out: Path) -> dict[str, str]:
    """Return the run config of the app for these settings."""
    if Path(conf).suffix:
        conf = str(Path(conf).absolute())
    # The engine has another working directory.
    return {"conf": conf, "overrides": shlex.join(absolute_overrides(overrides)), "out": str(out)}


def wait_for_run(engine: Engine, run_id: str, out: Path, agents: int, config: RunConfig) -> None:
    """Show the progress of a run until it is complete.

    Raises
    ------
    EngineError
        If it ended otherwise; its log is kept then.
    """
    progress = Progress(agents, config.federation.versions, "starting Flower")
    events = EventFile(out / "events.jsonl")
    status, details = follow(events, progress, lambda: engine.status(run_id))
    if status != COMPLETED:
        log = keep_log(out, engine.run_log(run_id) + engine.tail(LOG_LINES))
        reason = progress.failed or f"Flower ended it as {status}: {details}"
        append_end(out, State(FAILED, reason))
        raise EngineError(f"the run has failed: {reason} (log: {log})")


def keep_log(path: Path, text: str) -> Path:
    """Write Flower's log beside the results, or here if the run failed before there were any."""
    log = (path if path.is_dir() else Path.cwd()) / "flower.log"
    log.write_text(text)
    return log


def print_results(path: Path, config: RunConfig) -> None:
    """Print the comparison and the files of a complete run."""
    from fauno_flwr.results.report import format_rows

    summary = json.loads((path / "summary.json").read_text())
    if summary["table"]:
        typer.echo(format_rows(summary["table"], summary["rho"], config.evaluation.worlds))
    if spent := describe_privacy(read_events(path)):
        typer.echo(f"\n{spent}")
    seconds = summary["seconds"]["since_start"]
    trained = seconds["collecting" if "collecting" in seconds else "evaluating"]
    trained -= seconds["training"]
    clock = f"{trained:.0f} s of {summary['seconds']['clock']}-clock time"
    typer.echo(f"\n{summary['versions']} critic versions in {clock}; wrote")
    for file in sorted(path.rglob("*")):
        if file.is_file():
            typer.echo(f"  {file}")
