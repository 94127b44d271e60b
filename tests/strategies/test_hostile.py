"""What a hostile node can do to a training, and that it can without the guard against it.

Each scenario asserts what must hold; :func:`test_holds` runs it, and
:func:`test_is_violated_without_its_guard` expects it to fail with the guard removed.
"""

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from strategies import (
    CheckpointError,
    Checkpoints,
    Guard,
    Median,
    NormFiltered,
    TrainingFailedError,
    TrimmedMean,
    checkpoint,
    evaluation,
    exchange,
)
from strategies import guard as guard_module
from strategies.arrays import Layout, to_record
from strategies.buffer import Buffer, Update
from strategies.evaluation import mean_metrics
from strategies.grids import InMemoryGrid
from strategies.session import Session
from tests.guarded import Scenarios, patch
from tests.strategies.conftest import TrainOnly

attack = Scenarios()
HOSTILE = 1000  # the node of partition 0
START = {"w": np.zeros(4)}


def federation(
    hostile: dict[str, Any] | None = None, learners: int = 100, **metrics: Any
) -> ClientApp:
    """Return an app whose nodes add about one to every parameter; partition 0 is hostile.

    Parameters
    ----------
    hostile : dict, optional
        ``times``: factor of its update.
    learners : int
        Partitions that change the model; the others have met no data.
    **metrics
        That it sends, instead of 10 examples.
    """
    app, times = ClientApp(), (hostile or {}).get("times", 1.0)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        i = context.node_config["partition-id"]
        base = message.content["arrays"]["w"].numpy()
        delta = np.full(4, 1.0 + 0.01 * i) * (times if i == 0 else float(i < learners))
        numbers = {"num-examples": 10, **(metrics if i == 0 else {})}
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(base + delta)}),
                "metrics": MetricRecord(numbers),
            }
        )
        return Message(content, reply_to=message)

    return app


def train(
    grid: InMemoryGrid,
    versions: int = 10,
    start: dict[str, np.ndarray] = START,
    **settings: Any,
) -> tuple[list[dict], np.ndarray]:
    """Train, by default with K = 5; return the events and the final arrays."""
    events: list[dict] = []
    fixed = {"buffer_size": 5, "time_limit": 500, "on_event": events.append}
    strategy = TrainOnly(**{**fixed, **settings})
    result = strategy.start(grid, to_record(start), num_rounds=versions, timeout=None)
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


@attack(patch(Guard, "most_norm", lambda self, base_version, others=False: self.max_norm))
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


def compare_only(self: Guard, base_version: int, others: bool = False) -> float:
    """Bound updates by those of others alone (mutation)."""
    return bounded(self, base_version)


bounded = Guard.most_norm


@attack(patch(Guard, "most_norm", compare_only))
def a_hostile_node_is_the_first_that_has_learned_something(_: Path) -> None:
    """Before others are known, a version moves the model by no more than its norm at first."""
    start = {"w": np.full(4, 0.5)}  # norm 1
    for k in (1, 2, 5):
        app = federation({"times": -4e5}, learners=1)
        events, theta = train(InMemoryGrid(app, 10), 4, buffer_size=k, start=start)
        flushes = kinds(events, "flush")
        assert any(HOSTILE in flush["nodes"] for flush in flushes)
        assert np.linalg.norm(theta - 0.5) <= len(flushes)


def test_the_first_updates_of_honest_nodes_are_not_scaled() -> None:
    """Not with two nodes, of which neither can be compared, and not from a model of zeros."""
    small = {"w": np.full(4, 0.01)}
    for nodes, k, start in ((1, 1, small), (2, 1, small), (2, 2, small), (5, 2, START)):
        app = federation()
        events, _theta = train(InMemoryGrid(app, nodes), 3, buffer_size=k, start=start)
        assert [flush["scaled_down"] for flush in kinds(events, "flush")] == [0, 0, 0]


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


# ---- metrics, texts, disk and offences -----------------------------------------------------------


def sending(metrics: dict[str, Any] | None = None, *, blob: int = 0, long: int = 0) -> ClientApp:
    """Return an app whose partition 0 sends these metrics, a blob, or arrays that are too long."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        bad = context.node_config["partition-id"] == 0
        array = Array(message.content["arrays"]["w"].numpy() + 1.0)
        if bad and long:
            array = Array(array.dtype, array.shape, array.stype, array.data + bytes(long))
        numbers = {"num-examples": 10, "loss": 1.0}
        if bad and metrics is not None:
            numbers = metrics
        content = RecordDict(
            {"arrays": ArrayRecord({"w": array}), "metrics": MetricRecord(numbers)}
        )
        if bad and blob:
            content["config"] = ConfigRecord({"blob": bytes(blob)})
        return Message(content, reply_to=message)

    return app


def without_a_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep all metrics, however many and long (mutation)."""
    monkeypatch.setattr(Guard, "usable", lambda self, metrics: dict(metrics))
    monkeypatch.setattr(Guard, "check_size", lambda self, reply: None)


