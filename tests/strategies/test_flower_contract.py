"""What a user of Flower's strategies may rely on, from Flower's documentation of ``Strategy``.

Each test states a part of the contract that holds for ``FedAvg``. Where a version of the model is
something else than a round, the test says what holds instead; docs/strategies.md lists all of it.
"""

import inspect
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    DEFAULT_TTL,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    Result,
    Strategy,
)

from strategies import (
    SGD,
    BufferedAsync,
    FAuNO,
    FedAsync,
    FedBuff,
    Guard,
    InMemoryGrid,
    Mean,
    Median,
    NormFiltered,
    SyncBuffered,
    TrainingFailedError,
    TrimmedMean,
)
from strategies.arrays import to_record
from strategies.deadlines import Deadlines
from tests.strategies.conftest import make_linear_app, steps, target

PRESETS = [BufferedAsync, FAuNO, FedBuff, FedAsync, SyncBuffered]


class Recorder:
    """A client app that keeps what each node was sent, and evaluates too."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, ConfigRecord]] = []  # kind, partition, config
        self.app, healthy = ClientApp(), make_linear_app()

        @self.app.train()
        def train(message: Message, context: Context) -> Message:
            self._keep("train", message, context)
            return healthy(message, context)

        @self.app.evaluate()
        def evaluate(message: Message, context: Context) -> Message:
            self._keep("evaluate", message, context)
            i = int(context.node_config["partition-id"])
            error = float(((message.content["arrays"]["w"].numpy() - target(i)) ** 2).sum())
            metrics = MetricRecord({"num-examples": steps(i), "error": error})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)

    def _keep(self, kind: str, message: Message, context: Context) -> None:
        partition = int(context.node_config["partition-id"])
        self.sent.append((kind, partition, message.content["config"]))

    def rounds(self, kind: str, partition: int) -> list[int]:
        """Return the ``server-round`` of each message to a node."""
        return [int(c["server-round"]) for k, i, c in self.sent if (k, i) == (kind, partition)]


# ---- the number of a round ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [FedAvg, SyncBuffered])
def test_a_node_of_a_synchronous_training_gets_every_round_once(
    make: type[Strategy], zeros: ArrayRecord
) -> None:
    """From 1 on, in train and evaluate messages alike."""
    seen = Recorder()
    make(fraction_evaluate=1.0).start(InMemoryGrid(seen.app, 3), zeros, num_rounds=4)
    for i in range(3):
        assert seen.rounds("train", i) == [1, 2, 3, 4]
        assert seen.rounds("evaluate", i) == [1, 2, 3, 4]


def test_a_train_message_tells_the_version_to_make_and_the_one_that_it_holds(
    zeros: ArrayRecord,
) -> None:
    """The first is 1, as in Flower; a fast node sees numbers again, a slow one skips some."""
    seen = Recorder()
    grid = InMemoryGrid(seen.app, 3, duration=lambda i, k: (0.4, 1.0, 5.3)[i])
    BufferedAsync(2, fraction_evaluate=0.0).start(grid, zeros, num_rounds=12)
    for _, _, config in seen.sent:
        assert config["server-round"] == config["base-version"] + 1
    fast, slow = seen.rounds("train", 0), seen.rounds("train", 2)
    assert fast[0] == slow[0] == 1
    assert fast == sorted(fast)
    assert any(a == b for a, b in itertools.pairwise(fast))
    assert any(b > a + 1 for a, b in itertools.pairwise(slow))


def test_with_refill_by_version_no_node_gets_a_number_twice(zeros: ArrayRecord) -> None:
    """So that ``if server_round == 5`` runs once at most."""
    seen = Recorder()
    grid = InMemoryGrid(seen.app, 3, duration=lambda i, k: (0.4, 1.0, 5.3)[i])
    BufferedAsync(2, refill="version", fraction_evaluate=0.0).start(grid, zeros, num_rounds=12)
    for i in range(3):
        numbers = seen.rounds("train", i)
        assert len(set(numbers)) == len(numbers)
    assert seen.rounds("train", 0)[:3] == [1, 2, 3]


def test_the_config_of_the_caller_is_not_changed(zeros: ArrayRecord) -> None:
    config = ConfigRecord({"lr": 0.1})
    seen = Recorder()
    BufferedAsync(2).start(InMemoryGrid(seen.app, 2), zeros, num_rounds=2, train_config=config)
    assert dict(config) == {"lr": 0.1}
    assert all(c["lr"] == 0.1 for kind, _, c in seen.sent if kind == "train")


# ---- arguments ---------------------------------------------------------------------------------


def parameters(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(make).parameters)


def test_every_argument_of_fedavg_has_its_name_and_default() -> None:
    ours, theirs = parameters(BufferedAsync.__init__), parameters(FedAvg.__init__)
    assert theirs.keys() <= ours.keys()
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default, name


def test_start_takes_every_argument_of_flowers() -> None:
    ours, theirs = parameters(BufferedAsync.start), parameters(Strategy.start)
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default, name
    assert "should_stop" in ours  # Flower has it from 1.43 on


@pytest.mark.parametrize("make", [FedAvg, SyncBuffered])
@pytest.mark.parametrize(
    ("arguments", "train", "evaluate"),
    [
        ({"fraction_train": 0.5, "fraction_evaluate": 0.25}, 5, 2),
        ({"fraction_train": 0.29, "fraction_evaluate": 1.0}, 2, 10),
        ({"fraction_train": 0.1, "min_train_nodes": 3, "fraction_evaluate": 0.0}, 3, 0),
        ({"min_evaluate_nodes": 4, "fraction_evaluate": 0.1}, 10, 4),
    ],
)
def test_as_many_nodes_are_drawn_as_by_fedavg(
    make: type[Strategy], arguments: dict, train: int, evaluate: int, zeros: ArrayRecord
) -> None:
    seen = Recorder()
    make(**arguments).start(InMemoryGrid(seen.app, 10), zeros, num_rounds=3)
    counts = Counter((kind, config["server-round"]) for kind, _, config in seen.sent)
    assert [counts["train", r] for r in (1, 2, 3)] == [train] * 3
    # Ours does not wait: a version that is made while another one is being evaluated is skipped.
    made = [evaluate] if make is FedAvg else [0, evaluate]
    assert counts["evaluate", 1] == counts["evaluate", 3] == evaluate
    assert counts["evaluate", 2] in made


def test_no_more_nodes_than_the_fraction_train_at_once(zeros: ArrayRecord) -> None:
    """And in time all do."""
    events: list[dict] = []
    grid = InMemoryGrid(make_linear_app(), 10, duration=lambda i, k: 1.0 + 0.1 * i)
    strategy = BufferedAsync(0.5, fraction_train=0.4, fraction_evaluate=0.0, on_event=events.append)
    strategy.start(grid, zeros, num_rounds=30)
    flying, most = 0, 0
    for event in events:
        flying += {"dispatch": 1, "reply": -1}.get(event["event"], 0)
        most = max(most, flying)
    assert most == 4
    assert {len(e["nodes"]) for e in events if e["event"] == "flush"} == {2}
    assert len({e["node"] for e in events if e["event"] == "dispatch"}) == 10


def test_training_begins_when_enough_nodes_are_online(
    zeros: ArrayRecord, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="flwr")
    events: list[dict] = []
    presence = {1: [(30.0, 1e9)]}
    grid = InMemoryGrid(make_linear_app(), 2, presence=presence)
    BufferedAsync(fraction_evaluate=0.0, on_event=events.append).start(grid, zeros, 2, timeout=5)
    assert next(e["t"] for e in events if e["event"] == "dispatch") >= 30
    assert "Waiting for nodes to connect: 1 connected (minimum required: 2)." in caplog.messages


@pytest.mark.parametrize("make", [FedAvg, SyncBuffered])
def test_metrics_are_aggregated_by_the_given_functions(
    make: type[Strategy], zeros: ArrayRecord
) -> None:
    def largest(name: str) -> Callable[[list[RecordDict], str], MetricRecord]:
        def aggregate(contents: list[RecordDict], weighted_by_key: str) -> MetricRecord:
            assert weighted_by_key == "num-examples"
            values = [content["metrics"][name] for content in contents]
            weights = [content["metrics"][weighted_by_key] for content in contents]
            return MetricRecord({"largest": max(values), "examples": sum(weights)})

        return aggregate

    strategy = make(
        train_metrics_aggr_fn=largest("loss"), evaluate_metrics_aggr_fn=largest("error")
    )
    result = strategy.start(InMemoryGrid(Recorder().app, 3), zeros, num_rounds=2)
    assert result.train_metrics_clientapp[2] == {"largest": 2.0, "examples": 6}
    assert result.evaluate_metrics_clientapp[2].keys() == {"largest", "examples"}


def test_an_aggregation_that_fails_costs_its_metrics_alone(
    zeros: ArrayRecord, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(contents: list[RecordDict], weighted_by_key: str) -> MetricRecord:
        return MetricRecord({"x": contents[0]["metrics"]["of nobody"]})

    strategy = SyncBuffered(train_metrics_aggr_fn=fails, fraction_evaluate=0.0)
    result = strategy.start(InMemoryGrid(make_linear_app(), 2), zeros, num_rounds=2)
    assert result.versions == 2
    assert result.train_metrics_clientapp == {}
    assert "no metrics of version 1, their aggregation failed: KeyError" in caplog.text


@pytest.mark.parametrize("count", [np.int64(3), np.int32(3), 3])
def test_numbers_of_numpy_are_numbers(count: Any, zeros: ArrayRecord) -> None:
    strategy = BufferedAsync(count, concurrency=np.int64(5), fraction_evaluate=np.float32(0))
    assert strategy.updates_needed(8) == 3
    assert BufferedAsync(np.int64(1)).updates_needed(8) == 1
    result = strategy.start(InMemoryGrid(make_linear_app(), 5), zeros, num_rounds=count)
    assert result.versions == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_rounds": 2.5}, "num_rounds is 2.5: must be a whole number, at least 0"),
        ({"num_rounds": True}, "num_rounds is True"),
        ({"num_rounds": -1}, "num_rounds is -1"),
        ({"timeout": 0}, "timeout is 0: must be a finite number above 0"),
    ],
)
def test_impossible_arguments_of_start_are_named(
    arguments: dict, message: str, zeros: ArrayRecord
) -> None:
    with pytest.raises(ValueError, match=message):
        BufferedAsync().start(InMemoryGrid(make_linear_app(), 2), zeros, **arguments)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"fraction_train": 0.0}, "fraction_train is 0.0: must be a finite number above 0"),
        ({"min_train_nodes": 1.5}, "min_train_nodes is 1.5: must be a whole number"),
        ({"min_evaluate_nodes": -1}, "min_evaluate_nodes is -1"),
        ({"time_limit": -1.0}, "time_limit is -1.0"),
    ],
)
def test_impossible_settings_are_named(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BufferedAsync(**setting)


# ---- results, metrics and logs -----------------------------------------------------------------


@pytest.mark.parametrize("make", PRESETS)
def test_the_result_is_flowers(make: Callable[..., BufferedAsync], zeros: ArrayRecord) -> None:
    k = 2 if make is FedBuff else make().buffer_size
    result = make(k).start(InMemoryGrid(Recorder().app, 3), zeros, num_rounds=3)
    assert isinstance(result, Result)
    assert list(result.train_metrics_clientapp) == [1, 2, 3]
    assert 3 in result.evaluate_metrics_clientapp
    assert (result.versions, result.ended_by) == (3, "num_rounds")
    assert "3 versions, ended by num_rounds" in str(result)


@pytest.mark.parametrize("make", [FedAvg, SyncBuffered, BufferedAsync])
def test_the_weight_is_not_among_the_averaged_metrics(
    make: type[Strategy], zeros: ArrayRecord
) -> None:
    result = make().start(InMemoryGrid(Recorder().app, 3), zeros, num_rounds=2)
    assert result.train_metrics_clientapp[2].keys() == {"loss"}
    assert result.evaluate_metrics_clientapp[2].keys() == {"error"}


@pytest.mark.parametrize("make", [FedAvg, SyncBuffered, BufferedAsync])
def test_the_log_tells_start_settings_rounds_metrics_and_results(
    make: type[Strategy], zeros: ArrayRecord, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="flwr")
    make().start(
        InMemoryGrid(Recorder().app, 3),
        zeros,
        num_rounds=2,
        train_config=ConfigRecord({"lr": 0.1, "key": b"secret"}),
        evaluate_fn=lambda r, arrays: MetricRecord({"accuracy": 0.5}),
    )
    lines = [line.strip() for line in caplog.messages]
    assert lines[0] == f"Starting {make.__name__} strategy:"
    assert any(
        line.endswith("ConfigRecord (train): {'lr': 0.1, 'key': <bytes>}")
        or line.endswith("ConfigRecord (train): {'key': <bytes>, 'lr': 0.1}")
        for line in lines
    )
    assert any(line.endswith("Minimum available nodes: 2") for line in lines)
    assert "Initial global evaluation results: {'accuracy': 0.5}" in lines
    for server_round in (1, 2):
        assert any(line.startswith(f"[ROUND {server_round}/2]") for line in lines)
    assert sum("Aggregated MetricRecord: {'loss'" in line for line in lines) == 2
    assert any("Aggregated MetricRecord: {'error'" in line for line in lines)
    assert any(line.endswith("MetricRecord: {'accuracy': 0.5}") for line in lines)
    assert any(line.startswith("Strategy execution finished in") for line in lines)
    assert lines.index("Final results:") < lines.index("ServerApp-side Evaluate Metrics:")


# ---- the end -----------------------------------------------------------------------------------


def test_should_stop_ends_the_training_after_a_round(zeros: ArrayRecord) -> None:
    """It sees the metrics of the round, those of the nodes too."""
    asked: list[int] = []

    def should_stop(server_round: int, result: Result) -> bool:
        asked.append(server_round)
        assert server_round in result.train_metrics_clientapp
        assert server_round in result.evaluate_metrics_clientapp
        return result.evaluate_metrics_serverapp[server_round]["round"] >= 4

    result = SyncBuffered().start(
        InMemoryGrid(Recorder().app, 3),
        zeros,
        num_rounds=50,
        evaluate_fn=lambda r, arrays: MetricRecord({"round": r}),
        should_stop=should_stop,
    )
    assert asked == [1, 2, 3, 4]
    assert result.ended_by == "should_stop"
    assert 4 <= result.versions <= 5
    assert result.versions == max(result.train_metrics_clientapp)


def test_without_evaluation_every_version_may_be_the_last(zeros: ArrayRecord) -> None:
    """Replies of the same moment make no further version."""
    strategy = BufferedAsync(2, fraction_evaluate=0.0)
    result = strategy.start(
        InMemoryGrid(make_linear_app(), 9), zeros, 50, should_stop=lambda r, result: r == 3
    )
    assert (result.versions, result.ended_by, strategy.version) == (3, "should_stop", 3)


def test_on_version_may_end_the_training(zeros: ArrayRecord) -> None:
    strategy = BufferedAsync(2, fraction_evaluate=0.0, on_version=lambda v, *_: v == 2)
    result = strategy.start(InMemoryGrid(make_linear_app(), 9), zeros, 50)
    assert (result.versions, result.ended_by) == (2, "on_version")


def test_metrics_of_an_evaluation_reach_a_callback(zeros: ArrayRecord) -> None:
    seen: dict[int, MetricRecord] = {}
    strategy = BufferedAsync(2, on_evaluation=seen.__setitem__)
    result = strategy.start(InMemoryGrid(Recorder().app, 3), zeros, num_rounds=5)
    assert seen == result.evaluate_metrics_clientapp
    assert 5 in seen


# ---- time --------------------------------------------------------------------------------------


def test_slow_trainings_are_not_killed(zeros: ArrayRecord) -> None:
    """With the defaults: 900 s each, and thirty rounds of 300 s, which take 9,000 s in all."""
    for seconds, rounds in ((900.0, 3), (300.0, 30)):
        grid = InMemoryGrid(make_linear_app(), 3, duration=seconds)
        result = BufferedAsync(fraction_evaluate=0.0).start(grid, zeros, num_rounds=rounds)
        assert (result.versions, result.ended_by) == (rounds, "num_rounds")


@pytest.mark.parametrize("make", [FedAvg, SyncBuffered])
def test_a_round_ends_after_the_timeout_with_the_replies_that_came(
    make: type[Strategy], zeros: ArrayRecord
) -> None:
    """Node 2 never answers in time: the others make the model."""
    grid = InMemoryGrid(make_linear_app(), 3, duration=lambda i, k: 1e6 if i == 2 else 1.0)
    result = make(fraction_evaluate=0.0).start(grid, zeros, num_rounds=1, timeout=100.0)
    weights = np.array([steps(0), steps(1)])
    expected = sum(w * 0.5 * target(i) for i, w in enumerate(weights / weights.sum()))
    np.testing.assert_allclose(result.arrays["w"].numpy(), expected)
    assert 100.0 <= grid.clock.monotonic() < 105.0


def test_a_time_limit_that_cuts_a_training_short_is_told(
    zeros: ArrayRecord, caplog: pytest.LogCaptureFixture
) -> None:
    grid = InMemoryGrid(make_linear_app(), 4, duration=10.0)
    strategy = BufferedAsync(4, time_limit=35.0, fraction_evaluate=0.0)
    result = strategy.start(grid, zeros, num_rounds=30)
    assert (result.versions, result.ended_by) == (3, "time_limit")
    assert "training ends early, by time_limit = 35 s: 3 of 30 versions" in caplog.messages


@pytest.mark.parametrize("flush_at_end", [True, False])
def test_what_is_buffered_at_the_end_is_applied(flush_at_end: bool, zeros: ArrayRecord) -> None:
    """As FLSim does; an update moves the model by as much as in a full buffer, K = 4."""
    grid = InMemoryGrid(make_linear_app(), 4, duration=lambda i, k: 1.0 if i == 1 else 100.0)
    strategy = BufferedAsync(
        4, weighted_by_key=None, time_limit=1.5, flush_at_end=flush_at_end, fraction_evaluate=0.0
    )
    result = strategy.start(grid, zeros, num_rounds=30)
    assert (result.versions, result.ended_by) == (int(flush_at_end), "time_limit")
    expected = 0.5 * target(1) / 4 if flush_at_end else np.zeros(2)
    np.testing.assert_allclose(result.arrays["w"].numpy(), expected)


def test_nodes_that_are_online_but_silent_end_the_training(zeros: ArrayRecord) -> None:
    """One that fails beside them does not make it go on."""
    kind = {0: "raise", 1: "silent", 2: "silent"}
    grid = InMemoryGrid(make_linear_app(), 3, faults=lambda i, k: kind[i])
    strategy = BufferedAsync(2, fraction_evaluate=0.0)
    with pytest.raises(TrainingFailedError, match=r"no update .* in timeout = 3600 s") as raised:
        strategy.start(grid, zeros, num_rounds=3)
    assert raised.value.reasons[1000] == "scripted fault"
    assert raised.value.reasons[1001].startswith("no reply for 3")
    assert grid.clock.monotonic() < 3700


def test_time_in_which_nobody_is_online_does_not_count(zeros: ArrayRecord) -> None:
    away = {i: [(0.0, 10.5), (50_000.0, 1e9)] for i in range(2)}
    grid = InMemoryGrid(make_linear_app(), 2, presence=away)
    result = BufferedAsync(2, fraction_evaluate=0.0).start(grid, zeros, num_rounds=15)
    assert result.versions == 15


def test_a_lost_message_is_sent_again_long_before_flowers_12_hours(zeros: ArrayRecord) -> None:
    events: list[dict] = []
    grid = InMemoryGrid(
        make_linear_app(),
        3,
        duration=100.0,
        faults=lambda i, k: "silent" if (i, k) == (0, 0) else None,
    )
    strategy = BufferedAsync(2, fraction_evaluate=0.0, on_event=events.append)
    strategy.start(grid, zeros, num_rounds=50)
    (lost,) = [e for e in events if e["event"] == "error"]
    assert 3600 <= lost["latency"] < 3700
    assert any(e["event"] == "reply" and e["node"] == 1000 for e in events)


def test_a_deadline_grows_with_what_a_node_needs() -> None:
    deadlines = Deadlines()
    assert deadlines.of(1) == DEFAULT_TTL
    deadlines.answered(1, 10.0)
    deadlines.answered(2, 2000.0)
    assert (deadlines.of(1), deadlines.of(2), deadlines.of(3)) == (3600, 8000, 8000)
    deadlines.failed(1, 5.0)  # not by the deadline
    assert deadlines.of(1) == 3600
    deadlines.failed(1, 3605.0)
    assert deadlines.of(1) == 7200
    again = Deadlines()
    again.load(deadlines.state())
    assert again.of(1) == 7200
    for _ in range(200):
        deadlines.failed(1, 1e9)
    assert deadlines.of(1) == DEFAULT_TTL


# ---- replies -----------------------------------------------------------------------------------


def replying(
    weights: Sequence[float],
    arrays: Callable[[int], dict[str, np.ndarray]] | None = None,
    name: str = "arrays",
) -> ClientApp:
    """Return an app whose node i sends ``i + 1`` everywhere, with its weight."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        sent = arrays(i) if arrays else {"w": np.full(2, i + 1.0)}
        metrics = MetricRecord({"num-examples": weights[i], "loss": float(i)})
        return Message(RecordDict({name: to_record(sent), "metrics": metrics}), reply_to=message)

    return app


