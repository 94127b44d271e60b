"""Rollouts counted out by time."""

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from fauno_flwr import client_app
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import TrainingConfig
from fauno_flwr.federation.protocol import ARRAYS, CONFIG, METRICS, ROLLOUTS
from fauno_flwr.federation.sizing import SizedAsync, SizedGuard, Sizer
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.learning.ppo import Population
from strategies.arrays import Layout, to_arrays, to_record
from strategies.flights import Flight
from strategies.grids import InMemoryGrid
from strategies.guard import RejectedError
from tests.fauno_flwr.tiny import AGENTS, TINY, ask, train_message

TARGET = 45.0


def sizer(**settings: float) -> Sizer:
    return Sizer(TrainingConfig(**settings), lambda node_id: node_id)


@given(start=st.floats(0, TARGET / 4), rollout=st.floats(TARGET / 500, TARGET / 4))
def test_a_message_comes_to_take_the_time_that_is_wanted(start: float, rollout: float) -> None:
    sized = sizer(seconds_per_message=TARGET)
    for _ in range(12):
        seconds = start + rollout * sized.request(0)
        sized.observe_reply(0, seconds)
    assert abs(start + rollout * sized.request(0) - TARGET) <= rollout


@given(st.lists(st.floats(0, 1e300)))
def test_whatever_the_latencies_messages_stay_within_bounds(latencies: list[float]) -> None:
    sized = sizer(seconds_per_message=TARGET)
    for seconds in latencies:
        before = sized.request(0)
        sized.observe_reply(0, seconds)
        assert 1 <= sized.request(0) <= min(before * sized.GROWTH, sized.training.most_rollouts)


def test_every_agent_has_its_own_pace_also_under_a_new_id() -> None:
    agents = {10: 0, 11: 1, 99: 0}
    sized = Sizer(TrainingConfig(seconds_per_message=TARGET), agents.__getitem__)
    assert [sized.request(10), sized.request(11)] == [2, 2]
    sized.observe_reply(10, TARGET / 4)
    assert [sized.request(99), sized.request(11)] == [8, 2]


def test_without_a_time_nothing_changes() -> None:
    sized = sizer()
    sized.request(0)
    sized.observe_reply(0, 0.001)
    assert sized.request(0) == TrainingConfig().rollouts


def test_a_silent_node_is_given_up_after_some_of_its_usual_times_and_ever_later() -> None:
    sized = sizer(seconds_per_message=TARGET)
    assert sized.wait(0) == 600.0
    sized.observe_reply(0, 50.0)
    assert [sized.wait(0), sized.wait(1)] == [200.0, 600.0]
    sized.observe_failure(0, 199.0)  # an error before the timeout
    assert sized.wait(0) == 200.0
    sized.observe_failure(0, 200.0)
    assert sized.wait(0) == 400.0
    sized.observe_failure(0, 405.0)
    assert sized.wait(0) == 600.0
    sized.observe_reply(0, 20.0)
    assert sized.wait(0) == sized.WAITS * TARGET
    assert sizer().wait(0) == 600.0


def test_a_lost_message_costs_a_node_little_time() -> None:
    """Its second message never comes: it is sent another one long before the longest time."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        metrics = MetricRecord({STEPS: 1, "seconds": 5.0})
        content = RecordDict({ARRAYS: message.content[ARRAYS], METRICS: metrics})
        return Message(content, reply_to=message)

    sized = Sizer(TrainingConfig(seconds_per_message=5.0), lambda node_id: node_id)
    reports: list[dict] = []
    grid = InMemoryGrid(app, 1, duration=5.0, faults=lambda i, k: "silent" if k == 1 else None)
    alone = {"min_train_nodes": 1, "min_available_nodes": 1}
    strategy = SizedAsync(sized, 1, weighted_by_key=STEPS, on_event=reports.append, **alone)
    strategy.start(grid, to_record({"w": np.zeros(2, np.float32)}), num_rounds=4, timeout=2000)
    assert strategy.version == 4
    assert sized.SHORTEST_WAIT < reports[-1]["t"] < 2 * sized.SHORTEST_WAIT


def test_a_node_trains_as_many_rollouts_as_it_is_asked_for() -> None:
    """Asked for n, it does what it does with ``training.rollouts=n``."""

    def critic(configured: int, asked: int) -> dict[str, np.ndarray]:
        config = load_config("ether2", [*TINY, f"training.rollouts={configured}"])
        grid = InMemoryGrid(client_app.app, AGENTS)
        message = train_message(grid, config, 0, 0)
        message.content.config_records[CONFIG][ROLLOUTS] = asked
        return to_arrays(ask(grid, message).content.array_records[ARRAYS])

    def differ(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
        return any(not np.array_equal(array, two[name]) for name, array in one.items())

    assert not differ(critic(2, 8), critic(8, 8))
    assert differ(critic(2, 8), critic(2, 2))


@pytest.mark.parametrize("claimed", [1e-3, 1e300, None])
def test_a_training_learns_how_much_to_ask_of_each_node(claimed: float | None) -> None:
    """Node i takes i + 1 seconds for a rollout: in 60 s it is asked for 60 / (i + 1).

    Whatever it says about its time.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        claim = {} if claimed is None else {"seconds": claimed}
        metrics = MetricRecord({STEPS: 1, **claim})
        content = RecordDict({ARRAYS: message.content[ARRAYS], METRICS: metrics})
        return Message(content, reply_to=message)

    sized = Sizer(TrainingConfig(seconds_per_message=60), lambda node_id: node_id)
    reports: list[dict] = []
    strategy = SizedAsync(
        sized, 3, weighted_by_key=STEPS, guard=SizedGuard(sized), on_event=reports.append
    )
    grid = InMemoryGrid(app, 3, duration=lambda i, k: (i + 1.0) * sized.requested(1000 + i))
    strategy.start(grid, to_record({"w": np.zeros(2, np.float32)}), num_rounds=8)
    last = {event["node"]: event["rollouts"] for event in reports if event["event"] == "reply"}
    assert sorted(last.values()) == [20, 30, 60]


def test_more_steps_than_were_asked_for_are_rejected() -> None:
    config = load_config("ether2", TINY)
    grid = InMemoryGrid(client_app.app, AGENTS)
    reply = ask(grid, train_message(grid, config, 0, 0))
    training = TrainingConfig(worlds=2, ticks=40, seconds_per_message=TARGET)
    sized = Sizer(training, lambda node_id: 0)
    guard = SizedGuard(sized)
    critic = Population(1, config.agent, config.seed).get_critic()
    layout = Layout(critic)
    guard.begin(layout, "arrays", STEPS)
    flight = Flight("m", 1000, 1000, 0, 0.0, 60.0, MessageType.TRAIN)
    most = 2 * 40 * sized.request(1000)
    for steps in (most, most + 1):
        reply.content.metric_records[METRICS][STEPS] = steps
        if steps == most:
            update = guard.check(reply, flight, layout.flatten(critic), 0.0)
            assert np.isfinite(update.norm)
        else:
            with pytest.raises(RejectedError, match="the steps that were requested"):
                guard.check(reply, flight, layout.flatten(critic), 0.0)
