"""Training by gossip: oracles of the merge, and whole federations without a global model."""

from typing import Any

import networkx as nx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from strategies import Gossip, InMemoryGrid, SyncBuffered, TrainingFailedError, gossip_mod
from strategies.arrays import to_record
from strategies.gossip import merge_models, metropolis_weights, ring
from tests.strategies.conftest import make_linear_app, steps, target


def mixing_matrix(graph: nx.Graph, steps: list[float]) -> np.ndarray:
    """Return the weights of all nodes' merges as a matrix."""
    matrix = np.zeros((len(graph), len(graph)))
    for i in graph:
        others = sorted(graph[i])
        known = [(graph.degree(j), steps[j]) for j in others]
        matrix[i, others] = metropolis_weights(graph.degree(i), steps[i], known)
        matrix[i, i] = 1 - matrix[i].sum()
    return matrix


@given(
    nodes=st.integers(2, 8),
    edges=st.floats(0.2, 1.0),
    seed=st.integers(0, 1000),
    steps=st.lists(st.floats(0.1, 100.0), min_size=8, max_size=8),
)
def test_merging_keeps_the_mean_weighted_by_steps_on_any_graph(
    nodes: int, edges: float, seed: int, steps: list[float]
) -> None:
    graph = nx.gnp_random_graph(nodes, edges, seed=seed)
    matrix = mixing_matrix(graph, steps)
    n = np.array(steps[:nodes])
    assert (matrix >= -1e-12).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    np.testing.assert_allclose(n @ matrix, n, rtol=1e-9)
    for i in graph:
        assert matrix[i, i] >= 1 / (1 + graph.degree(i)) - 1e-12


@pytest.mark.parametrize("nodes", [5, 8, 16])
def test_nodes_of_a_ring_agree_as_fast_as_theory_says(nodes: int) -> None:
    """The distance to the mean falls at most by the eigenvalue 1/3 + 2/3 cos(2 pi / N)."""
    matrix = mixing_matrix(nx.cycle_graph(nodes), [1.0] * nodes)
    rate = 1 / 3 + 2 / 3 * np.cos(2 * np.pi / nodes)
    slowest = np.cos(2 * np.pi * np.arange(nodes) / nodes)
    np.testing.assert_allclose(matrix @ slowest, rate * slowest, atol=1e-12)
    theta = np.random.default_rng(0).normal(size=nodes)
    for _ in range(10):
        before, theta = np.linalg.norm(theta - theta.mean()), matrix @ theta
        assert np.linalg.norm(theta - theta.mean()) <= rate * before + 1e-12


def test_one_neighbour_with_many_steps_has_no_more_weight_than_one_node() -> None:
    assert metropolis_weights(3, 10.0, [(1, 1e300), (1, 0.0)]) == [0.25, 0.0]
    assert metropolis_weights(1, 0.0, [(1, 5.0)]) == [0.5]


def test_a_ring_has_each_node_between_two() -> None:
    assert ring([7, 3, 5]) == {3: {5, 7}, 5: {3, 7}, 7: {3, 5}}
    assert ring([3, 5]) == {3: {5}, 5: {3}}
    assert ring([3]) == {3: set()}
    assert ring([]) == {}


def test_models_of_other_types_are_merged() -> None:
    own = {"w": np.float32([0, 1]), "n": np.int64([3]), "on": np.array([True])}
    other = {"w": np.float32([1, 1]), "n": np.int64([6]), "on": np.array([False])}
    merged = merge_models(own, [other], [0.5])
    assert {name: array.dtype for name, array in merged.items()} == {
        name: array.dtype for name, array in own.items()
    }
    assert merged["w"].tolist() == [0.5, 1.0]
    assert merged["n"].tolist() == [4]
    assert merged["on"].tolist() == [True]


def gossiping(app: ClientApp | None = None) -> ClientApp:
    """Return the linear app, whose nodes also evaluate, with the mod."""
    made, trained = ClientApp(mods=[gossip_mod()]), app or make_linear_app()

    @made.train()
    def train(message: Message, context: Context) -> Message:
        assert set(message.content) == {"arrays", "config"}
        return trained(message, context)

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        error = float(((message.content["arrays"]["w"].numpy() - target(i)) ** 2).sum())
        metrics = MetricRecord({"num-examples": steps(i), "error": error})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return made


def zeros() -> ArrayRecord:
    return ArrayRecord({"w": Array(np.zeros(2))})


def models(result: Any) -> np.ndarray:
    return np.stack([record["w"].numpy() for record in result.models.values()])


def complete(nodes: int) -> nx.Graph:
    return nx.complete_graph(nodes)


def equal_app() -> ClientApp:
    """Return the linear app with equal weights."""
    app, trained = ClientApp(mods=[gossip_mod()]), make_linear_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = trained(message, context)
        reply.content["metrics"]["num-examples"] = 1
        return reply

    return app


