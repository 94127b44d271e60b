"""The command ``fauno status``."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config


def status(
    out: Annotated[Path, typer.Argument(help="Folder of the results of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
    follow: Annotated[
        bool, typer.Option("--watch", help="Refresh until the run has ended.")
    ] = False,
) -> None:
    """Show how far a run is, and what each node has done: versions, staleness, rejections.

    States: running, finished, failed or interrupted (with the reason), gone (its process has ended
    without a word), unknown (it runs on another machine).
    """
    from fauno_flwr.results.state import state_of
    from fauno_flwr.results.status import format_status, read_events, summarise_status

    folder = out.expanduser()
    events = read_events(folder)
    versions = load_config(str(folder / "config.yaml")).federation.versions
    if follow and as_json:
        raise ConfigError("--json and --watch exclude each other")
    if follow:
        from fauno_flwr.cli.watch import watch

        watch(folder, versions)
        return
    age = time.time() - (folder / "events.jsonl").stat().st_mtime
    state = state_of(folder, events)
    if as_json:
        values = {**summarise_status(events, versions, state), "seconds_since_event": round(age, 1)}
        typer.echo(json.dumps(values, indent=2))
        return
    typer.echo(format_status(events, versions, state))
    typer.echo(f"last event {age:.0f} s ago")
