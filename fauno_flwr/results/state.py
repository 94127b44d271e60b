"""Whether a run is running, finished, failed, interrupted or gone."""

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fauno_flwr.results.directory import write_atomically

RUNNING, FINISHED, FAILED, INTERRUPTED, GONE, UNKNOWN = STATES = (
    "running",
    "finished",
    "failed",
    "interrupted",
    "gone",
    "unknown",
)
PROCESS, EVENTS = "process.json", "events.jsonl"
TOLERANCE = 1.0  # seconds between two readings of the start of one process


@dataclass(frozen=True)
class State:
    """State of a run.

    Parameters
    ----------
    name : str
        One of ``STATES``.
    reason : str, default ""
        Why it is no longer running.
    """

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}" if self.reason else self.name


def write_process(folder: Path) -> None:
    """Write which process executes the run; :func:`state_of` looks for it."""
    own = psutil.Process()
    values = {"pid": own.pid, "started": own.create_time(), "host": socket.gethostname()}
    write_atomically(folder / PROCESS, json.dumps(values) + "\n")


def append_end(folder: Path, state: State) -> None:
    """Append the event ``end`` of a run whose process was stopped from outside, or crashed.

    Parameters
    ----------
    folder : Path
        Of the results; without a whole event, nothing is appended.
    state : State
        Replaces what the process may have written while it was stopped; a run that has finished
        stays so, and the reason that a failed run has given stays.
    """
    path = folder / EVENTS
    text = path.read_bytes() if path.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if not whole:
        return
    last = json.loads(whole.splitlines()[-1])
    if last["event"] == "end" and (last["state"] == FINISHED or state.name == FAILED):
        return
    os.truncate(path, len(whole))  # the process was ended while it wrote
    with path.open("a") as file:
        file.write(json.dumps(end_event(state)) + "\n")


def end_event(state: State) -> dict[str, Any]:
    """Return the last event of a run."""
    reason = {"reason": state.reason} if state.reason else {}
    return {"event": "end", "state": state.name, **reason}


def state_of(folder: Path, events: Sequence[dict[str, Any]]) -> State:
    """Return the state of a run.

    Parameters
    ----------
    folder : Path
        Of the results.
    events : sequence of dict
        The lines of its ``events.jsonl``.
    """
    for event in reversed(events):
        if event["event"] == "end":
            return State(event["state"], event.get("reason", ""))
    path = folder / PROCESS
    if not path.exists():
        return State(UNKNOWN, f"there is no {PROCESS}")
    process = json.loads(path.read_text())
    if process["host"] != socket.gethostname():
        return State(UNKNOWN, f"process {process['pid']} is on the machine {process['host']}")
    if _is_running(process["pid"], process["started"]):
        return State(RUNNING)
    return State(GONE, f"process {process['pid']} was killed, or the machine restarted")


def _is_running(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < TOLERANCE
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
