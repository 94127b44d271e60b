"""BufferedAsync reduces to known algorithms, keeps K exact and survives failing nodes."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from strategies.grids import InMemoryGrid
from strategies.staleness import Polynomial
from tests.strategies.conftest import TrainOnly, steps, target


def weights(record: ArrayRecord) -> np.ndarray:
    return record["w"].numpy()


def test_all_nodes_and_equal_times_is_fedavg(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    ours = TrainOnly(5).start(InMemoryGrid(linear_app, 5), zeros, num_rounds=12)
    theirs = FedAvg(fraction_evaluate=0.0, min_train_nodes=5, min_available_nodes=5).start(
        InMemoryGrid(linear_app, 5), zeros, num_rounds=12
    )
    np.testing.assert_allclose(weights(ours.arrays), weights(theirs.arrays), rtol=1e-12)
    assert ours.train_metrics_clientapp.keys() == theirs.train_metrics_clientapp.keys()
    for version, metrics in theirs.train_metrics_clientapp.items():
        assert ours.train_metrics_clientapp[version]["loss"] == pytest.approx(metrics["loss"])


def test_one_reply_per_version_is_fedasync(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    """FedAsync by differences, written out with its own event queue."""
    durations = [1.0, 1.7, 2.9]
    theta, version = np.zeros(2), 0
    due = {i: (durations[i], theta, 0) for i in range(3)}
    while version < 20:
        i = min(due, key=lambda node: (due[node][0], node))
        t, base, _ = due[i]
        theta = theta + 0.5 * (target(i) - base)
        version += 1
        due[i] = (t + durations[i], theta, version)
    grid = InMemoryGrid(linear_app, 3, duration=lambda i, k: durations[i])
    result = TrainOnly(1).start(grid, zeros, num_rounds=20)
    np.testing.assert_allclose(weights(result.arrays), theta, rtol=1e-12)


def test_one_node_is_plain_local_training(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    result = TrainOnly(1).start(InMemoryGrid(linear_app, 1), zeros, num_rounds=7)
    theta = np.zeros(2)
    for _ in range(7):
        theta = theta + 0.5 * (target(0) - theta)
    np.testing.assert_allclose(weights(result.arrays), theta, rtol=1e-12)


def test_the_papers_rule_with_stale_and_repeated_updates(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    """Node 0 reports at 1, 2, ...; node 1 at 2.5: K = 2 flushes with both steps of node 0."""
    events: list[dict] = []
    grid = InMemoryGrid(linear_app, 2, duration=lambda i, k: (1.0, 2.5)[i])
    result = TrainOnly(2, on_event=events.append).start(grid, zeros, num_rounds=1)
    n = np.array([2 * steps(0), steps(1)])
    expected = sum(w * 0.5 * target(i) for i, w in enumerate(n / n.sum()))
    np.testing.assert_allclose(weights(result.arrays), expected, rtol=1e-12)
    (flush,) = [event for event in events if event["event"] == "flush"]
    assert flush["steps"] == n.tolist()
    assert [e["replaced"] for e in events if e["event"] == "reply"] == [False, True, False]


def test_an_old_update_weighs_less_by_the_staleness_rule(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    """K = 2 of 3: nodes 0 and 1 make versions 1 and 2 at 1 s and 2 s; node 2 reports at 2.5 s.

    Version 3 then merges node 2 (from version 0, tau = 2) and node 0 (from version 2, tau = 0).
    """
    history: list[np.ndarray] = []
    events: list[dict] = []
    grid = InMemoryGrid(linear_app, 3, duration=lambda i, k: (1.0, 1.0, 2.5)[i])
    TrainOnly(2, staleness=Polynomial(0.5), on_event=events.append).start(
        grid, zeros, num_rounds=3, evaluate_fn=lambda v, arrays: history.append(weights(arrays))
    )
    flush = [event for event in events if event["event"] == "flush"][2]
    assert flush["staleness"] == [0, 2]
    raw = np.array([steps(0), steps(2) / np.sqrt(3)])
    w = raw / raw.sum()
    expected = history[2] + w[0] * 0.5 * (target(0) - history[2]) + w[1] * 0.5 * target(2)
    np.testing.assert_allclose(history[3], expected, rtol=1e-12)


def test_a_second_start_is_independent_of_the_first(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    events: list[dict] = []
    strategy = TrainOnly(2, on_event=events.append)
    grid = InMemoryGrid(linear_app, 5)
    strategy.start(grid, zeros, num_rounds=1)
    strategy.drain(grid, timeout=10)
    again = strategy.start(grid, zeros, num_rounds=1)
    fresh = TrainOnly(2).start(InMemoryGrid(linear_app, 5), zeros, num_rounds=1)
    assert np.array_equal(weights(again.arrays), weights(fresh.arrays))
    assert [len(e["nodes"]) for e in events if e["event"] == "flush"] == [2, 2]


def test_a_fraction_is_of_the_nodes_that_take_part_now(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    """Nodes that leave and return under new ids do not increase K."""
    grid = InMemoryGrid(linear_app, 12)
    ids = list(grid.contexts)

    def present(_: object) -> list[int]:
        gone = int(grid.clock.monotonic() // 5)
        return ids[gone : gone + 4]

    events: list[dict] = []
    strategy = TrainOnly(0.5, nodes=present, time_limit=300, on_event=events.append)
    result = strategy.start(grid, zeros, num_rounds=40)
    assert len(result.train_metrics_clientapp) == 40
    assert {len(e["nodes"]) for e in events if e["event"] == "flush"} == {2}


def test_a_node_under_a_new_id_keeps_its_place_in_the_buffer(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    """Node 0 reports at 1 and returns as node 1: both are the same member."""
    grid = InMemoryGrid(linear_app, 3, duration=lambda i, k: 1.0 if i < 2 else 6.5)
    first, again, other = grid.contexts

    def present(_: object) -> list[int]:
        return [first if grid.clock.monotonic() < 0.9 else again, other]

    events: list[dict] = []
    TrainOnly(2, nodes=present, member_of=lambda i: int(i == other), on_event=events.append).start(
        grid, zeros, num_rounds=1
    )
    replies = [(e["node"], e["replaced"]) for e in events if e["event"] == "reply"]
    assert replies[:2] == [(first, False), (again, True)]
    (flush,) = [event for event in events if event["event"] == "flush"]
    assert (flush["nodes"], flush["members"]) == ([again, other], [0, 1])
    assert len(replies) > 3
    assert flush["steps"] == [2 * steps(1), steps(2)]


def test_k_is_exact_even_when_all_replies_arrive_at_once(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    events: list[dict] = []
    TrainOnly(2, on_event=events.append).start(InMemoryGrid(linear_app, 7), zeros, num_rounds=9)
    flushes = [event for event in events if event["event"] == "flush"]
    assert [len(flush["nodes"]) for flush in flushes] == [2] * 9


def test_no_node_waits_for_a_straggler(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    grid = InMemoryGrid(linear_app, 5, duration=lambda i, k: 100.0 if i == 4 else 1.0)
    strategy = TrainOnly(0.5)
    result = strategy.start(grid, zeros, num_rounds=30)
    assert len(result.train_metrics_clientapp) == 30
    assert grid.clock.monotonic() < 100
    assert strategy.drain(grid, timeout=1000) == 0


def test_an_old_update_is_merged_as_the_difference_to_its_own_base(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    """The slow node's reply changes the model by its difference, not by its old base."""
    grid = InMemoryGrid(linear_app, 2, duration=lambda i, k: (1.0, 10.5)[i])
    history: list[np.ndarray] = []
    TrainOnly(1).start(
        grid, zeros, num_rounds=11, evaluate_fn=lambda v, arrays: history.append(weights(arrays))
    )
    before, after = history[10], history[11]
    np.testing.assert_allclose(after - before, 0.5 * target(1), rtol=1e-12)


