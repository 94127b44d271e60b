"""Residuals are sent later, messages are smaller, hostile encodings are rejected."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies import (
    Checkpoints,
    Int8,
    TopK,
    compress_update,
    compression_mod,
)
from strategies.arrays import Layout, to_record
from strategies.compression import CODES, INDICES, SCALES, VALUES, Compression
from strategies.grids import InMemoryGrid
from strategies.guard import Guard, RejectedError
from tests.strategies.conftest import TrainOnly

SHAPES = {"weight": (5, 4), "bias": (5,), "scale": ()}
SIZE = 26
METHODS = [TopK(0.1), TopK(0.5), TopK(1.0), Int8()]


def model(dtype: type = np.float32, fill: float = 0.0) -> dict[str, np.ndarray]:
    return {name: np.full(shape, fill, dtype) for name, shape in SHAPES.items()}


def vectors(rows: int, limit: float = 1e4) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, (rows, SIZE), elements=st.floats(-limit, limit, width=32))


def read(compression: Compression | None, record: ArrayRecord, layout: Layout) -> np.ndarray:
    """Decode an update as the server does."""
    guard = Guard()
    guard.begin(layout, "arrays", None, compression)
    difference, _norm = guard.check_arrays(guard.decode(record), np.zeros(layout.size))
    vector = np.empty(layout.size)
    difference.write(layout.whole, vector)
    return vector


@pytest.mark.parametrize("compression", METHODS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(rows=st.integers(1, 4).flatmap(lambda messages: vectors(2 * messages)))
def test_what_was_sent_and_the_residual_are_the_sum_of_all_updates(
    compression: Compression, dtype: type, rows: np.ndarray
) -> None:
    layout, residual = Layout(model(dtype)), None
    sent = np.zeros(SIZE)
    for trained, base in zip(rows[::2], rows[1::2], strict=True):
        record, residual = compress_update(
            compression, layout.unflatten(trained), layout.unflatten(base), residual
        )
        sent += read(compression, record, layout)
    updates = np.sum(rows[::2].astype(float) - rows[1::2], axis=0)
    np.testing.assert_allclose(sent + residual, updates, rtol=0, atol=1e-9)


@given(rows=vectors(2))
def test_top_k_of_all_values_is_no_compression(rows: np.ndarray) -> None:
    layout, exact = Layout(model()), rows[0].astype(float) - rows[1]
    trained, base = layout.unflatten(rows[0]), layout.unflatten(rows[1])
    record, residual = compress_update(TopK(1.0), trained, base)
    np.testing.assert_array_equal(read(TopK(1.0), record, layout), exact.astype(np.float32))
    assert np.all(np.abs(residual) <= np.spacing(np.abs(exact).astype(np.float32)))


@given(rows=vectors(2))
def test_the_order_of_the_arrays_does_not_matter(rows: np.ndarray) -> None:
    layout = Layout(model())
    trained, base = layout.unflatten(rows[0]), layout.unflatten(rows[1])
    record, _ = compress_update(Int8(), trained, dict(reversed(base.items())))
    same, _ = compress_update(Int8(), trained, base)
    np.testing.assert_array_equal(read(Int8(), record, layout), read(Int8(), same, layout))


@given(update=hnp.arrays(float, SIZE, elements=st.floats(-1e6, 1e6)), fraction=st.floats(0.01, 1))
def test_top_k_keeps_the_largest_and_nothing_else(update: np.ndarray, fraction: float) -> None:
    layout = Layout(model(np.float64))
    got = TopK(fraction).decode(TopK(fraction).encode(update, layout), layout)
    kept = int(np.ceil(fraction * SIZE))
    assert np.count_nonzero(got) <= kept
    assert set(got[got != 0]) <= set(update)
    # The residual has the norm of the smallest values, which is the minimum.
    smallest = np.sort(np.abs(update))[: SIZE - kept]
    np.testing.assert_allclose(np.linalg.norm(update - got), np.linalg.norm(smallest), atol=1e-9)


@given(update=hnp.arrays(float, SIZE, elements=st.floats(-1e30, 1e30)))
def test_the_error_of_8_bits_is_at_most_half_a_level_of_the_array(update: np.ndarray) -> None:
    layout = Layout(model())
    got = Int8().decode(Int8().encode(update, layout), layout)
    for place in layout.places.values():
        bound = np.abs(update[place]).max() / 254
        # The level travels as a float32: rounded, and below 1e-38 coarsely.
        assert np.all(np.abs(got[place] - update[place]) <= bound * (1 + 1e-4) + 1e-42)


def test_messages_are_smaller_by_the_expected_factor() -> None:
    large = {"weight": np.zeros((200, 100), np.float32), "bias": np.zeros(200, np.float32)}
    rng = np.random.default_rng(0)
    trained = {name: rng.normal(size=a.shape).astype(np.float32) for name, a in large.items()}
    full = to_record(trained).count_bytes()

    def size(compression: Compression) -> int:
        return compress_update(compression, trained, large)[0].count_bytes()

    # Top-k: 2 bytes for an index and 4 for a value, of a tenth of them; Int8: 1 byte each.
    assert full / size(TopK(0.1)) == pytest.approx(4 / (0.1 * 6), rel=0.03)
    assert full / size(Int8()) == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("compression", METHODS, ids=repr)
@pytest.mark.parametrize("odd", [np.nan, np.inf, 3e38])
def test_an_update_that_is_not_finite_is_rejected_and_forgotten(
    compression: Compression, odd: float
) -> None:
    base, trained = model(fill=-3e38 if odd == 3e38 else 0.0), model(fill=1.0)
    trained["weight"][2, 1] = odd
    before = np.linspace(-1, 1, SIZE)
    record, residual = compress_update(compression, trained, base, before)
    with pytest.raises(RejectedError) as rejection:
        read(compression, record, Layout(base))
    assert rejection.value.check in ("finite", "norm")
    assert np.all(np.isfinite(residual))


def test_a_residual_of_another_model_is_named() -> None:
    with pytest.raises(ValueError, match=r"residual has shape \(3,\): must be \(26,\)"):
        compress_update(Int8(), model(), model(), np.zeros(3))


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan"), "half"])
def test_an_impossible_fraction_is_named(fraction: object) -> None:
    with pytest.raises(ValueError, match="fraction is"):
        TopK(fraction)  # type: ignore[arg-type]


# ---- validation by the guard --------------------------------------------------------------------


def indices(*places: int) -> np.ndarray:
    return np.array(places, np.uint8)


THREE = np.ones(3, np.float32)
HOSTILE = [
    (TopK(0.1), {INDICES: indices(0, 1, 26), VALUES: THREE}, "payload"),
    (TopK(0.1), {INDICES: indices(0, 1, 255), VALUES: THREE}, "payload"),
    (TopK(0.1), {INDICES: indices(0, 3, 2), VALUES: THREE}, "payload"),
    (TopK(0.1), {INDICES: indices(3, 3, 3), VALUES: THREE}, "payload"),
    (TopK(0.1), {INDICES: np.array([0, 1, -1]), VALUES: THREE}, "schema"),
    (TopK(0.1), {INDICES: indices(*range(26)), VALUES: np.ones(26, np.float32)}, "schema"),
    (TopK(0.1), {INDICES: indices(0, 1, 2), VALUES: THREE * np.float32(np.nan)}, "finite"),
    (TopK(0.1), {INDICES: indices(0, 1, 2), VALUES: THREE * np.float32(1e30)}, "norm"),
    (TopK(0.1), {INDICES: indices(0, 1, 2)}, "schema"),
    (TopK(0.1), model(), "schema"),
    (Int8(), {CODES: np.zeros(26, np.int8), SCALES: THREE * np.float32(np.nan)}, "finite"),
    (Int8(), {CODES: np.zeros(26, np.int8), SCALES: THREE * np.float32(np.inf)}, "finite"),
    (Int8(), {CODES: np.full(26, 127, np.int8), SCALES: THREE * np.float32(3e38)}, "norm"),
    (Int8(), {CODES: np.zeros(10**6, np.int8), SCALES: THREE}, "schema"),
    (Int8(), {CODES: np.zeros(26, np.int64), SCALES: THREE}, "schema"),
    (Int8(), model(), "schema"),
    (None, {CODES: np.zeros(26, np.int8), SCALES: THREE}, "schema"),
]


@pytest.mark.parametrize(("compression", "arrays", "reason"), HOSTILE)
def test_a_hostile_encoding_is_rejected_by_name(
    compression: Compression | None, arrays: dict, reason: str
) -> None:
    with pytest.raises(RejectedError) as rejection:
        read(compression, to_record(arrays), Layout(model()))
    assert rejection.value.check == reason


def test_a_bomb_is_not_unpacked() -> None:
    """The payload's header claims a terabyte, the record conforms to the schema."""
    payload = Array(np.zeros(26, np.int8)).data.replace(b"(26,), ", b"(1" + b"0" * 12 + b",)")
    sent = {
        CODES: Array("int8", (26,), "numpy.ndarray", payload[:200]),
        SCALES: Array(THREE),
    }
    with pytest.raises(RejectedError) as rejection:
        read(Int8(), ArrayRecord(sent), Layout(model()))
    assert rejection.value.check == "payload"


