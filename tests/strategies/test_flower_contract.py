"""What a user of Flower's strategies may rely on, from Flower's documentation of ``Strategy``.

Each test states a part of the contract that holds for ``FedAvg``. Where a version of the model is
something else than a round, the test says what holds instead; docs/strategies.md lists all of it.
"""

import inspect
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    FedAvg,
    Result,
    Strategy,
)

from strategies import (
    BufferedAsync,
    FAuNO,
    FedAsync,
    FedBuff,
    InMemoryGrid,
    SyncBuffered,
)
from tests.strategies.apps import Recorder
from tests.strategies.conftest import make_linear_app

PRESETS = [BufferedAsync, FAuNO, FedBuff, FedAsync, SyncBuffered]


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


@pytest.mark.parametrize("make", [FedAvg, SyncBuffered, BufferedAsync])
def test_a_subclass_may_change_the_config_once_in_a_round(
    make: type[Strategy], zeros: ArrayRecord
) -> None:
    """As Flower's guide to the configuration of clients does, for a learning rate that decays."""

    class Decay(make):  # type: ignore[misc, valid-type]
        def configure_train(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            if server_round % 2 == 0:
                config["rates"] = [0.5 * rate for rate in config["rates"]]
            return super().configure_train(server_round, arrays, config, grid)

        def configure_evaluate(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            config["times"] += 1
            return super().configure_evaluate(server_round, arrays, config, grid)

    seen = Recorder()
    grid = InMemoryGrid(seen.app, 3, duration=lambda i, k: (0.4, 1.0, 5.3)[i])
    configs = ConfigRecord({"rates": [0.1]}), ConfigRecord({"times": 0})
    Decay().start(grid, zeros, 7, train_config=configs[0], evaluate_config=configs[1])
    times = {}
    for kind, _, config in seen.sent:
        number = config["server-round"]
        if kind == "train":
            assert config["rates"] == [0.1 * 0.5 ** (number // 2)]
        else:
            times.setdefault(number, set()).add(config["times"])
    assert list(times.values()) == [{count} for count in range(1, len(times) + 1)]


def test_a_hook_is_called_when_nodes_are_to_start(zeros: ArrayRecord) -> None:
    """And not with every poll: it may count or log what it sends."""
    sent: list[int] = []

    class Counting(SyncBuffered):
        def configure_train(self, *arguments: Any) -> Iterable[Message]:
            messages = list(super().configure_train(*arguments))
            sent.append(len(messages))
            return messages

    grid = InMemoryGrid(make_linear_app(), 3, duration=lambda i, k: 1.0 + 3.0 * i)
    Counting(fraction_evaluate=0.0).start(grid, zeros, num_rounds=4)
    assert sent == [3] * 4


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
