"""How a training ends, and what time it may take, beside Flower's strategies."""

import numpy as np
import pytest
from flwr.app import (
    DEFAULT_TTL,
    ArrayRecord,
    MetricRecord,
)
from flwr.serverapp.strategy import (
    FedAvg,
    Result,
    Strategy,
)

from strategies import (
    BufferedAsync,
    InMemoryGrid,
    SyncBuffered,
    TrainingFailedError,
)
from strategies.deadlines import Deadlines
from tests.strategies.apps import Recorder
from tests.strategies.conftest import make_linear_app, steps, target

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
