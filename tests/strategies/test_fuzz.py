"""Whatever the nodes send, the model stays valid and every reply is accounted for."""

from collections import Counter

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from strategies import BufferedAsync, Guard, TrimmedMean
from strategies.arrays import to_record
from strategies.grids import InMemoryGrid
from tests.strategies.conftest import TrainOnly

SHAPES = {"a.weight": (4, 3), "a.bias": (3,), "count": ()}
START = {
    "a.weight": np.zeros((4, 3), np.float32),
    "a.bias": np.zeros(3),
    "count": np.zeros((), np.int64),
}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-320, 1e30, 3e38, 1e308, np.nan, np.inf, -np.inf]
WEIGHTS = [1, 7, 1e5, 0, -3, 0.5, 1e12, float("nan"), float("inf"), -(2**63), 2**63 - 1]


def random_array(rng: np.random.Generator, name: str) -> Array:
    shape, dtype = START[name].shape, START[name].dtype
    if rng.random() < 0.1:
        shape = tuple(rng.integers(0, 5, rng.integers(0, 4)).tolist())
    if rng.random() < 0.1:
        dtype = np.dtype(rng.choice(["f2", "f4", "f8", "i4", "u8", "c16", "?", "S3"]))
    values = rng.normal(size=shape)
    if rng.random() < 0.2:
        values = np.full(shape, rng.choice(SPECIAL))
    if dtype.kind == "i":
        values = np.clip(np.nan_to_num(values), -9, 9)
    with np.errstate(all="ignore"):
        array = Array(np.asarray(np.asarray(values).astype(dtype)))
    if rng.random() < 0.1:
        data = bytearray(array.data)
        for place in rng.integers(0, len(data), rng.integers(1, 9)):
            data[place] = rng.integers(256)
        array = Array(
            array.dtype, array.shape, array.stype, bytes(data[: rng.integers(len(data) + 1)])
        )
    if rng.random() < 0.05:
        stype = str(rng.choice(["numpy.ndarray", "pickle", ""]))
        array = Array(
            str(rng.choice(["float32", "float64", "object"])),
            shape,
            stype,
            rng.bytes(rng.integers(200)),
        )
    return array


def random_reply(rng: np.random.Generator) -> RecordDict:
    names = [name for name in SHAPES if rng.random() > 0.03]
    names += ["x"] * (rng.random() < 0.03)
    arrays = ArrayRecord({n: random_array(rng, n if n in SHAPES else "a.bias") for n in names})
    metrics: dict = {"num-examples": 1 + int(rng.integers(50))}
    if rng.random() < 0.2:
        metrics["num-examples"] = WEIGHTS[rng.integers(len(WEIGHTS))]
    if rng.random() < 0.03:
        metrics = {"num-examples": [1, 2]}
    for i in range(rng.integers(0, 4)):
        metrics[f"m{i}"] = (
            float(rng.choice(SPECIAL)) if rng.random() < 0.5 else [0.5] * int(rng.integers(0, 3))
        )
    content = RecordDict()
    if rng.random() > 0.03:
        content["arrays" if rng.random() > 0.03 else "other"] = arrays
    if rng.random() > 0.03:
        content["metrics"] = MetricRecord(metrics)
    if rng.random() < 0.05:
        content["metrics2"] = MetricRecord({"num-examples": 3, "m0": 1.0})
    if rng.random() < 0.05:
        content["config"] = ConfigRecord({"server-round": 10**6, "blob": b"x" * 50})
    return content


def fuzz(replies: int, seed: int) -> tuple[BufferedAsync, Counter, list[dict]]:
    """Train with 50 nodes that send random replies, until `replies` messages were sent."""
    rng = np.random.default_rng(seed)
    app, poisoned = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(random_reply(rng), reply_to=message)

    def on_version(version: int, arrays: ArrayRecord, metrics: MetricRecord | None) -> None:
        for name, start in START.items():
            array = arrays[name].numpy()
            whole = array.shape == start.shape and array.dtype == start.dtype
            if not whole or not np.all(np.isfinite(array)):
                poisoned.append(version)
        for value in (metrics or {}).values():
            if not np.all(np.isfinite(value)):
                poisoned.append(version)

    events: Counter = Counter()
    seen: list[dict] = []

    def on_event(event: dict) -> None:
        events[event["event"]] += 1
        events["error after dispatch"] += event["event"] == "error" and "message" in event
        if events["dispatch"] >= replies:
            raise StopIteration
        if event["event"] == "flush":
            seen.append(event)

    faults = {"raise": 0.02, "crash": 0.01, "drop": 0.01, "silent": 0.01, "late": 0.01}
    faults |= {"duplicate": 0.03, "forge": 0.03, "refuse": 0.01}
    grid = InMemoryGrid(
        app, 50, duration=lambda i, k: 0.5 + 0.1 * (i * k % 7), faults=faults, seed=seed
    )
    strategy = TrainOnly(
        0.2,
        guard=Guard(max_norm=1e4, max_weight=1e5, max_offences=10**9),
        merge=TrimmedMean(),
        ttl=5.0,
        backoff=0.1,
        max_backoff=0.2,
        poll_interval=0.1,
        on_event=on_event,
        on_version=on_version,
    )
    with pytest.raises(StopIteration):
        strategy.start(grid, to_record(START), num_rounds=10**9, timeout=None)
    assert not poisoned
    return strategy, events, seen


def account(strategy: BufferedAsync, events: Counter, flushes: list[dict]) -> None:
    """Assert that every message is answered, failed or in flight, every rejection counted."""
    assert strategy.session is not None
    session, guard = strategy.session, strategy.guard
    assert events["reply"] == sum(guard.accepted.values())
    assert events["reject"] == sum(guard.rejections.values())
    closed = events["reply"] + events["reject"] + events["error after dispatch"]
    assert events["dispatch"] == closed + len(session.flights)
    assert events["unmatched"] == session.exchange.unmatched
    assert {check for check, _ in guard.rejections} >= {
        *("record", "weight", "schema", "payload", "finite", "norm"),
    }
    assert events["reply"] > events["dispatch"] / 10
    assert events["flush"] > events["dispatch"] / 100
    assert all(len(set(flush["nodes"])) == 10 for flush in flushes)


def test_fuzzed_replies(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR", logger="flwr")
    account(*fuzz(4_000, seed=1))


@pytest.mark.slow
def test_a_hundred_thousand_fuzzed_replies(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR", logger="flwr")
    account(*fuzz(100_000, seed=2))
