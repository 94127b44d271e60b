"""What the nodes of a run have done so far, from the events that its server writes."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.results.directory import read_lines
from fauno_flwr.results.state import State
from strategies.flower_internals import ErrorCode

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
COUNTS = {
    "dispatch": "dispatches",
    "reply": "replies",
    "error": "errors",
    "reject": "rejections",
}
BYTES = {"dispatch": "bytes_to_node", "reply": "bytes_from_node"}
OTHER_REASONS = ("refused", "ban")  # events with a reason that are no failed message
Events = Sequence[dict[str, Any]]


def node_statistics(events: Events) -> dict[str, dict[str, float]]:
    """Count, per node, messages, bytes of arrays, merged updates, steps, errors and rejections.

    Parameters
    ----------
    events : sequence of dict
        The lines of ``events.jsonl``.

    Returns
    -------
    dict
        By node: the counts, ``staleness_mean`` and ``staleness_max`` (versions) of the merged
        updates, and ``latency_mean`` (s) of the replies; 0 where there are none.
    """
    counted = ("dispatches", "replies", "merged", "errors", "rejections", "steps")
    zeros = dict.fromkeys((*counted, *BYTES.values()), 0)
    statistics: dict[str, dict[str, float]] = defaultdict(lambda: dict[str, float](zeros))
    staleness: dict[str, list[int]] = defaultdict(list)
    latency: dict[str, list[float]] = defaultdict(list)
    for event in events:
        kind = event["event"]
        if kind == "flush":
            for name, tau in zip(event["names"], event["staleness"], strict=True):
                statistics[name]["merged"] += 1
                staleness[name].append(tau)
        elif "name" in event:
            node = statistics[event["name"]]
            if kind in COUNTS:
                node[COUNTS[kind]] += 1
            if kind in BYTES:
                node[BYTES[kind]] += event.get("bytes", 0)
            if kind == "reply":
                node["steps"] += event["metrics"].get(STEPS, 0)
                latency[event["name"]].append(event["latency"])
    for name, values in statistics.items():
        values["staleness_mean"] = float(np.mean(staleness[name])) if staleness[name] else 0.0
        values["staleness_max"] = max(staleness[name], default=0)
        values["latency_mean"] = float(np.mean(latency[name])) if latency[name] else 0.0
    return dict(statistics)


def failures(events: Events) -> dict[str, Counter[str]]:
    """Count, per node, the messages without an accepted update, by reason.

    A reason is the check of the guard that a reply did not pass (such as ``finite``), Flower's name
    of its error (such as ``client-app-raised-exception``), or ``error``.
    """
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        if "name" in event and "reason" in event and event["event"] not in OTHER_REASONS:
            named = ERRORS.get(event.get("code", -1), "error")
            found[event["name"]][event.get("check", named)] += 1
    return dict(found)


def newest_version(events: Events) -> int:
    """Return the newest version that a run has made or resumed from, 0 before the first."""
    versions = [event["version"] for event in events if event["event"] in ("flush", "resume")]
    return versions[-1] if versions else 0


def privacy(events: Events) -> dict[str, Any] | None:
    """Return the privacy that a run has spent: epsilon, delta and whom they protect; or None."""
    spent = [event for event in events if "epsilon" in event]
    return {name: spent[-1][name] for name in ("epsilon", "delta", "protects")} if spent else None


def describe_privacy(events: Events) -> str:
    """Return the privacy that a run has spent as a line; empty without."""
    spent = privacy(events)
    if spent is None:
        return ""
    text = "privacy: epsilon {epsilon:.4g} at delta {delta:g} ({protects})".format(**spent)
    over = any(event["event"] == "budget" for event in events)
    return text + (", the budget is over" if over else "")


def newest_stage(events: Events) -> str:
    """Return the stage that a run has entered last."""
    stages = [event["stage"] for event in events if event["event"] == "stage"]
    return str(stages[-1]) if stages else "starting"


def summarise_status(events: Events, versions: int, state: State) -> dict[str, Any]:
    """Return what :func:`format_status` formats, as JSON can hold it; parameters as there."""
    return {
        "state": state.name,
        "reason": state.reason,
        "stage": newest_stage(events),
        "version": newest_version(events),
        "versions": versions,
        "privacy": privacy(events),
        "nodes": node_statistics(events),
        "failures": failures(events),
        "refused": [event for event in events if event["event"] == "refused"],
    }


def format_status(events: Events, versions: int, state: State) -> str:
    """Format state, stage, version, a line per node, and the reasons of failures.

    Parameters
    ----------
    events : sequence of dict
        The lines of ``events.jsonl``.
    versions : int
        That the run is to make.
    state : State
    """
    lines = [str(state), f"{newest_stage(events)}, version {newest_version(events)}/{versions}"]
    if spent := describe_privacy(events):
        lines.append(spent)
    statistics = node_statistics(events)
    ids: dict[str, set[int]] = defaultdict(set)
    last: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for event in events:
        if "name" in event and "node" in event:
            ids[event["name"]].add(event["node"])
            last[event["name"]] = event["event"]
            if "reason" in event:
                reasons[event["name"]] = str(event["reason"])
    lines += [
        f"{event.get('name', 'node ' + str(event['node']))} does not take part: {event['reason']}"
        for event in events
        if event["event"] == "refused"
    ]
    lines += [
        f"{event['name']} is banned after {event['offences']} offences; the last: {event['reason']}"
        for event in events
        if event["event"] == "ban"
    ]
    width = max(map(len, (*statistics, "node")))
    head = "".join(f"{title:>11}" for title, _ in COLUMNS)
    lines.append(f"{'node':<{width}}{head}{'ids':>5}  last")
    for name, values in sorted(statistics.items()):
        cells = "".join(
            f"{values[key]:>11.1f}" if key.endswith("mean") else f"{values[key]:>11.0f}"
            for _, key in COLUMNS
        )
        lines.append(f"{name:<{width}}{cells}{len(ids[name]):>5}  {last[name]}")
    for name, counts in sorted(failures(events).items()):
        text = ", ".join(f"{count} x {reason}" for reason, count in counts.most_common())
        lines.append(f"{name}: {text}; the last: {reasons[name]:.200}")
    return "\n".join(lines)


def read_events(out: Path) -> list[dict[str, Any]]:
    """Read the events of the run with these results.

    Raises
    ------
    ConfigError
        If the folder holds none.
    """
    path = out / "events.jsonl"
    if not path.exists() or not path.with_name("config.yaml").exists():
        raise ConfigError(f"out is {str(out)!r}: holds no events.jsonl, is it a folder of results?")
    return read_lines(path)
