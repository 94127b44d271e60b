"""Fifteen faults that a server must survive, each shown to be fatal without its guard.

A scenario asserts what must hold. `test_survives` runs it. `test_is_fatal_without_its_guard`
removes the guard by the mutation registered with the scenario, and expects the scenario to fail.
"""

import io
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from strategies import (
    BufferedAsync,
    Checkpoints,
    Guard,
    SyncBuffered,
    checkpoint,
    flower_hooks,
    guard,
    session,
    session_evaluation,
)
from strategies import arrays as arrays_module
from strategies.arrays import to_arrays, to_record
from strategies.buffer import Buffer, Update
from strategies.differences import Difference
from strategies.flights import Flight, Flights
from strategies.grids import InMemoryGrid
from strategies.session import Session
from tests.guarded import Scenarios, patch
from tests.strategies.conftest import TrainOnly, make_linear_app

fault = Scenarios()
BAD = 1000  # the node whose replies are bad: partition 0
START = {"w": np.zeros(2)}


@pytest.mark.parametrize("name", [pytest.param(n, id=n) for n in map(str, range(1, 16))])
def test_survives(name: str, tmp_path: Path) -> None:
    fault.require_holds(name, tmp_path)


@pytest.mark.parametrize("name", [pytest.param(n, id=n) for n in map(str, range(1, 16))])
def test_is_fatal_without_its_guard(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault.require_fails_unguarded(name, tmp_path, monkeypatch)


def train(grid: InMemoryGrid, versions: int = 12, **settings: Any) -> tuple[list[dict], np.ndarray]:
    """Train, by default with K = 2; return the events and the final arrays."""
    events: list[dict] = []
    fixed = {"buffer_size": 2, "time_limit": 200, "on_event": events.append}
    strategy = TrainOnly(**{**fixed, **settings})
    result = strategy.start(grid, to_record(START), num_rounds=versions, timeout=None)
    return events, result.arrays["w"].numpy()


def kinds(events: list[dict], event: str) -> list[dict]:
    return [each for each in events if each["event"] == event]


def sending(bad: dict[str, Any], count: Any = 1, **metrics: Any) -> ClientApp:
    """Return an app whose nodes send ones from a base of zeros, partition 0 `bad` arrays."""
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        first = context.node_config["partition-id"] == 0
        good = {"w": Array(np.ones(2))}
        record = ArrayRecord({**bad}) if first and bad else ArrayRecord(good)
        numbers = {"num-examples": count, **metrics} if first else {"num-examples": 1}
        content = RecordDict({"arrays": record, "metrics": MetricRecord(numbers)})
        return Message(content, reply_to=message)

    return app


def assert_only_bad_replies_are_rejected(app: ClientApp, check: str, **settings: Any) -> None:
    """Assert that good nodes alone make the versions, and rejections are counted by node."""
    guard = settings.pop("guard", Guard())
    events, theta = train(InMemoryGrid(app, 3), 5, guard=guard, **settings)
    assert len(kinds(events, "flush")) == 5
    np.testing.assert_array_equal(theta, [1.0, 1.0])
    assert set(guard.rejections) == {(check, BAD)}


@fault(name="1", mutation=patch(Flights, "overdue", lambda self, now, grace, limit: []))
def a_client_never_answers(_: Path) -> None:
    """After the time-to-live it is sent another message."""
    grid = InMemoryGrid(
        make_linear_app(), 3, faults=lambda i, k: "silent" if (i, k) == (0, 0) else None
    )
    events, _theta = train(grid, 60, ttl=4.0)
    assert len(kinds(events, "flush")) == 60
    assert [each["node"] for each in kinds(events, "error")] == [BAD]
    assert any(each["node"] == BAD for each in kinds(events, "reply"))


@fault(name="2", mutation=patch(Flights, "failed", lambda self, node_id, now: 0.0))
def a_client_raises_always(_: Path) -> None:
    """Other nodes continue; the failing one gets fewer and fewer messages."""
    grid = InMemoryGrid(make_linear_app(), 3, faults=lambda i, k: "raise" if i == 0 else None)
    events, _theta = train(grid, 60)
    assert len(kinds(events, "flush")) == 60
    pauses = [each["pause"] for each in kinds(events, "error")]
    assert pauses == sorted(pauses)
    assert 2 <= len(pauses) <= 6


@fault(name="3", mutation=patch(BufferedAsync, "check_staleness", lambda self, staleness: None))
def an_update_is_too_stale(_: Path) -> None:
    """Its update is rejected without a pause: the node was only slow."""
    guard = Guard()
    grid = InMemoryGrid(make_linear_app(), 3, duration=lambda i, k: 9.5 if i == 0 else 1.0)
    events, _theta = train(grid, 40, max_staleness=3, guard=guard)
    assert max(tau for each in kinds(events, "flush") for tau in each["staleness"]) <= 3
    assert set(guard.rejections) == {("stale", BAD)}
    assert {each["pause"] for each in kinds(events, "reject")} == {0.0}


def two_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept a second reply to a message (mutation)."""
    close, seen = Flights.close, set()

    def close_the_second_time(self: Flights, flight: Flight) -> None:
        self._busy.discard(flight.node_id)
        if flight.message_id in seen:
            close(self, flight)
        seen.add(flight.message_id)

    monkeypatch.setattr(Flights, "close", close_the_second_time)


@fault(name="4", mutation=two_answers)
def a_reply_comes_twice_and_late(_: Path) -> None:
    """Only the first reply to a message counts, and only while it is in flight."""
    grid = InMemoryGrid(
        make_linear_app(), 3, faults=lambda i, k: ("duplicate", "late", None)[k % 3]
    )
    events, _theta = train(grid, 30, ttl=4.0, max_backoff=2.0)
    answered = Counter(e["message"] for e in events if e["event"] in ("reply", "error"))
    assert set(answered.values()) == {1}
    assert kinds(events, "unmatched")


def believe_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe the base version that a reply claims (mutation)."""
    honest = Guard.check

    def credulous(self: Guard, reply: Message, flight: Flight, *rest: Any) -> Update:
        update = honest(self, reply, flight, *rest)
        claimed = int(reply.content["metrics"].get("version", flight.base_version))
        return replace(update, flight=replace(flight, base_version=claimed))

    monkeypatch.setattr(Guard, "check", credulous)


@fault(name="5", mutation=believe_the_client)
def a_client_claims_a_version(_: Path) -> None:
    """Claims about versions are ignored; so are replies in the name of another node."""
    events, _theta = train(InMemoryGrid(sending({}, version=-7), 3))
    staleness = [tau for each in kinds(events, "flush") for tau in each["staleness"]]
    assert len(staleness) == 24
    assert set(staleness) <= {0, 1}
    forging = InMemoryGrid(make_linear_app(), 3, faults=lambda i, k: "forge" if i == 0 else None)
    plain = InMemoryGrid(make_linear_app(), 3)
    (forged, theta), (_honest, expected) = train(forging), train(plain)
    assert kinds(forged, "unmatched")
    np.testing.assert_array_equal(theta, expected)


def unchecked(self: Guard, arrays: dict, base: np.ndarray) -> tuple[Difference, float]:
    """Return the difference without validation (mutation)."""
    return self.difference(arrays, base), 0.0


@fault(name="6", mutation=patch(Guard, "check_arrays", unchecked))
def values_are_not_finite(_: Path) -> None:
    for value in (np.nan, np.inf, -np.inf):
        app = sending({"w": Array(np.array([0.0, value]))})
        assert_only_bad_replies_are_rejected(app, "finite")


@fault(name="7", mutation=patch(Guard, "decode", lambda self, record: to_arrays(record)))
def arrays_are_of_another_schema(_: Path) -> None:
    for bad in (
        {"w": Array(np.full(1, 9.0))},  # would be broadcast
        {"w": Array(np.full((1, 2), 9.0))},
        {"w": Array(np.full(2, 9.0, np.complex64))},
        {"w": Array(np.ones(2)), "v": Array(np.ones(2))},
        {"v": Array(np.ones(2))},
        {"w": Array("float64", (2,), "numpy.ndarray", Array(np.full(1, 9.0)).data)},
    ):
        check = "payload" if set(bad) == {"w"} and tuple(bad["w"].shape) == (2,) else "schema"
        check = "schema" if bad.get("w") and bad["w"].dtype == "complex64" else check
        assert_only_bad_replies_are_rejected(sending(bad), check)


def any_weight(self: Guard, reply: Message) -> tuple[float, dict]:
    """Return the weight without validation (mutation)."""
    return float(reply.content["metrics"]["num-examples"]), {}


@fault(name="8", mutation=patch(Guard, "check_metrics", any_weight))
def the_weight_is_absurd(_: Path) -> None:
    nine = {"w": Array(np.full(2, 9.0))}
    for count in (-9, -1e-9, float("nan"), float("inf"), 1e301):
        assert_only_bad_replies_are_rejected(sending(nine, count), "weight")


@fault(name="9", mutation=patch(Guard, "check_arrays", unchecked))
def an_update_is_huge(_: Path) -> None:
    app = sending({"w": Array(np.array([0.0, 4e4]))})
    assert_only_bad_replies_are_rejected(app, "norm", guard=Guard(max_norm=100.0))
    assert_only_bad_replies_are_rejected(sending({"w": Array(np.full(2, 1e300))}), "norm")


def one_slot_per_message(self: Buffer, update: Update) -> bool:
    """Count replies instead of nodes (mutation)."""
    self._updates[int(update.flight.message_id.split("-")[1])] = update
    return False


@fault(name="10", mutation=patch(Buffer, "put", one_slot_per_message))
def a_fast_client_fills_the_buffer(_: Path) -> None:
    grid = InMemoryGrid(make_linear_app(), 3, duration=lambda i, k: 0.1 if i == 0 else 1.0)
    events, _theta = train(grid, 20)
    for flush in kinds(events, "flush"):
        assert len(set(flush["nodes"])) == 2


@fault(name="11", mutation=patch(Session, "_is_late", lambda self: False))
def the_buffer_cannot_fill(_: Path) -> None:
    """Of K = 4 nodes two die: with `flush_after`, versions are made from the others."""
    dead = {2: [(0.0, 5.5)], 3: [(0.0, 5.5)]}
    grid = InMemoryGrid(make_linear_app(), 4, presence=dead)
    events, _theta = train(grid, 12, buffer_size=4, flush_after=3.0)
    sizes = [len(each["nodes"]) for each in kinds(events, "flush")]
    assert sizes == [4] * 5 + [2] * 7
    alone = InMemoryGrid(make_linear_app(), 4, presence=dead)
    waiting, _theta = train(alone, buffer_size=4, flush_at_end=False)
    assert len(kinds(waiting, "flush")) == 5  # without it the others wait until the end


class PowerCutError(Exception):
    """The server dies."""


def uneven(i: int, k: int) -> float:
    return (1.0, 1.0, 2.0)[i]


def cut_at(version: int) -> Callable[[int, ArrayRecord, object], None]:
    def on_version(made: int, arrays: ArrayRecord, metrics: object) -> None:
        if made == version:
            raise PowerCutError

    return on_version


def train_with_a_power_cut(folder: Path) -> np.ndarray:
    """Train, interrupt it at version 9, and resume from the files with new objects."""
    with pytest.raises(PowerCutError):
        train(
            InMemoryGrid(make_linear_app(), 3, duration=uneven),
            checkpoint=Checkpoints(folder),
            on_version=cut_at(9),
        )
    return resume(folder)


def resume(folder: Path) -> np.ndarray:
    grid = InMemoryGrid(make_linear_app(), 3, duration=uneven)
    return train(grid, 20, checkpoint=Checkpoints(folder, resume=True))[1]


@fault(name="12", mutation=patch(Session, "_load_update", lambda *arguments, **values: None))
def the_server_dies(folder: Path) -> None:
    _events, expected = train(InMemoryGrid(make_linear_app(), 3, duration=uneven), 20)
    theta = train_with_a_power_cut(folder)
    assert theta.tobytes() == expected.tobytes()


@fault(name="13", mutation=patch(checkpoint, "checksum", lambda text, tensors: ""))
def a_checkpoint_is_damaged(folder: Path) -> None:
    """One bit of the newest file is flipped: its predecessor is used, with the same result."""
    _events, expected = train(InMemoryGrid(make_linear_app(), 3, duration=uneven), 20)
    with pytest.raises(PowerCutError):
        train(
            InMemoryGrid(make_linear_app(), 3, duration=uneven),
            checkpoint=Checkpoints(folder),
            on_version=cut_at(9),
        )
    newest = Checkpoints(folder).files()[-1]
    data = bytearray(newest.read_bytes())
    state, tensors = checkpoint.read_checkpoint(newest, {"w": "float64(2,)"})
    held = tensors[f"base/{state['version']}"]
    place = data.index(held.tobytes())
    data[place + 6] ^= 1  # in the exponent of the first number
    newest.write_bytes(bytes(data))
    assert resume(folder).tobytes() == expected.tobytes()


SPRUNG: list[str] = []


class Trap:
    """Records that it has been unpickled."""

    def __reduce__(self) -> tuple:
        return SPRUNG.append, ("unpickled",)


def trusting(data: bytes, shape: tuple, dtype: np.dtype) -> np.ndarray:
    """Let numpy read the bytes (mutation)."""
    loaded = np.load(io.BytesIO(data), allow_pickle=True)
    return np.ones(2) if loaded.dtype == object else loaded


@fault(name="14", mutation=patch(guard, "read_payload", trusting))
def a_payload_is_an_object_or_too_long(_: Path) -> None:
    SPRUNG.clear()
    pickled = io.BytesIO()
    np.save(pickled, np.array([Trap(), 1], object), allow_pickle=True)
    disguised = Array("float64", (2,), "numpy.ndarray", pickled.getvalue())
    assert_only_bad_replies_are_rejected(sending({"w": disguised}), "payload")
    assert not SPRUNG
    long = Array("float64", (2,), "numpy.ndarray", Array(np.ones(2)).data + bytes(5000))
    assert_only_bad_replies_are_rejected(sending({"w": long}), "size")
    # A header that claims more than the payload holds must not allocate memory for it.
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    )
    greedy = Array("float64", (2,), "numpy.ndarray", header.getvalue())
    assert_only_bad_replies_are_rejected(sending({"w": greedy}), "payload")


