"""Messages, merged updates and their shares, from the events of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fauno_flwr.results.html.curves import natural

MERGED, UNUSED, REJECTED, FAILED, OPEN = OUTCOMES = (
    "merged",
    "accepted, not merged",
    "rejected",
    "failed",
    "no answer",
)
INTERRUPTED = "the run was interrupted"
EVALUATION = "evaluation"  # kind of message that is no training
ANSWERS = ("reply", "reject", "error")
TRAIN = "train"
Row = Mapping[str, Any]


class Sent(NamedTuple):
    """One message to a node, and what became of it.

    Parameters
    ----------
    node : str
    start, end : float
        Seconds since training began; the end of one without an answer is that of the run.
    trained : float
        Seconds that the node has trained, of its own report; 0 if unknown.
    version : int
        That was sent.
    outcome : str
        One of :data:`OUTCOMES`, or ``evaluation``.
    detail : str
        Why it was rejected or failed.
    """

    node: str
    start: float
    end: float
    trained: float
    version: int
    outcome: str
    detail: str


class Merged(NamedTuple):
    """One update in one version: staleness in versions, share of its steps, norm."""

    version: int
    node: str
    staleness: int
    share: float
    steps: float
    norm: float


@dataclass(frozen=True)
class Participation:
    """What each node has sent and received, and how evenly.

    Parameters
    ----------
    names : list of str
    updates, steps : array of float, shape (N,)
        Merged updates of each node, and the steps behind them.
    to_node, from_node : array of float, shape (N,)
        Bytes of arrays.
    """

    names: list[str]
    updates: np.ndarray
    steps: np.ndarray
    to_node: np.ndarray
    from_node: np.ndarray


def sent_messages(events: Sequence[Row]) -> list[Sent]:
    """Match the messages of a run with their answers.

    An update that was accepted counts as merged if it was in the buffer at the next version: not if
    the node had a newer one there by then, nor if there was no next version. A message in flight
    when a run was interrupted ends there, unless the resumed run got its answer.
    """
    opened: dict[str, Row] = {}
    found: dict[str, Sent] = {}
    buffered: dict[str, str] = {}  # node: message
    lost: dict[str, float] = {}  # message: when the run was resumed without it
    last = 0.0
    for event in events:
        last = max(last, event.get("t", 0.0))
        if event["event"] == "resume":
            lost |= dict.fromkeys(opened, last)
        elif event["event"] == "dispatch":
            opened[event["message"]] = event
        elif event["event"] in ANSWERS and event.get("message") in opened:
            message = event["message"]
            found[message] = answered(opened.pop(message), event)
            if found[message].outcome == UNUSED:
                buffered[event["name"]] = message
        elif event["event"] == "flush":
            for name in event["names"]:
                if name in buffered:
                    message = buffered.pop(name)
                    found[message] = found[message]._replace(outcome=MERGED)
    unanswered = [
        Sent(
            event["name"],
            event["t"],
            lost.get(message, last),
            0.0,
            event["version"],
            OPEN,
            INTERRUPTED if message in lost else "",
        )
        for message, event in opened.items()
    ]
    return sorted([*found.values(), *unanswered], key=lambda sent: (sent.start, sent.node))


def answered(dispatch: Row, answer: Row) -> Sent:
    """Return a message with its answer."""
    metrics = answer.get("metrics", {})
    outcome = {"reply": UNUSED, "reject": REJECTED, "error": FAILED}[answer["event"]]
    if outcome == UNUSED and dispatch.get("kind", TRAIN) != TRAIN:
        outcome = EVALUATION
    return Sent(
        dispatch["name"],
        dispatch["t"],
        answer["t"],
        min(float(metrics.get("seconds", 0.0)), answer["t"] - dispatch["t"]),
        dispatch["version"],
        outcome,
        str(answer.get("reason", "")),
    )


def merged_updates(events: Sequence[Row]) -> list[Merged]:
    """Return the updates of all versions; shares of a version sum to 1."""
    found = []
    for event in events:
        if event["event"] != "flush":
            continue
        total = sum(event["steps"]) or 1.0
        columns = (event["names"], event["staleness"], event["steps"], event["norms"])
        for name, staleness, steps, norm in zip(*columns, strict=True):
            found.append(
                Merged(event["version"], name, staleness, steps / total, steps, norm or 0.0)
            )
    return found


def flushes(events: Sequence[Row]) -> list[tuple[float, int, int]]:
    """Return the time, the version and the number of updates of each flush."""
    return [
        (event["t"], event["version"], len(event["names"]))
        for event in events
        if event["event"] == "flush"
    ]


def participation(statistics: Mapping[str, Row], merged: Sequence[Merged]) -> Participation:
    """Return the parts of the nodes in a run.

    Parameters
    ----------
    statistics : mapping
        From :func:`fauno_flwr.results.status.node_statistics`.
    merged : sequence of Merged
    """
    names = sorted(statistics, key=natural)
    place = {name: number for number, name in enumerate(names)}
    updates, steps = np.zeros(len(names)), np.zeros(len(names))
    for update in merged:
        if update.node in place:
            updates[place[update.node]] += 1
            steps[place[update.node]] += update.steps
    to_node, from_node = (
        np.array([statistics[name][key] for name in names], float)
        for key in ("bytes_to_node", "bytes_from_node")
    )
    return Participation(names, updates, steps, to_node, from_node)


def jain(values: np.ndarray) -> float:
    """Compute Jain's index of fairness: 1 if all values are equal, 1 / n if one has everything."""
    total = float(values.sum())
    return total**2 / (len(values) * float((values**2).sum())) if total else float("nan")