def test_on_the_complete_graph_with_equal_times_it_is_fedavg() -> None:
    """Each node trains from the mean of all: the mean after a round is FedAvg's version."""
    for rounds in (1, 2, 7):
        grid = InMemoryGrid(equal_app(), 5)
        mine = Gossip(1.0, graph=complete(5), fraction_evaluate=0.0)
        found = mine.start(grid, zeros(), rounds).arrays["w"].numpy()
        grid = InMemoryGrid(equal_app(), 5)
        theirs = SyncBuffered(1.0, fraction_evaluate=0.0).start(grid, zeros(), rounds)
        np.testing.assert_allclose(found, theirs.arrays["w"].numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [1, 0.5, 1.0])
@pytest.mark.parametrize("graph", [ring, complete(6), nx.star_graph(5), {0: [1, 2, 3, 4, 5]}])
def test_nodes_agree_whatever_the_graph_and_their_speeds(k: float, graph: Any) -> None:
    """They train once, each to its own target, and go on merging."""
    app = ClientApp(mods=[gossip_mod()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        i, config = int(context.node_config["partition-id"]), message.content["config"]
        first = config["server-round"] == 1
        arrays = to_record({"w": target(i)}) if first else message.content["arrays"]
        metrics = MetricRecord({"num-examples": 1 + i % 2})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    grid = InMemoryGrid(app, 6, duration=lambda i, number: 1.0 + 0.5 * i)
    events: list[dict[str, Any]] = []
    strategy = Gossip(k, graph=graph, on_event=events.append, fraction_evaluate=0.0)
    found = models(strategy.start(grid, zeros(), 200))
    distances = [event["distance"] for event in events if event["event"] == "round"]
    assert distances[-1] < 1e-4 * distances[0]
    targets = np.stack([target(i) for i in range(6)])
    assert (found >= targets.min(axis=0)).all()
    assert (found <= targets.max(axis=0)).all()


def test_a_round_is_reported() -> None:
    grid = InMemoryGrid(gossiping(), 6, duration=lambda i, number: 1.0 + i)
    result = Gossip().start(grid, zeros(), 7)
    assert result.versions == 7
    assert result.ended_by == "num_rounds"
    assert sorted(result.train_metrics_clientapp) == list(range(1, 8))
    assert set(result.train_metrics_clientapp[7]) == {"loss"}
    assert "error" in result.evaluate_metrics_clientapp[7]


def test_nobody_waits_for_a_straggler() -> None:
    grid = InMemoryGrid(gossiping(), 6, duration=lambda i, number: 100.0 if i == 0 else 1.0)
    Gossip(0.5, fraction_evaluate=0.0).start(grid, zeros(), 30)
    assert grid.clock.monotonic() < 0.5 * 100 * 30


def test_the_result_is_the_same_to_the_byte() -> None:
    def run() -> bytes:
        grid = InMemoryGrid(gossiping(), 6, duration=lambda i, number: 1.0 + 0.3 * i)
        return models(Gossip(0.5).start(grid, zeros(), 10)).tobytes()

    assert run() == run()


def test_the_server_holds_no_merged_model() -> None:
    """While they train, every model that it has is one that a node has sent."""
    sent: set[bytes] = {np.zeros(2).tobytes()}
    merged: set[bytes] = set()
    app, trained = ClientApp(mods=[gossip_mod()]), make_linear_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        merged.add(message.content["arrays"]["w"].numpy().tobytes())
        assert strategy.office is not None
        records = [member.model for member in strategy.office.places.members.values()]
        records += [*strategy.office.result.models.values(), strategy.office.result.arrays]
        assert {record["w"].numpy().tobytes() for record in records} <= sent
        reply = trained(message, context)
        sent.add(reply.content["arrays"]["w"].numpy().tobytes())
        return reply

    strategy = Gossip(0.5, fraction_evaluate=0.0)
    result = strategy.start(InMemoryGrid(app, 6), zeros(), 5)
    assert len(result.models) == 6
    assert len(merged - sent) > 6


def test_a_node_that_fails_and_returns_does_no_harm() -> None:
    """It goes on from the last model of its place; with a ring of ids, from its neighbours'."""
    presence = {2: [(0.0, 10.5), (20.5, 1e9)]}
    for graph in (nx.cycle_graph(5), ring):
        grid = InMemoryGrid(gossiping(), 5, presence=presence)
        events: list[dict[str, Any]] = []
        strategy = Gossip(1.0, graph=graph, on_event=events.append, fraction_evaluate=0.0)
        result = strategy.start(grid, zeros(), 60)
        rounds = [event["distance"] for event in events if event["event"] == "round"]
        assert max(rounds[30:]) <= max(rounds[5:9]) * 1.5
        returned = [e for e in events if e["event"] == "reply" and e["node"] >= 1005]
        assert returned
        assert len(result.models) >= 5


def test_a_node_that_joins_starts_from_its_neighbours() -> None:
    first: list[np.ndarray] = []
    app, trained = ClientApp(mods=[gossip_mod()]), make_linear_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if int(context.node_config["partition-id"]) == 4:
            first.append(message.content["arrays"]["w"].numpy())
        return trained(message, context)

    grid = InMemoryGrid(app, 5, presence={4: [(20.5, 1e9)]})
    Gossip(1.0, fraction_evaluate=0.0).start(grid, zeros(), 40)
    assert np.linalg.norm(first[0]) > 1


def test_an_app_without_the_mod_ends_the_run_with_a_sentence() -> None:
    with pytest.raises(TrainingFailedError, match=r"ClientApp\(mods=\[gossip_mod\(\)\]\)"):
        Gossip().start(InMemoryGrid(make_linear_app(), 4), zeros(), 3)


def test_bad_models_are_rejected_and_not_carried() -> None:
    app, trained = ClientApp(mods=[gossip_mod()]), make_linear_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = trained(message, context)
        if int(context.node_config["partition-id"]) == 1:
            reply.content["arrays"] = to_record({"w": np.array([np.nan, 0.0])})
        return reply

    events: list[dict[str, Any]] = []
    grid = InMemoryGrid(app, 5)
    result = Gossip(0.5, on_event=events.append, fraction_evaluate=0.0).start(grid, zeros(), 10)
    assert {event["node"] for event in events if event["event"] == "reject"} == {1001}
    assert np.isfinite(models(result)).all()


def test_nodes_without_a_place_do_not_take_part(caplog: pytest.LogCaptureFixture) -> None:
    grid = InMemoryGrid(gossiping(), 6)
    result = Gossip(graph=nx.path_graph(4), fraction_evaluate=0.0).start(grid, zeros(), 3)
    assert sorted(result.models) == [0, 1, 2, 3]
    assert "2 nodes have no place in the graph" in caplog.text


def test_it_evaluates_on_the_server_and_stops_when_told() -> None:
    seen: list[tuple[int, int]] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        seen.append((number, len(arrays)))
        return MetricRecord({"norm": float(np.linalg.norm(arrays["w"].numpy()))})

    result = Gossip(fraction_evaluate=0.0).start(
        InMemoryGrid(gossiping(), 4),
        zeros(),
        10,
        evaluate_fn=evaluate,
        should_stop=lambda number, result: number == 2,
    )
    assert seen == [(0, 1), (1, 1), (2, 1)]
    shares = np.array([steps(i) for i in range(4)]) / sum(steps(i) for i in range(4))
    mean = shares @ models(result)
    np.testing.assert_allclose(result.arrays["w"].numpy(), mean)
    norm = result.evaluate_metrics_serverapp[2]["norm"]
    assert norm == pytest.approx(np.linalg.norm(mean))
    assert result.ended_by == "should_stop"
    assert result.versions == 2


def test_each_node_has_its_own_round() -> None:
    seen: dict[int, list[int]] = {}
    app, trained = ClientApp(mods=[gossip_mod()]), make_linear_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config = message.content["config"]
        seen.setdefault(context.node_id, []).append(int(config["server-round"]))
        assert config["lr"] == 0.1
        return trained(message, context)

    grid = InMemoryGrid(app, 4, duration=lambda i, number: 1.0 + i)
    strategy = Gossip(0.5, fraction_evaluate=0.0)
    strategy.start(grid, zeros(), 5, train_config=ConfigRecord({"lr": 0.1}))
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seen.values())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"buffer_size": 0}, "buffer_size"),
        ({"fraction_evaluate": 2.0}, "fraction_evaluate"),
        ({"min_available_nodes": 0}, "min_available_nodes"),
        ({"ttl": -1.0}, "ttl"),
        ({"graph": {}}, "graph has 0 members"),
        ({"graph": nx.path_graph("abc")}, "graph has the member 'a': must be numbers"),
        ({"graph": [[1], [0]]}, "must be a mapping from members to their neighbours"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Gossip(**settings)


@pytest.mark.parametrize("fault", ["raise", "crash", "drop"])
def test_failures_stop_nobody(fault: str) -> None:
    """Also of the only message in which there was news: it is sent again."""
    events: list[dict[str, Any]] = []
    grid = InMemoryGrid(gossiping(), 5, faults=lambda i, k: fault if k % 3 == i % 3 else None)
    strategy = Gossip(1.0, on_event=events.append, ttl=5.0, fraction_evaluate=0.0)
    assert strategy.start(grid, zeros(), 20, timeout=200).versions == 20
    assert [event for event in events if event["event"] == "error"]


def test_a_run_whose_nodes_are_all_banned_ends() -> None:
    app = ClientApp(mods=[gossip_mod()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = to_record({"w": np.full(2, np.nan)})
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    with pytest.raises(TrainingFailedError, match="all 3 nodes are banned"):
        Gossip(max_failures=100, patience=1e6).start(InMemoryGrid(app, 3), zeros(), 3)


def test_silent_nodes_end_the_run() -> None:
    grid = InMemoryGrid(gossiping(), 3, faults=lambda i, k: "silent")
    with pytest.raises(TrainingFailedError, match="no model has been accepted"):
        Gossip(poll_interval=1.0).start(grid, zeros(), 3, timeout=100)
