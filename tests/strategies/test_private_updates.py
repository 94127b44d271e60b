"""What leaves a node is clipped and noised, or nothing leaves it."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from strategies import CentralPrivacy, InMemoryGrid, ledger, private_mod
from strategies.arrays import to_record
from strategies.private_updates import privatize
from tests.strategies.apps import Recorder
from tests.strategies.conftest import TrainOnly

SIZE = 20_000


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@given(
    hnp.arrays(np.float32, (2, 5), elements=st.floats(-1e4, 1e4, width=32)),
    st.floats(1e-3, 1e3),
)
def test_without_noise_the_update_has_at_most_the_norm(values: np.ndarray, clip: float) -> None:
    received, trained = ({"a": v[:2], "b": v[2:]} for v in values.astype(np.float64))
    sent = privatize(to_record(trained), to_record(received), clip, 1e-12, rng())
    update = np.concatenate([sent[name].numpy() - received[name] for name in "ab"])
    wanted = np.concatenate([trained[name] - received[name] for name in "ab"])
    norm = float(np.linalg.norm(wanted))
    tolerance = 1e-9 * (clip + np.abs(values).max())
    assert np.linalg.norm(update) <= clip + tolerance
    assert np.allclose(update, wanted * min(1.0, clip / max(norm, 1e-300)), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_noise_is_normal_and_the_type_stays(dtype: type) -> None:
    zeros = to_record({"w": np.zeros((SIZE // 10, 10), dtype)})
    sent = privatize(zeros, zeros, 0.5, 3.0, rng())["w"].numpy()
    assert (sent.dtype, sent.shape) == (dtype, (SIZE // 10, 10))
    assert stats.kstest(sent.ravel(), "norm", args=(0.0, 1.5)).pvalue > 0.01


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_not_finite_stays(bad: float) -> None:
    with pytest.raises(ValueError, match="nothing is sent"):
        privatize(to_record({"w": np.full(2, bad)}), to_record({"w": np.zeros(2)}), 1, 1, rng())


def still_app(
    mod: Callable, arrays: Callable[[ArrayRecord], dict[str, ArrayRecord]] | None = None
) -> ClientApp:
    """Return an app that sends back what it was sent, or `arrays` of it."""
    app = ClientApp(mods=[mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        received = message.content.array_records["arrays"]
        sent = {"arrays": received} if arrays is None else arrays(received)
        metrics = MetricRecord({"num-examples": 1, "loss": 0.5})
        return Message(RecordDict({**sent, "metrics": metrics}), reply_to=message)

    return app


def sent_by(app: ClientApp, nodes: int = 2, versions: int = 3) -> list[np.ndarray]:
    """Return all updates that nodes have sent."""
    updates = []

    class Keeping(TrainOnly):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            for reply in replies:
                updates.append(reply.content["arrays"]["w"].numpy())
            return super().aggregate_train(server_round, replies)

    start = to_record({"w": np.zeros(4)})
    Keeping(1.0).start(InMemoryGrid(app, nodes), start, num_rounds=versions)
    return updates


@pytest.mark.parametrize("seed", [None, 5])
def test_no_two_updates_have_the_same_noise(seed: int | None) -> None:
    """Mutation: seeded without the count of its messages, a node would repeat its noise."""
    noisy = private_mod(1e-9, 1e9, seed=seed)
    noise = np.diff([np.zeros(4), *sent_by(still_app(noisy))], axis=0)
    assert len(np.unique(noise.round(9), axis=0)) == 6
    again = sent_by(still_app(private_mod(1e-9, 1e9, seed=seed)))
    assert np.array_equal(again, sent_by(still_app(noisy))) == (seed is not None)


@pytest.mark.parametrize(
    "arrays",
    [
        lambda received: {"arrays": received, "actor": received},
        lambda received: {"weights": received},
    ],
)
def test_arrays_that_would_leave_without_noise_do_not(
    arrays: Callable[[ArrayRecord], dict[str, ArrayRecord]],
) -> None:
    events: list[dict] = []
    strategy = TrainOnly(1.0, on_event=events.append, time_limit=3.0)
    grid = InMemoryGrid(still_app(private_mod(1.0, 1.0), arrays), 2)
    assert strategy.start(grid, to_record({"w": np.zeros(2)})).versions == 0
    errors = [event for event in events if event["event"] == "error"]
    assert errors
    assert all("must be ['arrays'] with private_mod()" in event["reason"] for event in errors)


def test_it_works_with_flowers_strategies_and_tells_what_it_does(zeros: ArrayRecord) -> None:
    inner, app = Recorder().app, ClientApp(mods=[private_mod(0.5, 2.0)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return inner(message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return inner(message, context)

    result = FedAvg().start(InMemoryGrid(app, 3), zeros, num_rounds=2)
    metrics = result.train_metrics_clientapp[2]
    assert metrics["privacy-clip"] == pytest.approx(0.5)
    assert metrics["privacy-noise-multiplier"] == pytest.approx(2.0)
    assert "loss" in metrics
    assert list(result.evaluate_metrics_clientapp) == [1, 2]


def test_without_the_accountant_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, zeros: ArrayRecord
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    ledger.epsilon_of.cache_clear()
    strategy = TrainOnly(privacy=CentralPrivacy(1.0, 1.0), weighted_by_key=None)
    with pytest.raises(ImportError, match=r"pip install 'flwr\[dp\]'"):
        strategy.start(InMemoryGrid(Recorder().app, 2), zeros)
