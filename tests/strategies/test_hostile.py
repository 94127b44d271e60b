"""What a hostile node can do to a training, and that it can without the guard against it.

Each scenario asserts what must hold; :func:`test_holds` runs it, and
:func:`test_is_violated_without_its_guard` expects it to fail with the guard removed.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from strategies import BufferedAsync, Checkpoints, Guard, Median, NormFiltered, TrimmedMean
from strategies.arrays import to_record
from strategies.buffer import Buffer, Update
from strategies.grids import InMemoryGrid
from strategies.session import Session

Mutation = Callable[[pytest.MonkeyPatch], None]
Scenario = Callable[[Path], None]
SCENARIOS: dict[str, tuple[Scenario, Mutation]] = {}
HOSTILE = 1000  # the node of partition 0
START = {"w": np.zeros(4)}


def attack(mutation: Mutation) -> Callable[[Scenario], Scenario]:
    """Register a scenario, by its name, and the mutation that it must detect."""

    def register(scenario: Scenario) -> Scenario:
        SCENARIOS[scenario.__name__] = (scenario, mutation)
        return scenario

    return register


def patch(target: object, name: str, value: object) -> Mutation:
    """Return the mutation that replaces an attribute by `value`."""
    return lambda monkeypatch: monkeypatch.setattr(target, name, value)


def federation(hostile: dict[str, Any] | None = None, **metrics: Any) -> ClientApp:
    """Return an app whose nodes add about one to every parameter; partition 0 is hostile.

    Parameters
    ----------
    hostile : dict, optional
        ``times``: factor of its update.
    **metrics
        That it sends, instead of 10 examples.
    """
    app, times = ClientApp(), (hostile or {}).get("times", 1.0)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        i = context.node_config["partition-id"]
        base = message.content["arrays"]["w"].numpy()
        delta = np.full(4, 1.0 + 0.01 * i) * (times if i == 0 else 1.0)
        numbers = {"num-examples": 10, **(metrics if i == 0 else {})}
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(base + delta)}),
                "metrics": MetricRecord(numbers),
            }
        )
        return Message(content, reply_to=message)

    return app


def train(grid: InMemoryGrid, versions: int = 10, **settings: Any) -> tuple[list[dict], np.ndarray]:
    """Train, by default with K = 5; return the events and the final arrays."""
    events: list[dict] = []
    strategy = BufferedAsync(**{"buffer_size": 5, "on_event": events.append, **settings})
    result = strategy.start(grid, to_record(START), num_rounds=versions, timeout=2000)
    return events, result.arrays["w"].numpy()


def kinds(events: list[dict], event: str) -> list[dict]:
    return [each for each in events if each["event"] == event]


def share(flush: dict, node: int) -> float:
    """Return the share of a node in the weights of a version."""
    return flush["steps"][flush["nodes"].index(node)] / sum(flush["steps"])


def unbounded(self: Buffer, weight_factor: float, most_norm: object) -> int:
    """Leave the updates as they are (mutation)."""
    return 0


@attack(patch(Buffer, "bound", unbounded))
def a_node_claims_the_largest_weight_that_is_allowed(_: Path) -> None:
    app = federation(**{"num-examples": 10**6})
    for k, factor in ((2, 3.0), (5, 3.0), (10, 3.0), (10, 10.0)):
        grid = InMemoryGrid(app, 10)
        events, _theta = train(grid, buffer_size=k, weight_factor=factor)
        shares = [share(f, HOSTILE) for f in kinds(events, "flush") if HOSTILE in f["nodes"]]
        assert shares
        assert max(shares) <= factor / (factor + k - 1) + 1e-9


def inherit_all(self: Buffer, update: Update) -> bool:
    """Add up the steps of replaced updates (mutation)."""
    older = self._updates.pop(update.member, None)
    self._updates[update.member] = replace(
        update, steps=update.steps + (older.steps if older else 0.0)
    )
    return older is not None


@attack(patch(Buffer, "put", inherit_all))
def fast_nodes_push_a_straggler_out_by_repeating(_: Path) -> None:
    """With K = all, one of ten nodes is ten times slower: it is a tenth, or half of that."""
    grid = InMemoryGrid(federation(), 10, duration=lambda i, k: 10.0 if i == 0 else 1.0)
    events, _theta = train(grid, 4, buffer_size=1.0)
    assert len(kinds(events, "reply")) > 4 * 80
    for flush in kinds(events, "flush"):
        assert share(flush, HOSTILE) >= 0.05


@attack(patch(Guard, "most_norm", lambda self, base_version: self.max_norm))
def a_node_scales_its_updates_within_the_absolute_bound(_: Path) -> None:
    """Per version, the model moves by no more than its weight and five times what is usual."""
    for times in (-30.0, 30.0, -4e5, 4e5):
        for k in (2, 5, 10):
            events, theta = train(InMemoryGrid(federation({"times": times}), 10), buffer_size=k)
            flushes = kinds(events, "flush")
            scaled = [HOSTILE in flush["nodes"] for flush in flushes]
            most = sum(5.0 / k + 1.05 if bad else 1.05 for bad in scaled)
            first = 50.0 if scaled[0] and k == 2 else 0.0  # of two, nobody knows which is usual
            assert np.all(np.abs(theta) <= most + first)


@attack(patch(Guard, "check_norm", lambda self, update: None))
def a_node_sends_updates_that_are_absurdly_large(_: Path) -> None:
    """They are rejected, and the training is that of the others."""
    events, theta = train(InMemoryGrid(federation({"times": -4e5}), 10), 30)
    late = [event for event in kinds(events, "reject") if event["t"] > 1]
    assert late
    assert {event["check"] for event in late} == {"norm"}
    assert np.all(theta > 25)


def silent_about_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the norms out of the updates (mutation)."""
    read = Guard.read
    monkeypatch.setattr(Guard, "read", lambda *values: replace(read(*values), norm=0.0))


