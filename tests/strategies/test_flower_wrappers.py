"""Hooks without ``start``: in Flower's wrappers, and with a ``start`` of one's own."""

from typing import Any

import numpy as np
import pytest
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    Strategy,
)

from strategies import (
    SGD,
    BufferedAsync,
    InMemoryGrid,
)
from tests.strategies.apps import Recorder, replying
from tests.strategies.conftest import make_linear_app, steps, target


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


@pytest.mark.parametrize("make", [FedAvg, BufferedAsync])
def test_a_round_may_evaluate_without_training(
    make: type[Strategy], zeros: ArrayRecord, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells who failed, as that of FedAvg; without replies there is nothing to tell."""
    caplog.set_level("INFO", logger="flwr")
    grid = InMemoryGrid(Recorder().app, 3, faults=lambda i, k: "raise" if i == 2 else None)
    strategy = make()
    messages = strategy.configure_evaluate(1, zeros, ConfigRecord(), grid)
    metrics = strategy.aggregate_evaluate(1, grid.send_and_receive(messages))
    weights, errors = zip(*((steps(i), (target(i) ** 2).sum()) for i in (0, 1)), strict=True)
    assert metrics == {"error": pytest.approx(np.average(errors, weights=weights))}
    assert caplog.messages[-2:] == [
        "aggregate_evaluate: Received 2 results and 1 failures",
        "\t> Received error in reply from node 1002: scripted fault",
    ]
    caplog.clear()
    assert strategy.aggregate_evaluate(2, []) is None
    assert not caplog.messages


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