@pytest.mark.parametrize("make", [FedAvg, SyncBuffered])
@pytest.mark.parametrize(
    "weights", [[0.25, 0.5, 0.25], [0, 3, 1], [2.5e6, 5e6, 1e6], [1e-9, 2e-9, 1e-9]]
)
def test_weights_are_any_numbers_from_zero_on(
    make: type[Strategy], weights: list[float], zeros: ArrayRecord
) -> None:
    result = make(fraction_evaluate=0.0).start(InMemoryGrid(replying(weights), 3), zeros, 2)
    share = np.array(weights) / sum(weights)
    np.testing.assert_allclose(result.arrays["w"].numpy(), np.full(2, share @ [1, 2, 3]))
    assert result.train_metrics_clientapp[2]["loss"] == pytest.approx(share @ [0, 1, 2])


def test_an_update_of_weight_zero_counts_as_nothing_and_is_no_offence(zeros: ArrayRecord) -> None:
    for merge in (Mean(), Median(), TrimmedMean(0.4), NormFiltered()):
        guard = Guard()
        grid = InMemoryGrid(replying([0, 0, 0, 0, 3, 3]), 6)
        strategy = SyncBuffered(merge=merge, guard=guard, fraction_evaluate=0.0)
        result = strategy.start(grid, zeros, num_rounds=3)
        np.testing.assert_allclose(result.arrays["w"].numpy(), np.full(2, 5.5))
        assert not guard.rejections


