"""Which replies are taken: as many as FedAvg takes, where that is safe."""

import numpy as np
import pytest
from flwr.app import (
    ArrayRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp.strategy import (
    FedAvg,
    Strategy,
)

from strategies import (
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
from tests.strategies.apps import replying
from tests.strategies.conftest import make_linear_app

PRESETS = [BufferedAsync, FAuNO, FedBuff, FedAsync, SyncBuffered]


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