def in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use nodes in the order of the engine (mutation)."""
    for module in (session, session_evaluation, flower_hooks):
        monkeypatch.setattr(module, "sorted", list, raising=False)
    monkeypatch.setattr(session_evaluation, "add", list.append)


@fault(name="15", mutation=in_any_order)
def nodes_are_named_in_any_order(_: Path) -> None:
    """Events and bytes depend on the seed, not on the order in which a grid lists its nodes."""

    class Shuffled(InMemoryGrid):
        def get_node_ids(self) -> list[int]:
            ids = list(super().get_node_ids())
            return random.sample(ids, len(ids))

    runs = [train(Shuffled(make_linear_app(), 12), 20, buffer_size=5) for _ in range(4)]
    for events, theta in runs[1:]:
        assert events == runs[0][0]
        assert theta.tobytes() == runs[0][1].tobytes()


def test_a_version_that_would_not_be_finite_is_not_made() -> None:
    """Each update passes the guard, but their sum overflows the type of the model."""
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        far = message.content["arrays"]["w"].numpy().astype(np.float64) + 40000
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(np.minimum(far, 65000).astype(np.float16))}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        return Message(content, reply_to=message)

    events: list[dict] = []
    start = to_record({"w": np.zeros(2, np.float16)})
    # The slow node's update of 40000 is added to that of the other one.
    grid = InMemoryGrid(app, 2, duration=lambda i, k: (1.0, 1.5)[i])
    result = TrainOnly(1, time_limit=50, on_event=events.append).start(grid, start, 4)
    assert kinds(events, "discard")
    assert np.all(np.isfinite(result.arrays["w"].numpy()))
    assert len(kinds(events, "flush")) == 4


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("inf")], [0.0] * 2000, -1e301])
def test_an_unusable_metric_is_ignored_alone(value: object) -> None:
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        odd = context.node_config["partition-id"] == 0
        metrics = {"num-examples": 1, "loss": 2.0, **({"odd": value} if odd else {})}
        content = RecordDict({"arrays": to_record(START), "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=message)

    result = SyncBuffered(fraction_evaluate=0.0).start(
        InMemoryGrid(app, 3), to_record(START), num_rounds=2
    )
    assert result.train_metrics_clientapp[2] == {"loss": 2.0}


def test_metrics_that_are_lists_are_averaged_as_flower_does() -> None:
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        metrics = {"num-examples": 1 + i, "per-class": [1.0 * i, 4.0], "own": [0.0] * (i + 1)}
        content = RecordDict({"arrays": to_record(START), "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=message)

    result = SyncBuffered(fraction_evaluate=0.0).start(
        InMemoryGrid(app, 2), to_record(START), num_rounds=1
    )
    assert result.train_metrics_clientapp[1]["per-class"] == pytest.approx([2 / 3, 4.0])
    assert result.train_metrics_clientapp[1]["own"] == [0.0]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({}, "initial_arrays is empty"),
        ({"w": np.array([1, np.nan])}, "not finite"),
        ({"w": np.array([1j])}, "'w' is of type complex128"),
    ],
)
def test_arrays_that_cannot_be_trained_are_named(start: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainOnly().start(InMemoryGrid(make_linear_app(), 1), to_record(start))


def test_integers_are_rounded_and_kept_in_range() -> None:
    layout = arrays_module.Layout(
        {"n": np.zeros(3, np.int64), "b": np.zeros(2, bool), "u": np.zeros(2, np.uint8)}
    )
    # In the order of the names.
    back = layout.unflatten(np.array([0.4, 0.6, 1.6, -2.4, 1e30, -3.0, 256.0]))
    assert back["n"].tolist() == [2, -2, 9223372036854774784]
    assert back["b"].tolist() == [False, True]
    assert back["u"].tolist() == [0, 255]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4)])
def test_payloads_are_read_as_numpy_reads_them(order: str, shape: tuple[int, ...]) -> None:
    array = np.asarray(np.random.default_rng(0).normal(size=shape), order=order)
    read = arrays_module.read_payload(Array(array).data, array.shape, array.dtype)
    np.testing.assert_array_equal(read, array)
    second = io.BytesIO()
    np.lib.format.write_array(second, array, version=(2, 0))
    read = arrays_module.read_payload(second.getvalue(), array.shape, array.dtype)
    np.testing.assert_array_equal(read, array)