@pytest.mark.parametrize("compression", METHODS, ids=repr)
@given(data=st.data())
def test_whatever_is_sent_the_update_is_finite_or_rejected(
    compression: Compression, data: st.DataObject
) -> None:
    arrays = {}
    for name, (shape, dtype) in compression.schema(Layout(model())).items():
        shape = data.draw(st.sampled_from([shape, shape, shape, (3,), (0,), ()]))
        dtype = data.draw(st.sampled_from([dtype, dtype, dtype, np.dtype(float)]))
        payload = Array(data.draw(hnp.arrays(dtype, shape))).data
        at = data.draw(st.integers(0, 3 * len(payload)))
        if at < len(payload):
            payload = payload[:at] + data.draw(st.binary(max_size=4)) + payload[at + 4 :]
        arrays[name] = Array(str(dtype), shape, "numpy.ndarray", payload)
    try:
        delta = read(compression, ArrayRecord(arrays), Layout(model()))
    except RejectedError:
        return
    assert delta.shape == (SIZE,)
    assert np.all(np.isfinite(delta))


# ---- a whole training ---------------------------------------------------------------------------


def goal(partition_id: int) -> np.ndarray:
    return np.random.default_rng(partition_id).normal(size=40)


def app_with(*mods: object) -> ClientApp:
    """Return an app that moves the arrays a twentieth of the way to the node's goal."""
    app = ClientApp(mods=list(mods))  # type: ignore[arg-type]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        w = message.content["arrays"]["w"].numpy()
        wanted = goal(int(context.node_config["partition-id"]))
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(w + 0.05 * (wanted - w))}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1, "loss": 2.0})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def run(compression: Compression | None, versions: int = 60, **settings: object) -> tuple:
    mods = [] if compression is None else [compression_mod(compression)]
    grid = InMemoryGrid(app_with(*mods), 4)
    events: list[dict] = []
    strategy = TrainOnly(
        4, compression=compression, on_event=events.append, refill="version", **settings
    )
    start = ArrayRecord({"w": Array(np.zeros(40))})
    result = strategy.start(grid, start, num_rounds=versions)
    return result.arrays["w"].numpy(), events, strategy, grid