def test_if_no_update_has_any_weight_the_model_stays(zeros: ArrayRecord) -> None:
    """FedAvg divides by zero."""
    grid = InMemoryGrid(replying([0, 0, 0]), 3)
    result = SyncBuffered(fraction_evaluate=0.0).start(grid, zeros, num_rounds=3)
    np.testing.assert_array_equal(result.arrays["w"].numpy(), np.zeros(2))
    assert result.versions == 3


@pytest.mark.parametrize("make", [FedAvg, SyncBuffered])
def test_the_only_record_of_arrays_may_have_another_name(
    make: type[Strategy], zeros: ArrayRecord
) -> None:
    grid = InMemoryGrid(replying([1, 1], name="updated"), 2)
    result = make(fraction_evaluate=0.0).start(grid, zeros, num_rounds=2)
    np.testing.assert_allclose(result.arrays["w"].numpy(), [1.5, 1.5])


@pytest.mark.parametrize(
    ("start", "sent", "taken"),
    [
        ("float64", "float32", True),
        ("float32", "float64", True),
        ("float32", "float16", True),
        ("float64", "int64", True),
        ("int64", "int32", True),
        ("int32", "int64", False),
        ("int64", "float64", False),
        ("float32", "complex64", False),
    ],
)
def test_arrays_of_another_type_are_taken_if_nothing_is_lost(
    start: str, sent: str, taken: bool
) -> None:
    app = replying([1, 1], lambda i: {"w": np.full(2, i + 1).astype(sent)})
    strategy = SyncBuffered(fraction_evaluate=0.0)
    grid, initial = InMemoryGrid(app, 2), to_record({"w": np.zeros(2, start)})
    if not taken:
        with pytest.raises(TrainingFailedError, match=rf"must be {start}\(2,\), as in initial_"):
            strategy.start(grid, initial, num_rounds=1)
        return
    result = strategy.start(grid, initial, num_rounds=1)
    assert result.arrays["w"].dtype == start
    expected = 1.5 if start.startswith("float") else 2
    np.testing.assert_array_equal(result.arrays["w"].numpy(), [expected] * 2)


