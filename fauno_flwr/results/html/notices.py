"""What a reader has to know before the numbers of a run."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from fauno_flwr.config.privacy import CENTRAL
from fauno_flwr.results.html.files import RunFiles
from fauno_flwr.results.html.messages import OPEN, sent_messages
from fauno_flwr.results.state import FINISHED
from fauno_flwr.results.status import failures, newest_version

MOST_NAMED = 6  # nodes in one sentence
Row = Mapping[str, Any]


def notices(run: RunFiles) -> list[str]:
    """Return the warnings about a run, the most important first."""
    events = run.events
    found = []
    if run.state.name != FINISHED:
        found.append(f"The run has not finished: {run.state}.")
    wanted, made = run.settings.get("federation.versions", 0), newest_version(events)
    if made < wanted:
        found.append(f"{made} of {wanted} versions were made.")
    found += [
        f"Training ended before an epsilon above {event['max_epsilon']:g}."
        for event in events
        if event["event"] == "budget"
    ]
    found += _about_the_buffer(run)
    found += _about_nodes(run)
    rejected = Counter[str]()
    for reasons in failures(events).values():
        rejected.update(reasons)
    for reason, count in rejected.most_common():
        found.append(f"{_times(count, 'message')} without an accepted update: {reason}.")
    refused = [event for event in events if event["event"] == "refused"]
    if refused:
        found.append(f"{_times(len(refused), 'node')} not let in: {refused[-1]['reason']}")
    for event in events:
        if event["event"] == "ban":
            found.append(
                f"{event['name']} was banned after {event['offences']} offences: {event['reason']}"
            )
    scaled = sum(event.get("scaled_down", 0) for event in events if event["event"] == "flush")
    # A private version clips most of its updates, as it should.
    if scaled and run.settings.get("federation.privacy.kind") != CENTRAL:
        found.append(f"{_times(scaled, 'update')} scaled down to the largest norm allowed.")
    return list(dict.fromkeys(found + _about_the_table(run)))


def _about_the_buffer(run: RunFiles) -> list[str]:
    """Return warnings about K: larger than the nodes, or versions of fewer updates."""
    size = run.settings.get("federation.buffer_size", 0)
    flushed = [event for event in run.events if event["event"] == "flush"]
    nodes = len({event["name"] for event in run.events if event["event"] == "dispatch"})
    if size < 1 or not nodes:
        return []
    if size > nodes:
        return [f"K is {size:g}, larger than the {_times(nodes, 'node')} that took part."]
    small = sum(len(event["names"]) < size for event in flushed)
    return [f"{_times(small, 'version')} of fewer than K = {size:g} updates."] if small else []


def _about_nodes(run: RunFiles) -> list[str]:
    asked = {event["name"] for event in run.events if event["event"] == "dispatch"}
    replied = {event["name"] for event in run.events if event["event"] == "reply"}
    known = set(run.summary.get("learning_nodes", ()))
    found = []
    if asked - replied:
        found.append(f"Never answered with an update: {_named(asked - replied)}.")
    if known - asked:
        found.append(f"Never took part: {_named(known - asked)}.")
    sent = sent_messages(run.events)
    late = [each for each in sent if each.outcome == OPEN and not each.detail]
    if late and run.state.name == FINISHED:
        found.append(f"{_times(len(late), 'message')} without an answer at the end.")
    return found


def _about_the_table(run: RunFiles) -> list[str]:
    inside = max((row.get("unfinished_at_end", 0) for row in run.table), default=0)
    return [f"{_times(inside, 'task')} of the evaluation had not ended."] if inside else []


def _named(names: set[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - MOST_NAMED
    return ", ".join(ordered[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
