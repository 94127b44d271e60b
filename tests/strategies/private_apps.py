"""Federations for the tests of privacy, and epsilon as dp-accounting itself computes it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from strategies import (
    CentralPrivacy,
    LocalPrivacy,
    TrainingResult,
)
from strategies.arrays import to_record
from strategies.grids import InMemoryGrid
from strategies.merge import NoisyMean
from tests.strategies.conftest import TrainOnly

dp_accounting = pytest.importorskip("dp_accounting")
rdp = pytest.importorskip("dp_accounting.rdp")

NODES, SIZE, MESSAGES = 4, 3, 6
DELTA = 1e-5


def composed(counts: dict[float, int], delta: float = DELTA) -> float:
    """Return epsilon as dp-accounting itself computes it."""
    accountant = rdp.RdpAccountant()
    for noise_multiplier, count in counts.items():
        for _ in range(count):
            accountant.compose(dp_accounting.GaussianDpEvent(noise_multiplier))
    return accountant.get_epsilon(delta)


def moving_app(updates: np.ndarray, mods: Any = None) -> ClientApp:
    """Return an app in which the k-th update of node i is ``updates[i, k]``."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        k = int(context.state.metric_records.get("seen", {"k": 0})["k"])
        context.state["seen"] = MetricRecord({"k": k + 1})
        theta = message.content["arrays"]["w"].numpy()
        arrays = to_record({"w": theta + updates[i, k % updates.shape[1]]})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"loss": float(i)})})
        return Message(content, reply_to=message)

    return app


def train(
    app: ClientApp,
    privacy: CentralPrivacy | LocalPrivacy | None,
    buffer_size: float = 1.0,
    *,
    versions: int = 5,
    size: int = SIZE,
    dtype: type = np.float64,
    duration: Callable[[int, int], float] | float = 1.0,
    **others: Any,
) -> TrainingResult:
    """Train without weights on :data:`NODES` nodes."""
    strategy = TrainOnly(buffer_size, weighted_by_key=None, privacy=privacy, **others)
    grid = InMemoryGrid(app, NODES, duration=duration)
    return strategy.start(grid, to_record({"w": np.zeros(size, dtype)}), num_rounds=versions)


def steps_of(updates: np.ndarray, clip: float, buffer_size: float, **others: Any) -> np.ndarray:
    """Return what each version adds to the one before, without noise."""
    made = [np.zeros(SIZE)]

    class Noiseless(CentralPrivacy):
        def rule(self, release: int) -> NoisyMean:
            return NoisyMean(0.0, np.random.default_rng())

    train(
        moving_app(updates),
        Noiseless(clip, 1.0),
        buffer_size,
        duration=lambda partition_id, _: 1.0 + partition_id / 3,
        on_version=lambda version, arrays, metrics: made.append(arrays["w"].numpy()),
        **others,
    )
    return np.diff(made, axis=0)