def test_a_value_too_large_for_the_type_of_the_model_is_not_finite() -> None:
    guard, app = Guard(), replying([1, 1, 1], lambda i: {"w": np.full(2, 1e300 if i == 2 else 1.0)})
    initial = to_record({"w": np.zeros(2, np.float32)})
    BufferedAsync(2, guard=guard, fraction_evaluate=0.0).start(InMemoryGrid(app, 3), initial, 2)
    assert set(guard.rejections) == {("finite", 1002)}


def test_a_model_that_grows_is_refused_at_once() -> None:
    """As the empty one with which apps of xgboost begin."""
    with pytest.raises(ValueError, match=r"holds no value.* final shapes.*FedXgbBagging"):
        BufferedAsync().start(
            InMemoryGrid(make_linear_app(), 2), to_record({"0": np.zeros(0, np.uint8)})
        )
    app = replying([1, 1], lambda i: {"0": np.zeros(9, np.uint8)})
    with pytest.raises(TrainingFailedError, match=r"must be uint8\(5,\), as in initial_arrays"):
        BufferedAsync().start(InMemoryGrid(app, 2), to_record({"0": np.zeros(5, np.uint8)}))


def test_one_node_does_not_own_the_metrics_of_an_evaluation(zeros: ArrayRecord) -> None:
    """Nor the model: of five, the largest weight counts ten times the median one."""
    app = replying([1e300, 1, 1, 1, 1])

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        bad = context.node_config["partition-id"] == 0
        metrics = MetricRecord({"num-examples": 1e300 if bad else 10, "error": 1.0 * bad})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    result = SyncBuffered().start(InMemoryGrid(app, 5), zeros, num_rounds=2)
    assert result.evaluate_metrics_clientapp[2]["error"] == pytest.approx(10 / 14)
    np.testing.assert_allclose(result.arrays["w"].numpy(), (10 * 1 + 2 + 3 + 4 + 5) / 14)


