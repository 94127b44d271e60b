"""What a node of a gossip merges, whoever carries its letters."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.gossip_node import PUSH_SUM, GossipNode, Letter, push_sum_weights


def vector(*values: float) -> dict[str, np.ndarray]:
    return {"w": np.array(values, np.float64)}


def nodes_of(graph: nx.Graph, seed: int = 0, mixing: str = PUSH_SUM) -> list[GossipNode]:
    rng = np.random.default_rng(seed)
    return [
        GossipNode(i, {"w": rng.normal(size=3)}, len(graph[i]), mixing=mixing)
        for i in sorted(graph)
    ]


def exchange(nodes: list[GossipNode], graph: nx.Graph) -> None:
    """Let all nodes send to their neighbours, and merge, at the same time."""
    letters: list[tuple[int, Letter]] = []
    for i in sorted(graph):
        letter = nodes[i].letter(len(graph[i]))
        letters += [(j, letter) for j in graph[i]]
    for j, letter in letters:
        nodes[j].receive(letter)
    for node in nodes:
        node.merge()


def moment(nodes: list[GossipNode], flying: list[Letter]) -> tuple[float, np.ndarray]:
    """Return the sum of all masses, and of all models by mass, wherever they are."""
    letters = [*flying, *(letter for node in nodes for letter in node.inbox.values())]
    held = [(node.mass, node.model["w"]) for node in nodes]
    held += [(letter.mass, letter.model["w"]) for letter in letters]
    return sum(m for m, _ in held), np.sum([m * w for m, w in held], axis=0)


@given(
    size=st.integers(2, 7),
    edges=st.floats(0.1, 1.0),
    seed=st.integers(0, 1000),
    moves=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["send", "arrive", "merge"]))),
)
def test_push_sum_keeps_the_weighted_mean_on_any_directed_graph_whoever_sends_when(
    size: int, edges: float, seed: int, moves: list[tuple[int, str]]
) -> None:
    graph = nx.gnp_random_graph(size, edges, seed=seed, directed=True)
    nodes = nodes_of(graph, seed)
    flying: list[tuple[int, Letter]] = []
    mass, weighted = moment(nodes, [])
    for number, move in moves:
        node = nodes[number % size]
        if move == "send":
            receivers = sorted(graph[node.number])
            letter = node.letter(len(receivers))
            flying += [(receiver, letter) for receiver in receivers]
        elif move == "merge":
            node.merge()
        elif flying:
            receiver, letter = flying.pop(number % len(flying))
            nodes[receiver].receive(letter)
        now = moment(nodes, [letter for _, letter in flying])
        assert now[0] == pytest.approx(mass, rel=1e-12)
        np.testing.assert_allclose(now[1], weighted, rtol=1e-9, atol=1e-12)


def test_push_sum_agrees_on_the_mean_of_an_irregular_directed_graph() -> None:
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (3, 1)])
    nodes = nodes_of(graph)
    mean = np.mean([node.model["w"] for node in nodes], axis=0)
    for _ in range(100):
        exchange(nodes, graph)
    assert len({len(graph[i]) for i in graph}) > 1
    for node in nodes:
        np.testing.assert_allclose(node.model["w"], mean, rtol=1e-9)


@pytest.mark.parametrize("mixing", ["metropolis", "push-sum"])
def test_on_the_complete_graph_with_equal_times_every_node_has_the_mean(mixing: str) -> None:
    """One exchange after each training is FedAvg, whose clients weigh the same."""
    graph = nx.complete_graph(5)
    nodes, rng, server = nodes_of(graph, mixing=mixing), np.random.default_rng(1), np.zeros(3)
    for number in range(4):
        targets = rng.normal(size=(5, 3))
        starts = [node.model["w"] if number == 0 else server for node in nodes]
        for node, target in zip(nodes, targets, strict=True):
            node.trained({"w": node.model["w"] + 0.3 * (target - node.model["w"])}, 10.0)
        pairs = zip(starts, targets, strict=True)
        server = np.mean([start + 0.3 * (target - start) for start, target in pairs], axis=0)
        exchange(nodes, graph)
        for node in nodes:
            np.testing.assert_allclose(node.model["w"], server, rtol=1e-12)
            assert node.age == number + 1


@pytest.mark.parametrize("size", [5, 8, 13])
def test_the_distance_on_a_ring_falls_by_the_second_largest_eigenvalue(size: int) -> None:
    """In the long run by no more and no less than that of the mixing matrix."""
    graph = nx.cycle_graph(size)
    nodes = nodes_of(graph, mixing="metropolis")
    values = np.linalg.eigvalsh((np.eye(size) + nx.to_numpy_array(graph)) / 3)
    rate = float(sorted(np.abs(values))[-2])
    distances = []
    for _ in range(60):
        exchange(nodes, graph)
        models = np.array([node.model["w"] for node in nodes])
        distances.append(float(np.linalg.norm(models - models.mean(axis=0))))
    assert all(b <= rate * a + 1e-13 for a, b in pairwise(distances))
    assert distances[40] / distances[39] == pytest.approx(rate, rel=1e-3)


def test_the_newest_letter_of_a_sender_replaces_the_one_before() -> None:
    node = GossipNode(0, vector(0.0), 2)
    node.receive(Letter(1, vector(5.0), 2, 1.0, 1.0))
    node.receive(Letter(1, vector(3.0), 2, 1.0, 2.0))
    assert len(node.inbox) == 1
    node.merge()
    np.testing.assert_allclose(node.model["w"], [1.0])
    assert not node.inbox


def test_a_node_that_fails_and_returns_with_an_old_model_moves_nobody_far() -> None:
    """Its weight is that of one node, and less with a staleness rule; then it catches up."""
    graph = nx.complete_graph(4)
    nodes = nodes_of(graph, mixing="metropolis")
    for node in nodes:
        node.staleness = lambda tau: 1 / (1 + tau)
    old = nodes[3].letter(3)
    for node in nodes[:3]:
        node.model, node.age, node.steps = vector(1.0, 1.0, 1.0), 9.0, 1.0
        node.receive(old)
        assert node.merge() == [9]
        np.testing.assert_array_less(
            np.abs(node.model["w"] - 1.0), np.abs(old.model["w"] - 1.0) / 4 / 10 + 1e-12
        )
    for _ in range(60):
        exchange(nodes, graph)
    np.testing.assert_allclose(nodes[3].model["w"], nodes[0].model["w"], rtol=1e-9)


def test_weights_of_push_sum_are_shares_of_the_mass() -> None:
    assert push_sum_weights(1.0, [1.0, 2.0]) == [0.25, 0.5]
    assert push_sum_weights(0.5, []) == []
    with pytest.raises(ValueError, match="mixing is 'mean': must be one of metropolis, push-sum"):
        GossipNode(0, vector(0.0), 1, mixing="mean")