@attack(without_a_schema)
def a_node_sends_metrics_with_names_of_a_megabyte_and_escape_codes(folder: Path) -> None:
    names = ["n" * 500_000, "\x1b]0;owned\x07", "a\nb", ""]
    app = sending({**dict.fromkeys(names, 1.0), "num-examples": 10})
    events, _theta = train(InMemoryGrid(app, 5), 5, checkpoint=Checkpoints(folder))
    assert len(kinds(events, "flush")) == 5
    kept = {name for event in kinds(events, "reply") for name in event["metrics"]}
    assert kept == {"num-examples", "loss"}
    assert all(path.stat().st_size < 100_000 for path in Checkpoints(folder).files())


@attack(without_a_schema)
def a_node_fills_the_memory_with_metrics(folder: Path) -> None:
    """Of long lists in every reply little is kept; its weight always is."""
    many: dict[str, Any] = {f"m{i}": [0.5] * 1000 for i in range(30)}
    for metrics in (many, {f"m{i}": 1.0 for i in range(300)}):
        app = sending({**metrics, "num-examples": 7})
        events: list[dict] = []
        files = Checkpoints(folder / str(len(metrics)))
        strategy = TrainOnly(5, checkpoint=files, on_event=events.append)
        result = strategy.start(InMemoryGrid(app, 5), to_record(START), num_rounds=2)
        for record in result.train_metrics_clientapp.values():
            assert sum(np.size(value) for value in record.values()) <= 2048 + 2
            assert len(record) <= 256
            assert record["loss"] == 1.0
        flushes = kinds(events, "flush")
        assert all(flush["steps"] == [7, 10, 10, 10, 10] for flush in flushes)


@attack(patch(Guard, "check_size", lambda self, reply: None))
def a_node_attaches_megabytes_to_its_update(folder: Path) -> None:
    """They would be kept until the next version, and written into every checkpoint."""
    guard = Guard()
    app = sending(blob=5_000_000)
    train(InMemoryGrid(app, 5), 5, buffer_size=3, guard=guard, checkpoint=Checkpoints(folder))
    assert set(guard.rejections) == {("size", HOSTILE)}


@attack(patch(evaluation, "MOST_METRICS", 10**9))
def nodes_displace_the_metrics_of_all(_: Path) -> None:
    """Keep the metrics of most nodes; of each, the shape that most have."""
    hostile = [{f"{i}-{j}": 1.0 for j in range(255)} | {"loss": [1.0, 2.0]} for i in range(2)]
    merged = mean_metrics([*hostile, *[{"loss": 4.0, "own": 1.0}] * 3], np.full(5, 0.2))
    assert len(merged) <= 256
    assert (merged["loss"], merged["own"]) == (pytest.approx(4.0), pytest.approx(1.0))


class Disk:
    """A disk that is full between two moments."""

    def __init__(self, full: range) -> None:
        self.full, self.calls = full, 0

    def fsync(self, descriptor: int) -> None:
        self.calls += 1
        if self.calls in self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


def give_up(self: Session, error: OSError) -> None:
    """Let the error end the training (mutation)."""
    raise AssertionError from error


@attack(patch(Session, "_pause_checkpoints", give_up))
def the_disk_of_the_server_is_full_for_a_while(folder: Path) -> None:
    disk = Disk(range(5, 10))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint.os, "fsync", disk.fsync)
        events, _theta = train(InMemoryGrid(federation(), 5), 12, checkpoint=Checkpoints(folder))
    assert len(kinds(events, "flush")) == 12
    assert [event["version"] for event in kinds(events, "unsaved")] == [3]
    assert Checkpoints(folder).files()[-1].name == "version-000000012.safetensors"


class VerboseError(Exception):
    """An error whose text is ten megabytes of control codes."""

    def __str__(self) -> str:
        return "\x1b]0;owned\x07\x1b[2J\r\x08" * 10**5