def test_zeros_and_small_weights_do_not_let_a_large_one_through(zeros: ArrayRecord) -> None:
    """The median is that of the weights above zero."""
    result = SyncBuffered(fraction_evaluate=0.0).start(
        InMemoryGrid(replying([0, 0, 0, 1, 1e9]), 5), zeros, num_rounds=1
    )
    np.testing.assert_allclose(result.arrays["w"].numpy(), (4 + 10 * 5) / 11)


# ---- hooks without start -----------------------------------------------------------------------


def wrapped(wrapper: type[Strategy], strategy: Strategy) -> Strategy:
    """Return a strategy within one of Flower's wrappers, without noise."""
    if "Fixed" in wrapper.__name__:
        return wrapper(strategy, 0.0, 1.0, 3)
    return wrapper(strategy, 0.0, 3, initial_clipping_norm=1.0, clipped_count_stddev=0.0)


def clipping_app(wrapper: type[Strategy]) -> ClientApp:
    """Return the app that the wrapper expects: the clients clip, or the server does."""
    if "ServerSide" in wrapper.__name__:
        return Recorder().app
    mod = fixedclipping_mod if "Fixed" in wrapper.__name__ else adaptiveclipping_mod
    inner, app = Recorder().app, ClientApp()

    @app.train(mods=[mod])
    def train(message: Message, context: Context) -> Message:
        return inner(message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return inner(message, context)

    return app


@pytest.mark.parametrize(
    "wrapper",
    [
        DifferentialPrivacyServerSideFixedClipping,
        DifferentialPrivacyClientSideFixedClipping,
        DifferentialPrivacyServerSideAdaptiveClipping,
        DifferentialPrivacyClientSideAdaptiveClipping,
    ],
)
def test_in_flowers_wrappers_it_is_fedavg(wrapper: type[Strategy], zeros: ArrayRecord) -> None:
    results = [
        wrapped(wrapper, make()).start(InMemoryGrid(clipping_app(wrapper), 3), zeros, num_rounds=4)
        for make in (FedAvg, BufferedAsync)
    ]
    theirs, ours = (result.arrays["w"].numpy() for result in results)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    theirs, ours = (result.evaluate_metrics_clientapp[4]["error"] for result in results)
    assert ours == pytest.approx(theirs)


class OwnStart(BufferedAsync):
    """A strategy with a loop of its own, as a tutorial shows it."""

    def start(self, grid: Any, initial_arrays: ArrayRecord, num_rounds: int = 3) -> ArrayRecord:
        arrays, config = initial_arrays, ConfigRecord()
        for r in range(1, num_rounds + 1):
            replies = grid.send_and_receive(self.configure_train(r, arrays, config, grid))
            arrays = self.aggregate_train(r, replies)[0] or arrays
        return arrays


def test_a_subclass_may_have_its_own_start(zeros: ArrayRecord) -> None:
    """Failed and bad replies are left out of a round."""
    grid = InMemoryGrid(make_linear_app(), 4, faults=lambda i, k: "raise" if i == 3 else None)
    ours = OwnStart().start(grid, zeros, num_rounds=5)
    theirs = FedAvg(fraction_evaluate=0.0).start(InMemoryGrid(make_linear_app(), 3), zeros, 5)
    np.testing.assert_allclose(ours["w"].numpy(), theirs.arrays["w"].numpy(), rtol=1e-12)


def test_rounds_have_the_guard_the_bounds_and_the_rules_of_the_strategy(
    zeros: ArrayRecord,
) -> None:
    sent = {2: np.full(2, np.nan), 3: np.full(2, 20.0)}
    app = replying([1, 1, 1, 1, 1e9], lambda i: {"w": sent.get(i, np.full(2, 1.0 + 0.01 * i))})
    strategy = OwnStart(server_optimizer=SGD(0.5), max_failures=9)
    arrays = strategy.start(InMemoryGrid(app, 5), zeros, num_rounds=1)["w"].numpy()
    assert strategy.guard.rejections == {("finite", 1002): 1}
    assert np.all(arrays < 0.5 * (1 + 1.01 + 5 * 1.04 + 10 * 1.04) / 13 + 1e-6)
    assert np.all(np.isfinite(arrays))


def test_a_round_that_has_not_begun_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"call configure_train\(\) before"):
        BufferedAsync().aggregate_train(1, [])


def test_after_start_the_hooks_are_rounds_again(zeros: ArrayRecord) -> None:
    strategy = BufferedAsync(2, fraction_evaluate=0.0)
    strategy.start(InMemoryGrid(make_linear_app(), 3), zeros, num_rounds=2)
    grid = InMemoryGrid(make_linear_app(), 3)
    replies = grid.send_and_receive(strategy.configure_train(1, zeros, ConfigRecord(), grid))
    arrays, metrics = strategy.aggregate_train(1, replies)
    weights = np.array([steps(i) for i in range(3)])
    expected = sum(w * 0.5 * target(i) for i, w in enumerate(weights / weights.sum()))
    np.testing.assert_allclose(arrays["w"].numpy(), expected)
    assert metrics["loss"] == pytest.approx(weights @ [0, 1, 2] / weights.sum())