def test_one_message_in_flight_per_node(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    events: list[dict] = []
    grid = InMemoryGrid(linear_app, 4, duration=lambda i, k: 0.3 + i)
    TrainOnly(2, on_event=events.append).start(grid, zeros, num_rounds=20)
    flying: set[int] = set()
    for event in events:
        if event["event"] == "dispatch":
            assert event["node"] not in flying
            flying.add(event["node"])
        elif event["event"] == "reply":
            flying.remove(event["node"])


@pytest.mark.parametrize("fault", ["raise", "drop"])
def test_failing_nodes_pause_for_longer_and_longer(
    linear_app: ClientApp, zeros: ArrayRecord, fault: str
) -> None:
    events: list[dict] = []
    grid = InMemoryGrid(linear_app, 3, faults=lambda i, k: fault if i == 2 and k < 3 else None)
    strategy = TrainOnly(2, ttl=4.0, backoff=2.0, max_backoff=5.0, on_event=events.append)
    result = strategy.start(grid, zeros, num_rounds=40)
    assert len(result.train_metrics_clientapp) == 40
    failures = [event for event in events if event["event"] == "error"]
    assert [event["pause"] for event in failures] == [2.0, 4.0, 5.0]
    sent = [
        event["t"] for event in events if event["event"] == "dispatch" and event["node"] == 1002
    ]
    for failure, again in zip(failures, sent[1:], strict=False):
        assert failure["pause"] <= again - failure["t"] < failure["pause"] + 1.1
    assert any(e["event"] == "reply" and e["node"] == 1002 for e in events)


def poison(kind: str) -> RecordDict:
    good = ArrayRecord({"w": Array(np.ones(2))})
    bad = {
        "nan": {"w": np.array([np.nan, 0.0])},
        "shape": {"w": np.ones(1)},
        "dtype": {"w": np.ones(2, np.complex64)},
        "extra": {"w": np.ones(2), "v": np.ones(2)},
        "name": {"v": np.ones(2)},
    }
    arrays = ArrayRecord({k: Array(v) for k, v in bad[kind].items()}) if kind in bad else good
    count = {"negative": -9, "infinite": float("inf")}.get(kind, 1)
    metrics = MetricRecord({"num-examples": count, "loss": 0.0})
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    if kind == "no arrays":
        del content["arrays"]
    if kind == "no metric":
        del content["metrics"]
    return content


@pytest.mark.parametrize(
    "kind",
    [
        *("nan", "shape", "dtype", "extra", "name", "negative", "infinite"),
        *("no arrays", "no metric"),
    ],
)
def test_a_poisoned_reply_never_reaches_the_model(kind: str, zeros: ArrayRecord) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        good = context.node_config["partition-id"] != 0
        return Message(poison("good" if good else kind), reply_to=message)

    events: list[dict] = []
    grid = InMemoryGrid(app, 3)
    result = TrainOnly(2, on_event=events.append).start(grid, zeros, num_rounds=5)
    assert np.array_equal(weights(result.arrays), np.full(2, 1.0))
    assert {e["node"] for e in events if e["event"] == "reject"} == {1000}
    assert all(1000 not in e["nodes"] for e in events if e["event"] == "flush")


def test_versions_are_kept_only_while_a_node_trains_from_them(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    strategy = TrainOnly(1)
    grid = InMemoryGrid(linear_app, 3, duration=lambda i, k: 50.0 if i == 0 else 1.0)
    strategy.start(grid, zeros, num_rounds=60)
    assert len(strategy.session.versions.bases) <= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"buffer_size": 0}, "buffer_size is 0"),
        ({"buffer_size": 2.5}, "buffer_size is 2.5"),
        ({"buffer_size": True}, "buffer_size is True"),
        ({"buffer_size": "half"}, "buffer_size is 'half'"),
        ({"concurrency": 0}, "concurrency is 0: must be a whole number, at least 1"),
        ({"flush_after": -1.0}, "flush_after is -1.0"),
        ({"refill": "never"}, "refill is 'never': must be one of reply, version"),
        ({"fraction_evaluate": 1.5}, "fraction_evaluate is 1.5"),
        ({"max_staleness": -1}, "max_staleness is -1"),
        ({"min_available_nodes": 0}, "min_available_nodes is 0"),
        ({"backoff": 9.0, "max_backoff": 3.0}, "max_backoff is 3.0"),
        ({"ttl": float("nan")}, "ttl is nan"),
    ],
)
def test_impossible_settings_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainOnly(**arguments)


