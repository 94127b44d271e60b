"""The parts of a session: K, flushes by their replies, and a state that survives a round trip."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from strategies import Adam, BufferedAsync
from strategies.arrays import to_record
from strategies.buffer import require_buffer_size, updates_needed
from strategies.flower_internals import set_metadata
from strategies.grids import InMemoryGrid
from strategies.latency import Latency
from strategies.session import Session
from tests.strategies.conftest import TrainOnly, steps, target
from tests.strategies.test_checkpoint import walking_app


@pytest.mark.parametrize(
    ("buffer_size", "nodes", "needed"),
    [
        *((1, 8, 1), (3, 8, 3), (3, 2, 3)),
        *((0.5, 8, 4), (0.5, 7, 4), (0.01, 8, 1), (0.5, 0, 1)),
        *((1.0, 8, 8), (3.0, 8, 3)),
    ],
)
def test_k_by_hand(buffer_size: float, nodes: int, needed: int) -> None:
    """An int counts nodes, a float up to 1.0 is a fraction: 1 is one node, 1.0 is all of them."""
    require_buffer_size(buffer_size)
    assert updates_needed(buffer_size, nodes) == needed
    assert TrainOnly(buffer_size).updates_needed(nodes) == needed


@given(st.floats(0, 1, exclude_min=True), st.integers(0, 1000))
def test_a_fraction_needs_at_least_one_update_and_at_most_all(fraction: float, nodes: int) -> None:
    needed = updates_needed(fraction, nodes)
    assert 1 <= needed <= max(1, nodes)
    assert needed >= fraction * nodes


@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, 1.5, float("nan"), float("inf"), True, "all"])
def test_other_buffer_sizes_are_rejected_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match=f"K is {value!r}: must be a whole number of nodes, or"):
        require_buffer_size(value, "K")


def test_weights_are_computed_once_per_version(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    class Counting(BufferedAsync):
        calls = 0

        def weights(self, updates: list, version: int) -> np.ndarray:
            self.calls += 1
            return super().weights(updates, version)

    strategy = Counting(2)
    strategy.start(InMemoryGrid(linear_app, 3), zeros, num_rounds=7)
    assert strategy.calls == 7


def test_a_version_is_made_from_the_replies_that_aggregate_train_gets(
    linear_app: ClientApp, zeros: ArrayRecord
) -> None:
    """As in Flower, a subclass may select the replies; the others are discarded with the flush."""

    class WithoutFirst(BufferedAsync):
        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple:
            kept = [reply for reply in replies if reply.metadata.src_node_id != 1000]
            return super().aggregate_train(server_round, kept)

    result = WithoutFirst(3).start(InMemoryGrid(linear_app, 3), zeros, num_rounds=1)
    n = np.array([steps(1), steps(2)])
    expected = sum(w * 0.5 * target(i + 1) for i, w in enumerate(n / n.sum()))
    np.testing.assert_allclose(result.arrays["w"].numpy(), expected, rtol=1e-12)
    loss = (1.0 * steps(1) + 2.0 * steps(2)) / n.sum()
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx(loss)


def test_a_subclass_may_aggregate_by_itself(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    class Last(BufferedAsync):
        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple:
            *_, last = replies
            return last.content["arrays"], MetricRecord({"version": server_round})

    result = Last(2).start(InMemoryGrid(linear_app, 2), zeros, num_rounds=2)
    np.testing.assert_allclose(result.arrays["w"].numpy(), 0.75 * target(1))
    assert result.train_metrics_clientapp[2] == {"version": 2}


def test_a_reply_that_was_not_buffered_is_named(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    class Inventive(TrainOnly):
        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple:
            question = Message(RecordDict(), dst_node_id=1000, message_type="train")
            set_metadata(question, message_id="m-17")
            return super().aggregate_train(2, [Message(RecordDict(), reply_to=question)])

    with pytest.raises(ValueError, match="the reply to message 'm-17' has no update in the buffer"):
        Inventive(2).start(InMemoryGrid(linear_app, 2), zeros, num_rounds=1)


def make_session() -> Session:
    """Return a session that has not begun."""
    grid = InMemoryGrid(
        walking_app(),
        6,
        duration=Latency(speeds=(1, 2, 3), jitter=0.3),
        faults={"raise": 0.1, "silent": 0.05, "duplicate": 0.1},
    )
    strategy = TrainOnly(
        3, server_optimizer=Adam(), ttl=6.0, fraction_evaluate=0.5, poll_interval=1.0
    )
    strategy.session = Session(
        strategy, grid, to_record({"w": np.zeros(3)}), ConfigRecord(), ConfigRecord(), None
    )
    strategy.session.goal = 1000
    return strategy.session


@pytest.mark.parametrize("taken_steps", [0, 1, 20, 60])
def test_a_loaded_session_has_the_state_that_was_saved(taken_steps: int) -> None:
    session, other = make_session(), make_session()
    for _ in range(taken_steps):
        session.step()
    state, tensors = session.state()
    other.load(json.loads(json.dumps(state)), tensors)
    again, same = other.state()
    assert json.dumps(again) == json.dumps(state)
    assert same.keys() == tensors.keys()
    for name in tensors:
        if name.startswith(("base/", "optimizer/", "evaluated/")):
            np.testing.assert_array_equal(same[name], tensors[name])
    for each in (session, other):
        for _ in range(30):
            each.step()
    assert json.dumps(other.state()[0]) == json.dumps(session.state()[0])
    assert session.version > 0


def test_no_reply_makes_it_look_at_all_nodes(linear_app: ClientApp, zeros: ArrayRecord) -> None:
    """It looks once per `refresh_interval`, however many replies arrive meanwhile."""
    looks: list[float] = []
    grid = InMemoryGrid(linear_app, 50, duration=lambda i, k: 0.5 + 0.01 * i)

    def nodes(_: object) -> list[int]:
        looks.append(grid.clock.monotonic())
        return list(grid.get_node_ids())

    strategy = TrainOnly(5, nodes=nodes, refresh_interval=2.0)
    strategy.start(grid, zeros, num_rounds=100)
    assert len(looks) <= grid.clock.monotonic() / 2.0 + 1
    assert strategy.version == 100


@pytest.mark.parametrize("refill", ["reply", "version"])
def test_nodes_that_have_reported_are_sent_on_at_once(
    linear_app: ClientApp, zeros: ArrayRecord, refill: str
) -> None:
    """Not only when it looks next, which it does once in this training."""
    events: list[dict] = []
    grid = InMemoryGrid(linear_app, 4, duration=1.0)
    strategy = TrainOnly(4, refill=refill, refresh_interval=1e9, on_event=events.append)
    strategy.start(grid, zeros, num_rounds=10)
    assert grid.clock.monotonic() == 10.0
    assert len([e for e in events if e["event"] == "dispatch"]) == 40
