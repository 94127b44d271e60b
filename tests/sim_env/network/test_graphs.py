"""Networks as graphs of networkx, and any graph as a network."""

from typing import Any

import networkx as nx
import numpy as np
import pytest

from sim_env.network.topology import (
    Topology,
    TopologySpec,
    build_topology,
    from_networkx,
)
from sim_env.scenario import Scenario, ScenarioSpec
from tests.sim_env.network.test_topology import MEANS, degrees

NAN = float("nan")


@pytest.mark.parametrize("kind", ["ether", "full", "bridged"])
def test_networks_survive_the_journey_as_a_graph(kind: str) -> None:
    nodes = {} if kind == "ether" else {"nodes": 12}
    topology = build_topology(TopologySpec(kind=kind, **nodes))
    back = from_networkx(topology.to_networkx())
    for field in Topology.__dataclass_fields__:
        np.testing.assert_array_equal(
            np.array(getattr(back, field), object), np.array(getattr(topology, field), object)
        )


@pytest.mark.parametrize(
    "graph",
    [
        nx.balanced_tree(2, 3),
        nx.karate_club_graph(),
        nx.cycle_graph(5, create_using=nx.DiGraph),
        nx.MultiGraph([("x", "y"), ("x", "y"), ("y", "y")]),
    ],
    ids=["tree", "karate", "directed", "multi"],
)
def test_any_connected_graph_is_a_network(graph: nx.Graph) -> None:
    topology = from_networkx(graph, MEANS)
    simple = nx.Graph((a, b) for a, b in graph.edges() if a != b)
    assert topology.names == [str(node) for node in graph]
    assert degrees(topology) == [simple.degree(node) for node in graph]
    assert Scenario(ScenarioSpec(), topology=topology).net.slots.max() == 1 + max(degrees(topology))


def test_attributes_say_who_decides_and_where_tasks_are_born() -> None:
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {0: {"role": "camera", "source": True}, 1: {"role": "tx2"}})
    topology = from_networkx(graph, MEANS)
    assert topology.roles == ["camera", "tx2", "rpi"]
    assert topology.is_source.tolist() == [True, False, True]
    assert topology.is_agent.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("speed", float("nan"), "speed of node 1 is nan: must be"),
        ("speed", "fast", "speed of node 1 is 'fast': must be"),
        ("capacity", 0, "capacity of node 1 is 0: must be"),
        ("capacity", 2.5, "capacity of node 1 is 2.5: must be a whole number"),
        ("pos", 3.0, "pos of node 1 is 3.0: must be two numbers"),
        ("pos", (1, 2, 3), "pos of node 1 is (1, 2, 3): must be two numbers"),
        ("agent", "no", "agent of node 1 is 'no': must be true or false"),
    ],
)
def test_an_attribute_that_cannot_be_is_named(attribute: str, value: object, sentence: str) -> None:
    graph = nx.path_graph(3)
    graph.nodes[1][attribute] = value
    with pytest.raises(ValueError, match="node 1") as caught:
        from_networkx(graph, MEANS)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("missing", MEANS)
def test_an_attribute_that_is_missing_is_named(missing: str) -> None:
    defaults = {name: value for name, value in MEANS.items() if name != missing}
    with pytest.raises(ValueError, match=f"node 0 has no attribute {missing}"):
        from_networkx(nx.path_graph(3), defaults)


@pytest.mark.parametrize(
    ("graph", "defaults", "sentence"),
    [
        (5, MEANS, "graph is 5: must be a networkx graph"),
        (nx.path_graph(3), [1], "defaults is [1]: must be a mapping"),
        (nx.path_graph(3), {**MEANS, "sped": 1}, "did you mean speed?"),
        (nx.path_graph(3), {**MEANS, "role": None}, "role of node 0 is None: must be a word"),
        (nx.path_graph(3), {**MEANS, "pos": "12"}, "pos of node 0 is '12': must be two numbers"),
    ],
)
def test_what_is_no_graph_gets_one_sentence(graph: Any, defaults: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        from_networkx(graph, defaults)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("graph", [nx.Graph(), nx.empty_graph(3)])
def test_graphs_that_are_no_network(graph: nx.Graph) -> None:
    with pytest.raises(ValueError, match=r"at least one node|falls into 3 parts"):
        from_networkx(graph, MEANS)
