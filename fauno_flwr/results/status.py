"""What a run's nodes have done so far, from the events that its server writes."""

import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from flwr.common.constant import ErrorCode

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import ConfigError
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.results.directory import read_lines

ERRORS = {
    code: name.lower().replace("_", "-")
    for name, code in vars(ErrorCode).items()
    if isinstance(code, int)
}
COLUMNS = (
    ("replies", "replies"),
    ("merged", "merged"),
    ("steps", "steps"),
    ("staleness", "staleness_mean"),
    ("latency s", "latency_mean"),
    ("errors", "errors"),
    ("rejected", "rejections"),
)
BYTES = {"dispatch": "bytes_to_node", "reply": "bytes_from_node"}


def node_statistics(events: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per node: messages, bytes of arrays, merged updates, staleness, latency, errors and so on."""
    statistics: dict[str, dict[str, float]] = defaultdict(
        lambda: dict.fromkeys(
            ("dispatches", "replies", "merged", "errors", "rejections", "steps", *BYTES.values()), 0
        )
    )
    staleness: dict[str, list[int]] = defaultdict(list)
    latency: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event["event"] == "flush":
            for name, tau in zip(event["names"], event["staleness"], strict=True):
                statistics[name]["merged"] += 1
                staleness[name].append(tau)
        elif "name" in event:
            kind = {"dispatch": "dispatches", "reply": "replies", "error": "errors"}
            statistics[event["name"]][kind.get(event["event"], "rejections")] += 1
            if event["event"] in BYTES:
                statistics[event["name"]][BYTES[event["event"]]] += event.get("bytes", 0)
            if event["event"] == "reply":
                statistics[event["name"]]["steps"] += event["metrics"][STEPS]
                latency[event["name"]].append(event["latency"])
    for name, values in statistics.items():
        values["staleness_mean"] = float(np.mean(staleness[name])) if staleness[name] else 0.0
        values["staleness_max"] = max(staleness[name], default=0)
        values["latency_mean"] = float(np.mean(latency[name])) if latency[name] else 0.0
    return dict(statistics)


def failures(events: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Per node: how often a message came to nothing, by reason.

    A reason is the check of the guard that a reply did not pass (such as ``finite``), Flower's name
    of its error (such as ``client-app-raised-exception``), or ``error``.
    """
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        if "name" in event and "reason" in event:
            named = ERRORS.get(event.get("code", -1), "error")
            found[event["name"]][event.get("check", named)] += 1
    return dict(found)


def format_status(events: list[dict[str, Any]], versions: int) -> str:
    """Stage, version, a line per node, and the reasons of what went wrong.

    Parameters
    ----------
    events : list of dict
        The lines of ``events.jsonl``.
    versions : int
        That the run is to make.
    """
    stages = [event["stage"] for event in events if event["event"] == "stage"]
    made = [event["version"] for event in events if event["event"] in ("flush", "resume")]
    lines = [
        f"{stages[-1] if stages else 'starting'}, version {made[-1] if made else 0}/{versions}"
    ]
    statistics = node_statistics(events)
    ids: dict[str, set[int]] = defaultdict(set)
    last: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    for event in events:
        if "name" in event and "node" in event:
            ids[event["name"]].add(event["node"])
            last[event["name"]] = event
            if "reason" in event:
                reasons[event["name"]] = str(event["reason"])
    width = max(map(len, (*statistics, "node")))
    head = "".join(f"{title:>11}" for title, _ in COLUMNS)
    lines.append(f"{'node':<{width}}{head}{'ids':>5}  last")
    for name, values in sorted(statistics.items()):
        cells = "".join(
            f"{values[key]:>11.1f}" if key.endswith("mean") else f"{values[key]:>11.0f}"
            for _, key in COLUMNS
        )
        lines.append(f"{name:<{width}}{cells}{len(ids[name]):>5}  {last[name]['event']}")
    for name, counted in sorted(failures(events).items()):
        often = ", ".join(f"{count} x {reason}" for reason, count in counted.most_common())
        lines.append(f"{name}: {often}; the last: {reasons[name]:.200}")
    return "\n".join(lines)


def read_events(out: Path) -> list[dict[str, Any]]:
    """Events of the run with these results.

    Raises
    ------
    ConfigError
        If the folder holds none.
    """
    path = out / "events.jsonl"
    if not path.exists() or not path.with_name("config.yaml").exists():
        raise ConfigError(f"out is {str(out)!r}: holds no events.jsonl, is it a folder of results?")
    return read_lines(path)


def status(
    out: Annotated[Path, typer.Argument(help="Folder of the results of a run.")],
) -> None:
    """Tell how far a run is, and what each node has done: versions, staleness, rejections."""
    path = out.expanduser() / "events.jsonl"
    events = read_events(out.expanduser())
    config = load_config(str(path.with_name("config.yaml")))
    typer.echo(format_status(events, config.federation.versions))
    typer.echo(f"last event {time.time() - path.stat().st_mtime:.0f} s ago")