@attack(silent_about_norms)
def nobody_sees_whose_update_was_large(_: Path) -> None:
    """Events of versions tell the norms as they were sent, by node."""
    events, _theta = train(InMemoryGrid(federation({"times": 30.0}), 10), buffer_size=10)
    for flush in kinds(events, "flush"):
        norms = dict(zip(flush["nodes"], flush["norms"], strict=True))
        assert norms.pop(HOSTILE) == pytest.approx(60.0, rel=1e-3)
        assert all(2.0 <= norm <= 2.2 for norm in norms.values())
        assert flush["scaled_down"] == 1


@pytest.mark.parametrize("name", SCENARIOS)
def test_holds(name: str, tmp_path: Path) -> None:
    SCENARIOS[name][0](tmp_path)


@pytest.mark.parametrize("name", SCENARIOS)
def test_is_violated_without_its_guard(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario, mutation = SCENARIOS[name]
    mutation(monkeypatch)
    with pytest.raises(AssertionError):
        scenario(tmp_path)


@pytest.mark.parametrize(
    ("rule", "k", "enough"),
    [(TrimmedMean(0.2), 4, 5), (Median(), 2, 3), (NormFiltered(), 2, 3), (TrimmedMean(0), 9, None)],
)
def test_a_robust_rule_that_cannot_discard_anything_says_so(
    rule: Any, k: int, enough: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="flwr")
    train(InMemoryGrid(federation(), 10), 3, buffer_size=k, merge=rule)
    (warning,) = [text for text in caplog.messages if "discards nothing" in text]
    assert f"K is {k}, of which" in warning
    assert warning.endswith(f"it needs {enough} or more" if enough else "as in the mean")
    caplog.clear()
    if enough:
        train(InMemoryGrid(federation(), 10), 3, buffer_size=enough, merge=rule)
        assert not [text for text in caplog.messages if "discards nothing" in text]


def test_what_is_usual_survives_a_restart(tmp_path: Path) -> None:
    app = federation({"times": 30.0})

    def session(versions: int, folder: Path | None = None) -> Session:
        strategy = BufferedAsync(
            5, checkpoint=Checkpoints(folder, resume=True) if folder is not None else None
        )
        strategy.start(InMemoryGrid(app, 10), to_record(START), num_rounds=versions)
        assert strategy.session is not None
        return strategy.session

    session(4, tmp_path)
    resumed, whole = session(8, tmp_path), session(8)
    ends = [each.result.arrays["w"].numpy().tobytes() for each in (resumed, whole)]
    assert ends[0] == ends[1]
    assert resumed.strategy.guard.usual.state() == whole.strategy.guard.usual.state()
