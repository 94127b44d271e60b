"""Messages and merged updates from events."""

from pathlib import Path

import numpy as np
import pytest

from fauno_flwr.results.directory import read_lines
from fauno_flwr.results.html.files import continuous
from fauno_flwr.results.html.messages import (
    EVALUATION,
    FAILED,
    INTERRUPTED,
    MERGED,
    OPEN,
    REJECTED,
    UNUSED,
    jain,
    merged_updates,
    participation,
    sent_messages,
)
from fauno_flwr.results.status import node_statistics


def dispatch(name: str, message: str, t: float, kind: str = "train") -> dict:
    fields = {"version": 0, "kind": kind, "bytes": 10, "node": 1}
    return {"event": "dispatch", "name": name, "message": message, "t": t, **fields}


def answer(event: str, name: str, message: str, t: float, **more: object) -> dict:
    return {"event": event, "name": name, "message": message, "t": t, "version": 0, **more}


def flush(version: int, names: list[str], steps: list[float]) -> dict:
    fields = {"staleness": [0] * len(names), "norms": [1.0] * len(names), "scaled_down": 0}
    return {
        "event": "flush", "t": 6.0, "version": version, "names": names, "steps": steps, **fields
    }  # fmt: skip


EVENTS = [
    dispatch("a", "1", 0.0),
    dispatch("b", "2", 0.0),
    dispatch("c", "3", 0.0),
    dispatch("d", "4", 0.0),
    dispatch("a", "5", 1.0, kind="evaluate"),
    answer("reply", "a", "1", 2.0, metrics={"seconds": 9.0}),
    answer("reply", "a", "5", 2.5, metrics={}),
    answer("reject", "b", "2", 3.0, reason="not finite", check="finite"),
    answer("error", "c", "3", 4.0, reason="gone"),
    answer("error", "c", "unknown", 4.0, reason="gone"),
    dispatch("b", "6", 3.0),
    answer("reply", "b", "6", 5.0, metrics={"seconds": 1.5}),
    flush(1, ["a", "b"], [30.0, 10.0]),
    dispatch("a", "7", 6.0),
    answer("reply", "a", "7", 8.0, metrics={}),
]


def test_messages_have_the_outcome_of_their_answers() -> None:
    sent = sent_messages(EVENTS)
    assert [(each.node, each.outcome) for each in sent] == [
        ("a", MERGED), ("b", REJECTED), ("c", FAILED), ("d", OPEN), ("a", EVALUATION),
        ("b", MERGED), ("a", UNUSED),
    ]  # fmt: skip
    by_outcome = {each.outcome: each for each in sent}
    assert by_outcome[REJECTED].detail == "not finite"
    assert by_outcome[OPEN].end == 8.0  # the last event
    assert sent[0].trained == 2.0  # at most as long as it was away
    assert sent[5].trained == 1.5


def test_an_update_that_was_replaced_in_the_buffer_is_not_merged() -> None:
    events = [
        dispatch("a", "1", 0.0),
        answer("reply", "a", "1", 1.0, metrics={}),
        dispatch("a", "2", 1.0),
        answer("reply", "a", "2", 2.0, metrics={}, replaced=True),
        flush(1, ["a"], [1.0]),
    ]
    assert [each.outcome for each in sent_messages(events)] == [UNUSED, MERGED]


def test_messages_of_an_interrupted_run_end_where_it_was_resumed() -> None:
    events = [
        dispatch("a", "1", 0.0),
        dispatch("b", "2", 4.0),
        {"event": "resume", "t": 0.0, "version": 1},
        dispatch("a", "3", 1.0),
        answer("reply", "b", "2", 2.0, metrics={}),
    ]
    assert [event["t"] for event in continuous(events)] == [0, 4, 4, 5, 6]
    sent = sent_messages(continuous(events))
    assert [(each.outcome, each.end, each.detail) for each in sent] == [
        (OPEN, 4, INTERRUPTED), (UNUSED, 6, ""), (OPEN, 6, ""),
    ]  # fmt: skip
    # Virtual time goes on by itself.
    assert continuous([dispatch("a", "1", 3.0), {"event": "resume", "t": 3.0}])[1]["t"] == 3


def test_shares_of_a_version_sum_to_one() -> None:
    merged = merged_updates([*EVENTS, flush(2, ["a"], [0.0])])
    assert [each.share for each in merged] == [0.75, 0.25, 0.0]
    part = participation(
        {name: {"bytes_to_node": 1, "bytes_from_node": 2} for name in "ab"}, merged
    )
    assert part.updates.tolist() == [2, 1]
    assert part.steps.tolist() == [30, 10]


def test_fairness_is_one_for_equals_and_one_nth_for_a_single_one() -> None:
    assert jain(np.array([2.0, 2.0, 2.0])) == pytest.approx(1.0)
    assert jain(np.array([0.0, 5.0, 0.0])) == pytest.approx(1 / 3)
    assert np.isnan(jain(np.zeros(3)))


def test_a_run_agrees_with_the_statistics_of_its_summary(folder: Path) -> None:
    events = read_lines(folder / "events.jsonl")
    sent, merged, nodes = sent_messages(events), merged_updates(events), node_statistics(events)
    for name, counts in nodes.items():
        mine = [each for each in sent if each.node == name]
        assert len(mine) == counts["dispatches"]
        assert sum(each.outcome == MERGED for each in mine) == counts["merged"]
        assert sum(each.node == name for each in merged) == counts["merged"]
