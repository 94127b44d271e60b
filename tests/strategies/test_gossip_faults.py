"""Gossip when nodes leave, are silent, or send what they should not."""

from typing import Any

import networkx as nx
import numpy as np
import pytest
from flwr.app import (
    DEFAULT_TTL,
    Array,
    ArrayRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from strategies import Gossip, InMemoryGrid, TrainingFailedError, gossip_mod
from strategies.arrays import to_record
from strategies.gossip import both_ways, merge_models
from strategies.neighbourhood import MOST_GONE, Neighbourhood
from tests.strategies.conftest import make_linear_app, target
from tests.strategies.test_gossip import gossiping, models, zeros

Events = list[dict[str, Any]]


def replying(values: Any, steps: Any = lambda i: 1) -> ClientApp:
    """Return an app whose node i sends ``values(i, message)``."""
    app = ClientApp(mods=[gossip_mod()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        arrays = to_record({"w": values(i, message.content["arrays"]["w"].numpy())})
        metrics = MetricRecord({"num-examples": steps(i), "loss": float(i)})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


# ---- nodes that leave ------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [nx.complete_graph(20), lambda members: nx.complete_graph(0)])
def test_models_outlive_a_moment_without_nodes(graph: Any) -> None:
    """As when the network of the server is down: everybody goes on from its own model."""
    away = (10.5, 13.5)

    def nodes(grid: Any) -> list[int]:
        online = away[0] < grid.clock.monotonic() < away[1]
        return [] if online else list(grid.get_node_ids())

    trained: list[tuple[float, int]] = []
    app, healthy = ClientApp(mods=[gossip_mod()]), make_linear_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(message.content["config"]["server-round"])
        trained.append((grid.clock.monotonic(), number))
        return healthy(message, context)

    grid = InMemoryGrid(app, 20)
    Gossip(graph=graph, nodes=nodes, fraction_evaluate=0.0).start(grid, zeros(), 20)
    assert min(number for time, number in trained if time > away[1]) > 5


def test_members_that_left_first_are_forgotten_first() -> None:
    places = Neighbourhood(lambda members: nx.complete_graph(members), None, zeros())
    for first in range(0, 100, 2):
        places.update([first, first + 1])
        for member in (first, first + 1):
            places.members[member].sent = dict.fromkeys(places.members, 1)
            places.receive(member, zeros(), 1.0)
    kept = 2 * 2 + MOST_GONE
    assert sorted(places.members) == list(range(100 - kept, 100))
    assert all(state.merged.keys() <= places.members.keys() for state in places.members.values())


def test_the_news_of_a_member_that_was_forgotten_and_returns_counts() -> None:
    places = Neighbourhood(lambda members: nx.complete_graph(members), None, zeros())
    places.update([1, 2])
    for _ in range(5):
        places.receive(1, zeros(), 1.0)
    places.members[2].sent = {1: places.members[1].number}  # on its way while 1 is forgotten
    del places.members[1]
    places.update([1, 2])
    places.receive(2, zeros(), 1.0)
    assert places.news(2) == []
    places.receive(1, zeros(), 1.0)
    assert places.news(2) == [1]


def test_a_node_that_joins_late_is_compared_with_where_it_starts() -> None:
    """However far the others have gone by then: its first model is not an outlier."""
    app = replying(lambda i, w: w + 1.0)
    events: Events = []
    grid = InMemoryGrid(app, 5, presence={4: [(200.5, 1e9)]})
    strategy = Gossip(1.0, on_event=events.append, fraction_evaluate=0.0)
    strategy.start(grid, zeros(), 220)
    assert not [event for event in events if event["event"] == "reject"]
    assert [event for event in events if event["event"] == "reply" and event["node"] == 1004]


def test_nodes_of_one_place_or_of_none_do_not_take_part(caplog: pytest.LogCaptureFixture) -> None:
    """Node 1004 is the member 0 too, node 1005 none of the graph."""
    members = {1000: 0, 1001: 1, 1002: 2, 1003: 3, 1004: 0, 1005: 99}
    grid = InMemoryGrid(gossiping(), 6)
    strategy = Gossip(1.0, graph=nx.cycle_graph(4), member_of=members.__getitem__)
    result = strategy.start(grid, zeros(), 3)
    assert sorted(result.models) == [0, 1, 2, 3]
    assert "2 nodes have no place in the graph" in caplog.text


def test_the_reply_of_a_node_whose_place_another_has_is_stale() -> None:
    """Only the newest of two ids of a member counts, and nobody is punished."""
    events: Events = []
    grid = InMemoryGrid(gossiping(), 3, duration=lambda i, k: 5.0 if i == 0 else 1.0)

    def nodes(grid: Any) -> list[int]:
        return [1000, 1001] if grid.clock.monotonic() < 2.5 else [1001, 1002]

    strategy = Gossip(
        1,
        graph={0: [1]},
        member_of={1000: 0, 1001: 1, 1002: 0}.__getitem__,
        nodes=nodes,
        on_event=events.append,
        poll_interval=0.5,
        fraction_evaluate=0.0,
    )
    strategy.start(grid, zeros(), 10)
    (rejected,) = [event for event in events if event["event"] == "reject"]
    assert (rejected["node"], rejected["check"], rejected["pause"]) == (1000, "stale", 0.0)


# ---- nodes that fail or are silent -----------------------------------------------------------


def test_nobody_waits_for_a_neighbour_that_keeps_failing() -> None:
    grid = InMemoryGrid(gossiping(), 5, faults=lambda i, k: "raise" if i == 0 else None)
    result = Gossip(1.0, fraction_evaluate=0.0).start(grid, zeros(), 20)
    assert result.versions == 20
    assert grid.clock.monotonic() < 100


def test_a_silent_neighbour_holds_the_others_up_for_the_timeout_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    grid = InMemoryGrid(gossiping(), 5, faults=lambda i, k: "silent" if i == 0 else None)
    strategy = Gossip(1.0, graph=nx.star_graph(4), poll_interval=1.0, fraction_evaluate=0.0)
    assert strategy.start(grid, zeros(), 3, timeout=100).versions == 3
    assert "4 nodes train without news of K neighbours: timeout = 100 s is over" in caplog.text


def test_k_counts_the_neighbours_that_are_online() -> None:
    """The news of one that has left is merged, but does not replace that of another."""
    places = Neighbourhood(nx.star_graph(3), None, zeros())
    places.update([10, 11, 12, 13])
    for member in (0, 1, 2):
        places.receive(member, zeros(), 1.0)
    places.update([10, 12, 13])
    assert places.news(0) == [1, 2]
    assert not places.may_train(0, 2, lambda node_id: False)
    places.receive(3, zeros(), 1.0)
    assert places.may_train(0, 2, lambda node_id: False)


def test_a_banned_node_is_sent_nothing_before_the_next_look() -> None:
    app = replying(lambda i, w: np.full(2, np.nan) if i == 0 else w)
    events: Events = []
    strategy = Gossip(1, refresh_interval=1e6, backoff=0.0, max_backoff=0.0, on_event=events.append)
    strategy.start(InMemoryGrid(app, 4), zeros(), 20)
    names = [event["event"] for event in events if event.get("node") == 1000]
    assert names[-1] == "ban"


# ---- evaluation ------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["train", "evaluate"])
def test_the_end_waits_no_longer_than_the_timeout_for_an_evaluation(where: str) -> None:
    """Node 0 hangs while it trains, or while it evaluates, after the first round."""
    first = 1 if where == "evaluate" else 2

    def fault(i: int, k: int) -> str | None:
        return "silent" if i == 0 and k >= first else None

    grid = InMemoryGrid(gossiping(), 4, faults=fault)
    result = Gossip(1, poll_interval=1.0).start(grid, zeros(), 3, timeout=200)
    assert "error" in result.evaluate_metrics_clientapp[3]
    assert grid.clock.monotonic() < 1000


def test_metrics_of_an_evaluation_are_those_of_its_round() -> None:
    """The slow node evaluates a round in the middle of a later one."""
    app, trained = ClientApp(mods=[gossip_mod()]), make_linear_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return trained(message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        number = int(message.content["config"]["server-round"])
        metrics = MetricRecord({"num-examples": 1, "round": number})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    events: Events = []
    grid = InMemoryGrid(app, 5, duration=lambda i, k: 7.0 if i == 0 else 1.0)
    result = Gossip(1, on_event=events.append).start(grid, zeros(), 12)
    found = {n: each["round"] for n, each in result.evaluate_metrics_clientapp.items()}
    assert found == {number: pytest.approx(number) for number in found}
    assert max(found) == 12
    done = {event["version"]: event["nodes"] for event in events if event["event"] == "evaluated"}
    assert done == dict.fromkeys(found, 5)


def test_should_stop_is_asked_about_rounds_that_are_evaluated() -> None:
    seen: list[int] = []

    def should_stop(number: int, result: Any) -> bool:
        seen.append(number)
        return float(result.evaluate_metrics_clientapp[number]["error"]) < 1e9 and number >= 3

    result = Gossip(1.0).start(InMemoryGrid(gossiping(), 4), zeros(), 50, should_stop=should_stop)
    assert result.ended_by == "should_stop"
    assert result.versions < 50
    assert seen == sorted(set(seen))


# ---- what nodes send -------------------------------------------------------------------------


def test_models_are_carried_in_the_types_of_the_initial_arrays() -> None:
    seen: set[str] = set()

    def values(i: int, w: np.ndarray) -> np.ndarray:
        seen.add(str(w.dtype))
        return np.asarray(w + i, np.float64)

    initial = ArrayRecord({"w": Array(np.zeros(2, np.float32))})
    strategy = Gossip(0.5, fraction_evaluate=0.0)
    result = strategy.start(InMemoryGrid(replying(values), 4), initial, 5)
    assert seen == {"float32"}
    assert {record["w"].dtype for record in result.models.values()} == {"float32"}


def test_one_node_with_many_steps_does_not_make_the_mean() -> None:
    app = replying(lambda i, w: target(i), lambda i: 1e300 if i == 0 else 1)
    strategy = Gossip(0.5, fraction_evaluate=0.0)
    result = strategy.start(InMemoryGrid(app, 6), zeros(), 3)
    share = 10 / (10 + 5)
    others = np.mean([target(i) for i in range(1, 6)], axis=0)
    expected = share * target(0) + (1 - share) * others
    np.testing.assert_allclose(result.arrays["w"].numpy(), expected)
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx((1 - share) * 3)


def test_the_result_is_the_mean_of_its_models_though_nodes_go_on() -> None:
    """Also of models that arrive while others evaluate."""
    grid = InMemoryGrid(gossiping(), 4, duration=lambda i, k: 1.0 + 0.7 * i)
    result = Gossip(1, weighted_by_key=None).start(grid, zeros(), 4)
    np.testing.assert_allclose(result.arrays["w"].numpy(), models(result).mean(axis=0))


def test_what_arrives_after_the_last_round_is_awaited_and_counts_nowhere() -> None:
    grid = InMemoryGrid(gossiping(), 5, duration=lambda i, k: 100.0 if i == 4 else 1.0)
    events: Events = []
    strategy = Gossip(0.5, fraction_evaluate=0.0, on_event=events.append)
    result = strategy.start(grid, zeros(), 6)
    before, mean, sent = models(result), result.arrays["w"].numpy(), len(events)
    assert grid.clock.monotonic() < 100
    assert strategy.drain(grid, timeout=10) == 1  # the slow one
    assert strategy.drain(grid, timeout=1000) == 0
    assert 100 <= grid.clock.monotonic() < 101  # no longer than the slow one takes
    assert {event["event"] for event in events[sent:]} == {"reply"}
    np.testing.assert_array_equal(models(result), before)
    np.testing.assert_array_equal(result.arrays["w"].numpy(), mean)
    assert result.versions == 6


def test_a_drained_training_leaves_the_next_one_alone() -> None:
    strategy, grid = Gossip(0.5), InMemoryGrid(gossiping(), 4)
    strategy.start(grid, zeros(), 2)
    assert strategy.drain(grid, timeout=10) == 0
    again = strategy.start(grid, zeros(), 3)
    fresh = Gossip(0.5).start(InMemoryGrid(gossiping(), 4), zeros(), 3)
    np.testing.assert_array_equal(models(again), models(fresh))


def test_failures_and_bad_replies_after_the_end_are_reported_and_end_nothing() -> None:
    grid = InMemoryGrid(
        replying(lambda i, w: w + (np.nan if i == 3 else 1.0)),
        4,
        duration=lambda i, k: 20.0 if i > 1 else 1.0,
        faults=lambda i, k: "raise" if i == 2 else None,
    )
    events: Events = []
    strategy = Gossip(1, fraction_evaluate=0.0, on_event=events.append)
    strategy.start(grid, zeros(), 3)
    sent = len(events)
    assert strategy.drain(grid, timeout=1000) == 0
    found = [event["event"] for event in events[sent:]]
    assert (found.count("error"), found.count("reject")) == (1, 1)


def test_nothing_is_in_flight_before_a_training() -> None:
    assert Gossip().drain(InMemoryGrid(gossiping(), 2), timeout=10) == 0


def test_large_integers_are_merged_within_their_range() -> None:
    own = {"n": np.array([2**63 - 1, -(2**63)])}
    merged = merge_models(own, [own], [0.5])
    assert (merged["n"] > 0).tolist() == [True, False]


# ---- settings --------------------------------------------------------------------------------


def test_a_graph_works_in_both_directions_without_loops() -> None:
    graph = nx.DiGraph([(1, 2), (2, 2), (3, 1)])
    assert both_ways(graph) == {1: {2, 3}, 2: {1}, 3: {1}}


def test_a_callable_that_returns_no_graph_is_named() -> None:
    strategy = Gossip(graph=lambda members: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="graph is None: must be a mapping"):
        strategy.start(InMemoryGrid(gossiping(), 3), zeros(), 1)


def test_arrays_without_a_value_are_refused() -> None:
    with pytest.raises(ValueError, match="initial_arrays holds no value"):
        Gossip().start(InMemoryGrid(gossiping(), 3), to_record({"w": np.zeros(0)}), 1)


def test_the_time_to_live_before_a_training_is_flowers() -> None:
    assert Gossip().time_to_live(1) == DEFAULT_TTL
    assert Gossip(ttl=3.0).time_to_live(1) == 3.0


def test_a_strategy_starts_twice() -> None:
    strategy = Gossip(0.5)
    first, second = (models(strategy.start(InMemoryGrid(gossiping(), 4), zeros(), 3)) for _ in "ab")
    np.testing.assert_array_equal(first, second)


def test_what_is_wrong_with_silent_nodes_is_said() -> None:
    grid = InMemoryGrid(gossiping(), 3, faults=lambda i, k: "silent")
    with pytest.raises(TrainingFailedError, match=r"node 1000: no reply for 10\d s"):
        Gossip(poll_interval=1.0).start(grid, zeros(), 3, timeout=100)