@pytest.mark.parametrize("compression", [TopK(0.1), Int8()], ids=repr)
def test_a_compressed_training_ends_where_an_uncompressed_one_does(
    compression: Compression,
) -> None:
    best = np.mean([goal(i) for i in range(4)], axis=0)
    w, events, strategy, _ = run(compression, versions=150)
    assert np.linalg.norm(w - best) < 0.1 * np.linalg.norm(best)
    assert not strategy.guard.rejections
    size = {event["event"]: event["bytes"] for event in events if "bytes" in event}
    assert size["reply"] < size["dispatch"]


def test_without_error_feedback_top_k_would_not_get_there() -> None:
    """The residual is necessary: a mod that forgets it stays away from the optimum."""

    def forgetful(message, context, call_next):
        context.state = RecordDict()
        return compression_mod(TopK(0.1))(message, context, call_next)

    best = np.mean([goal(i) for i in range(4)], axis=0)

    def distance(mod: object) -> float:
        grid = InMemoryGrid(app_with(mod), 4)
        strategy = TrainOnly(4, compression=TopK(0.1), refill="version")
        start = ArrayRecord({"w": Array(np.zeros(40))})
        w = strategy.start(grid, start, num_rounds=150).arrays["w"].numpy()
        return float(np.linalg.norm(w - best))

    assert distance(compression_mod(TopK(0.1))) < 0.5 * distance(forgetful)