def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report the texts of nodes as they are (mutation)."""
    monkeypatch.setattr(exchange, "printable", lambda text, length: text)
    monkeypatch.setattr(exchange, "readable", str)
    monkeypatch.setattr(guard_module, "shown", str)


@attack(as_it_is)
def a_node_writes_megabytes_and_escape_codes_into_the_log(_: Path) -> None:
    """Through its exceptions, and through the names and types of its arrays."""
    app = ClientApp()
    codes = "\x1b]0;owned\x07" * 10_000

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 0:
            raise VerboseError
        base = Array(message.content["arrays"]["w"].numpy())
        name, kind = ("w", base.dtype)
        if context.node_config["partition-id"] == 1:
            name = codes
        if context.node_config["partition-id"] == 2:
            kind = codes
        array = Array(kind, base.shape, base.stype, base.data)
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord({name: array}), "metrics": metrics})
        return Message(content, reply_to=message)

    events, _theta = train(InMemoryGrid(app, 5), 5, buffer_size=2)
    reasons = [event["reason"] for event in events if "reason" in event]
    assert {event["node"] for event in events if "reason" in event} == {1000, 1001, 1002}
    assert all(len(reason) <= 500 and reason.isprintable() for reason in reasons)


@attack(patch(Guard, "is_banned", lambda self, node_id: False))
def a_node_sends_replies_that_are_far_too_large_without_end(_: Path) -> None:
    """After six it is banned for the rest of the training, also after a restart."""
    guard = Guard()
    settings = {"buffer_size": 3, "guard": guard, "max_backoff": 2.0}
    events, _theta = train(InMemoryGrid(sending(long=10_000), 5), 100, **settings)
    assert len(kinds(events, "flush")) == 100
    assert len([e for e in kinds(events, "dispatch") if e["node"] == HOSTILE]) == 6
    (ban,) = kinds(events, "ban")
    assert (ban["node"], ban["offences"]) == (HOSTILE, 6)
    again = Guard()
    again.begin(guard.layout, "arrays", "num-examples")
    again.load(json.loads(json.dumps(guard.state())))
    assert again.is_banned(HOSTILE)
    assert not again.is_banned(HOSTILE + 1)


@attack(patch(exchange, "MOST_FAILURES", 10**9))
def a_node_fails_without_end(_: Path) -> None:
    grid = InMemoryGrid(federation(), 5, faults=lambda i, k: "raise" if i == 0 else None)
    events, _theta = train(grid, 200, buffer_size=4, max_backoff=2.0)
    assert len(kinds(events, "flush")) == 200
    assert len([e for e in kinds(events, "error") if e["node"] == HOSTILE]) == 50
    assert [e["node"] for e in kinds(events, "ban")] == [HOSTILE]


def test_a_node_that_offends_now_and_then_is_not_banned() -> None:
    guard = Guard()
    guard.begin(Layout(START), "arrays", "num-examples")
    for _ in range(300):
        guard.reject("norm", HOSTILE)
        guard.accepted[HOSTILE] += 10
        guard.reject("stale", HOSTILE + 1)
    assert not guard.is_banned(HOSTILE)
    assert not guard.is_banned(HOSTILE + 1)


@attack(patch(Session, "_reachable", lambda self, needed: needed))
def a_version_needs_all_nodes_and_one_of_them_is_banned(_: Path) -> None:
    events, _theta = train(InMemoryGrid(sending(long=10_000), 5), 20)
    assert len(kinds(events, "flush")) == 20
    (ban,) = kinds(events, "ban")
    assert ban["t"] < 100


def test_a_training_whose_nodes_are_all_banned_ends() -> None:
    app = sending(long=10_000)
    with pytest.raises(TrainingFailedError, match="node 1000: array 'w' has"):
        train(InMemoryGrid(app, 1), 5, buffer_size=1, max_failures=100, max_backoff=2.0)


def over_tensors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the schema out of the checksum (mutation)."""
    whole = checkpoint.checksum
    monkeypatch.setattr(checkpoint, "checksum", lambda schema, tensors: whole("", tensors))


@attack(over_tensors_only)
def a_checkpoint_of_another_model_is_passed_off_as_ours(folder: Path) -> None:
    train(InMemoryGrid(federation(), 5), 3, checkpoint=Checkpoints(folder))
    path = Checkpoints(folder).files()[-1]
    path.write_bytes(path.read_bytes().replace(b"float64(4,)", b"float64(2,)"))
    said = ""
    try:
        checkpoint.read_checkpoint(path, {"w": "float64(2,)"})
    except CheckpointError as error:
        said = str(error)
    assert "is damaged" in said


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "1" * 5000, "\x00", "[1]"])
def test_a_damaged_list_of_settings_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text(text)
    with pytest.raises(ValueError, match=r"is damaged|other settings"):
        Checkpoints(tmp_path, about={"lr": 0.1}).check()


@pytest.mark.parametrize(
    "value",
    [10**4000, -(10**5000), float("nan"), True, "1", None],
    ids=lambda value: type(value).__name__,
)
def test_a_setting_that_is_no_number_is_one_sentence(value: object) -> None:
    for make in (
        lambda: Guard(max_norm=value),
        lambda: Guard(norm_factor=value),
        lambda: TrainOnly(value),
        lambda: TrainOnly(2, patience=value),
    ):
        with pytest.raises(ValueError, match=": must be a") as caught:
            make()
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", [*attack])
def test_holds(name: str, tmp_path: Path) -> None:
    attack.require_holds(name, tmp_path)


@pytest.mark.parametrize("name", [*attack])
def test_is_violated_without_its_guard(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack.require_fails_unguarded(name, tmp_path, monkeypatch)


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
        strategy = TrainOnly(
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