def test_arrays_without_dimensions_travel_and_merge() -> None:
    """Such as the counter of a batch normalisation."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        count = message.content["arrays"]["count"].numpy() + 2
        content = RecordDict(
            {
                "arrays": ArrayRecord({"count": Array(np.asarray(count, np.int64))}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        return Message(content, reply_to=message)

    start = ArrayRecord({"count": Array(np.asarray(0, np.int64))})
    result = TrainOnly(2).start(InMemoryGrid(app, 2), start, num_rounds=3)
    final = result.arrays["count"].numpy()
    assert final.shape == ()
    assert final == 6


def test_without_a_timeout_training_waits_as_long_as_needed(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    grid = InMemoryGrid(linear_app, 2, duration=500.0)
    result = TrainOnly(2).start(grid, zeros, num_rounds=10, timeout=None)
    assert len(result.train_metrics_clientapp) == 10
    assert grid.clock.monotonic() == 5000.0


def test_on_version_is_called_for_every_version(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    seen: list[tuple[int, float]] = []
    evaluated: list[np.ndarray] = []

    def on_version(version: int, arrays: ArrayRecord, metrics: MetricRecord | None) -> None:
        assert np.array_equal(weights(arrays), evaluated[version])
        seen.append((version, metrics["loss"] if metrics else -1.0))

    strategy = TrainOnly(2, on_version=on_version)
    result = strategy.start(
        InMemoryGrid(linear_app, 3), zeros, 5, evaluate_fn=lambda v, a: evaluated.append(weights(a))
    )
    assert seen == [(v, m["loss"]) for v, m in result.train_metrics_clientapp.items()]
    assert [version for version, _ in seen] == [1, 2, 3, 4, 5]


def test_a_k_above_the_number_of_nodes_is_logged(
    linear_app: ClientApp, zeros: ArrayRecord, caplog: pytest.LogCaptureFixture
) -> None:
    for settings, consequence in (
        ({}, "waiting for more"),
        ({"flush_after": 3.0}, "flushing after 3 s"),
    ):
        TrainOnly(4, time_limit=20, **settings).start(InMemoryGrid(linear_app, 2), zeros, 3)
        assert f"K is 4, but only 2 nodes take part: {consequence}" in caplog.messages
    assert "a version from 2 updates instead of 4: the first has waited 3 s" in caplog.messages


def test_nothing_is_sent_before_enough_nodes_are_online(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    """They connect one per second; when one leaves later, training continues."""
    presence = {i: [(float(i), 12.0 if i == 0 else 1e9)] for i in range(4)}
    events: list[dict] = []
    grid = InMemoryGrid(linear_app, 4, presence=presence)
    strategy = TrainOnly(0.5, min_available_nodes=4, on_event=events.append)
    strategy.start(grid, zeros, num_rounds=20)
    sent = [event["t"] for event in events if event["event"] == "dispatch"]
    assert 3.0 <= sent[0] < 4.1
    assert sent[-1] > 12.0
    assert strategy.version == 20