def test_top_k_of_all_values_trains_as_no_compression_does() -> None:
    np.testing.assert_allclose(run(TopK(1.0))[0], run(None)[0], rtol=1e-12)


def test_other_messages_pass_the_mod_unchanged() -> None:
    _, events, *_ = run(Int8(), 5, fraction_evaluate=1.0)
    assert [event for event in events if event["event"] == "evaluated"]
    assert not [event for event in events if event["event"] in ("error", "reject")]


def test_a_server_without_compression_rejects_compressed_replies() -> None:
    grid = InMemoryGrid(app_with(compression_mod(Int8())), 4)
    strategy = TrainOnly(4, backoff=0, time_limit=3)
    strategy.start(grid, ArrayRecord({"w": Array(np.zeros(40))}), num_rounds=1)
    assert {check for check, _ in strategy.guard.rejections} == {"schema"}


def test_the_server_keeps_no_more_versions_than_are_in_use() -> None:
    held = []

    def on_version(version: int, arrays: ArrayRecord, metrics: object) -> None:
        held.append(len(strategy.session.versions.bases))  # type: ignore[union-attr]

    grid = InMemoryGrid(
        app_with(compression_mod(TopK(0.1))), 4, duration=lambda i, k: 50.0 if i == 0 else 1.0
    )
    strategy = TrainOnly(2, compression=TopK(0.1), on_version=on_version)
    strategy.start(grid, ArrayRecord({"w": Array(np.zeros(40))}), num_rounds=100)
    assert max(held) <= 4 + 1  # one in flight per node, and the newest


def test_a_reply_after_its_time_to_live_is_not_merged() -> None:
    grid = InMemoryGrid(
        app_with(compression_mod(Int8())), 4, faults=lambda i, k: "late" if i == 0 else None
    )
    events: list[dict] = []
    strategy = TrainOnly(2, compression=Int8(), ttl=5.0, on_event=events.append)
    strategy.start(grid, ArrayRecord({"w": Array(np.zeros(40))}), num_rounds=200)
    assert not [e for e in events if e["event"] == "reply" and e["node"] == 1000]
    assert [e for e in events if e["event"] == "error" and e["node"] == 1000]


def test_a_training_resumes_from_its_checkpoint_with_the_residuals(tmp_path) -> None:
    whole, *_ = run(TopK(0.1), 40)
    run(TopK(0.1), 20, checkpoint=Checkpoints(tmp_path, resume=True))
    # A new grid, whose nodes are restored with their state from the same folder.
    again, *_ = run(TopK(0.1), 40, checkpoint=Checkpoints(tmp_path, resume=True))
    np.testing.assert_array_equal(again, whole)


def test_a_buffered_update_of_another_compression_is_discarded(tmp_path) -> None:
    def resume(compression: Compression, versions: int) -> list[dict]:
        grid = InMemoryGrid(
            app_with(compression_mod(compression)), 4, duration=lambda i, k: 1.0 + i
        )
        events: list[dict] = []
        strategy = TrainOnly(
            2,
            compression=compression,
            checkpoint=Checkpoints(tmp_path, resume=True),
            on_event=events.append,
        )
        strategy.start(grid, ArrayRecord({"w": Array(np.zeros(40))}), num_rounds=versions)
        return events

    resume(TopK(0.1), 3)
    events = resume(Int8(), 6)
    assert events[0]["event"] == "resume"
    assert events[-1]["version"] == 6
