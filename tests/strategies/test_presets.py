"""The presets against the rules of their papers, written out in numpy."""

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import SGD, Adam, FAuNO, FedAsync, FedBuff, Median, SyncBuffered
from strategies.arrays import to_record
from strategies.grids import InMemoryGrid
from tests.strategies.conftest import TrainOnly, make_linear_app, steps, target

TIMES = [1.0, 1.7, 2.9]


def weights(record: ArrayRecord) -> np.ndarray:
    return record["w"].numpy()


def test_fedasync_is_the_papers_mixing(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    """``theta <- (1 - a) theta + a theta_m``, ``a = 0.6 (1 + tau)^-0.5``, written out."""
    history = [np.zeros(2)]
    due = {i: (TIMES[i], 0) for i in range(3)}
    for version in range(25):
        node = min(due, key=lambda i: (due[i][0], i))
        time, base = due[node]
        trained = history[base] + 0.5 * (target(node) - history[base])
        a = 0.6 * (1 + version - base) ** -0.5
        history.append((1 - a) * history[-1] + a * trained)
        due[node] = (time + TIMES[node], version + 1)
    grid = InMemoryGrid(linear_app, 3, duration=lambda i, k: TIMES[i])
    result = FedAsync(fraction_evaluate=0.0).start(grid, zeros, num_rounds=25)
    np.testing.assert_allclose(weights(result.arrays), history[-1], rtol=1e-12)


def test_fedbuff_divides_by_k(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    """Algorithm 1 of Nguyen et al.: rate times the sum of s(tau) delta, over K."""
    history = [np.zeros(2)]
    buffer: dict[int, tuple[int, np.ndarray]] = {}
    due = {i: (TIMES[i], 0) for i in range(3)}
    while len(history) <= 15:
        node = min(due, key=lambda i: (due[i][0], i))
        time, base = due[node]
        buffer[node] = (base, 0.5 * (target(node) - history[base]))
        if len(buffer) == 2:
            version = len(history) - 1
            total = sum((1 + version - b) ** -0.5 * delta for b, delta in buffer.values())
            history.append(history[-1] + 0.7 * total / 2)
            buffer = {}
        due[node] = (time + TIMES[node], len(history) - 1)
    grid = InMemoryGrid(linear_app, 3, duration=lambda i, k: TIMES[i])
    result = FedBuff(2, rate=0.7, fraction_evaluate=0.0).start(grid, zeros, num_rounds=15)
    np.testing.assert_allclose(weights(result.arrays), history[-1], rtol=1e-12)


def test_sync_buffered_is_fedavg_whatever_the_times(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    times = [1.0, 7.0, 2.0, 0.3, 100.0]
    ours = SyncBuffered(fraction_evaluate=0.0).start(
        InMemoryGrid(linear_app, 5, duration=lambda i, k: times[i]), zeros, num_rounds=11
    )
    theirs = FedAvg(fraction_evaluate=0.0).start(
        InMemoryGrid(linear_app, 5, duration=lambda i, k: times[i]), zeros, num_rounds=11
    )
    np.testing.assert_allclose(weights(ours.arrays), weights(theirs.arrays), rtol=1e-12)


def test_a_preset_takes_every_setting(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    strategy = FedBuff(
        2, staleness=None, fraction_evaluate=0.0, weighted_by_key="num-examples", merge=Median()
    )
    assert (strategy.buffer_size, strategy.weighted_by_key) == (2, "num-examples")
    assert isinstance(FAuNO().server_optimizer, SGD)
    assert FAuNO().updates_needed(5) == 3
    result = strategy.start(InMemoryGrid(linear_app, 2), zeros, num_rounds=1)
    np.testing.assert_allclose(weights(result.arrays), (target(0) + target(1)) / 4)


def test_momentum_and_adam_reach_the_model(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    for optimizer, again in ((SGD(0.5, 0.9), SGD(0.5, 0.9)), (Adam(), Adam())):
        strategy = TrainOnly(1.0, server_optimizer=optimizer)
        result = strategy.start(InMemoryGrid(linear_app, 2), zeros, num_rounds=6)
        theta, n = np.zeros(2), np.array([steps(0), steps(1)])
        for _ in range(6):
            deltas = [0.5 * (target(i) - theta) for i in range(2)]
            theta = again.step(theta, sum(w * d for w, d in zip(n / n.sum(), deltas, strict=True)))
        np.testing.assert_allclose(weights(result.arrays), theta, rtol=1e-12)
        # A second training starts with an empty state.
        second = strategy.start(InMemoryGrid(linear_app, 2), zeros, num_rounds=6)
        assert np.array_equal(weights(second.arrays), weights(result.arrays))


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(4)))
def test_the_order_of_arrival_within_a_version_changes_nothing(order: list[int]) -> None:
    zeros = to_record({"w": np.zeros(2)})
    grid = InMemoryGrid(make_linear_app(), 4, duration=lambda i, k: 1.0 + 0.1 * order.index(i))
    result = SyncBuffered(fraction_evaluate=0.0).start(grid, zeros, num_rounds=3)
    in_order = SyncBuffered(fraction_evaluate=0.0).start(
        InMemoryGrid(make_linear_app(), 4), zeros, num_rounds=3
    )
    assert np.array_equal(weights(result.arrays), weights(in_order.arrays))


def test_concurrency_is_kept_and_drawn_by_seed(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    def run(seed: int) -> tuple[list[int], int, set[int]]:
        events: list[dict] = []
        grid = InMemoryGrid(linear_app, 10, duration=lambda i, k: 1.0 + 0.1 * i)
        TrainOnly(3, concurrency=4, seed=seed, on_event=events.append).start(
            grid, zeros, num_rounds=20
        )
        flying, most = 0, 0
        for event in events:
            flying += {"dispatch": 1, "reply": -1}.get(event["event"], 0)
            most = max(most, flying)
        nodes = [event["node"] for event in events if event["event"] == "dispatch"]
        return nodes, most, set(nodes)

    nodes, most, seen = run(1)
    assert most == 4
    assert len(seen) == 10
    assert run(1)[0] == nodes
    assert run(2)[0] != nodes


@pytest.mark.parametrize("refill", ["reply", "version"])
def test_refill(linear_app: ClientApp, zeros: ArrayRecord, refill: str) -> None:
    events: list[dict] = []
    grid = InMemoryGrid(linear_app, 2, duration=lambda i, k: (1.0, 3.5)[i])
    TrainOnly(2, refill=refill, on_event=events.append).start(grid, zeros, num_rounds=2)
    sent = [e["node"] for e in events if e["event"] == "dispatch"]
    assert sent.count(1000) == (7 if refill == "reply" else 2)
    assert all(e["replaced"] is False for e in events if e["event"] == "reply") == (
        refill == "version"
    )
