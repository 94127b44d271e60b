"""The command ``fauno status``."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fauno_flwr.config.loading import load_config


def status(
    out: Annotated[Path, typer.Argument(help="Folder of the results of a run.")],
) -> None:
    """Show how far a run is, and what each node has done: versions, staleness, rejections."""
    from fauno_flwr.results.status import format_status, read_events

    folder = out.expanduser()
    events = read_events(folder)
    config = load_config(str(folder / "config.yaml"))
    typer.echo(format_status(events, config.federation.versions))
    age = time.time() - (folder / "events.jsonl").stat().st_mtime
    typer.echo(f"last event {age:.0f} s ago")
