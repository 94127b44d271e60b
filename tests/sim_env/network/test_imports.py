"""Networks from GraphML, edge lists and bare networkx graphs."""

import json
import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_env.network.files import read_topology
from sim_env.network.imports import import_graph, read_edges, read_graphml, slug
from sim_env.network.plain import NAME, save_topology
from sim_env.network.topology import TopologySpec, build_topology

GRAPHS = {
    "barabasi": nx.barabasi_albert_graph(30, 2, seed=1),
    "grid of pairs": nx.grid_2d_graph(3, 4),
    "karate": nx.karate_club_graph(),
    "directed": nx.cycle_graph(5, create_using=nx.DiGraph),
    "multi": nx.MultiGraph([("x", "y"), ("x", "y"), ("y", "y")]),
    "one node": nx.empty_graph(1),
}


def write(tmp_path: Path, text: str, name: str = "edges.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_any_connected_graph_becomes_a_file_that_is_read(graph: nx.Graph, tmp_path: Path) -> None:
    topology = import_graph(graph).topology
    assert topology.num_nodes == len(graph)
    assert set(topology.roles) == {"rpi"}
    assert set(topology.speed) == {7.2e7}
    assert set(topology.capacity) == {20}
    if len(graph) > 1:
        assert np.ptp(topology.position, axis=0).max() == pytest.approx(100)
    read = read_topology(save_topology(topology, tmp_path / "net.json"))
    assert read.neighbours == topology.neighbours
    assert np.array_equal(read.position, topology.position)


def test_the_same_graph_gives_the_same_network() -> None:
    one, two = (import_graph(GRAPHS["barabasi"]).topology for _ in range(2))
    assert np.array_equal(one.position, two.position)


def test_defaults_follow_the_role_in_the_name_and_are_noted() -> None:
    imported = import_graph(nx.star_graph(["my server", "nuc-1", "tx2", "camera"]))
    topology = imported.topology
    assert topology.names == ["my_server", "nuc-1", "tx2", "camera"]
    assert topology.roles == ["server", "nuc", "tx2", "rpi"]
    usual = build_topology(TopologySpec())
    for role, speed, capacity in zip(
        topology.roles, topology.speed, topology.capacity, strict=True
    ):
        tiers = np.flatnonzero(np.array(usual.roles) == role)
        assert speed == min(usual.speed[tiers])
        assert capacity == min(usual.capacity[tiers])
    text = "\n".join(imported.notes)
    for words in ("name: ", "'my server' is my_server", "role: ", "speed: ", "capacity: ", "x, y"):
        assert words in text


def test_a_change_of_a_name_is_noted_wherever_the_name_stands() -> None:
    graph = nx.relabel_nodes(nx.path_graph(2), {0: "Köln 1"})
    nx.set_node_attributes(graph, {1: "São Paulo"}, "name")
    imported = import_graph(graph)
    assert imported.topology.names == ["Koln_1", "Sao_Paulo"]
    assert "'Köln 1' is Koln_1 and 1 more" in imported.notes[0]


def test_a_complete_graph_needs_no_note() -> None:
    graph = build_topology(TopologySpec(clusters=1)).to_networkx()
    imported = import_graph(graph)
    assert imported.notes == []
    assert imported.topology.names == build_topology(TopologySpec(clusters=1)).names


def test_names_scales_and_defaults_apply_to_nodes_and_links() -> None:
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {0: "100", 1: "200"}, "mips")
    nx.set_node_attributes(graph, {0: "true", 1: 0, 2: "No"}, "agent")
    nx.set_edge_attributes(graph, {(0, 1): 50}, "mbit")
    imported = import_graph(
        graph,
        {"speed": "mips", "rate": "mbit"},
        {"speed": "3e8", "capacity": 7.0, "rate": 9},
        {"speed": 1e6, "rate": 1e6},
    )
    topology = imported.topology
    assert topology.speed.tolist() == [1e8, 2e8, 3e8]
    assert topology.capacity.tolist() == [7, 7, 7]
    assert topology.is_agent.tolist() == [True, False, False]
    assert topology.rates.tolist() == [5e7, 5e7, 9, 9]


def test_positions_are_kept_or_fitted_with_their_proportions() -> None:
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {0: (-9.1, 38.7), 1: (-8.1, 38.7), 2: (-9.1, 39.2)}, "pos")
    kept, fitted = (import_graph(graph, fit=fit).topology.position for fit in (None, 500))
    assert kept.tolist() == [[-9.1, 38.7], [-8.1, 38.7], [-9.1, 39.2]]
    assert fitted == pytest.approx(np.array([[0, 0], [500, 0], [0, 250]]))


def test_unused_attributes_are_noted_with_the_field_that_was_perhaps_meant() -> None:
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, 3, "capcity")
    nx.set_edge_attributes(graph, 3, "weight")
    notes = import_graph(graph).notes
    assert "node attributes not used: capcity (did you mean capacity?)" in notes
    assert "link attributes not used: weight" in notes


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("São Paulo", "Sao_Paulo"),
        ("(0, 1)", "0_1"),
        ("10.0.0.1", "10_0_0_1"),
        ("rpi-4_a", "rpi-4_a"),
        ("東京 2", "2"),
        ("*?[x]/y", "x_y"),
        ("東京", ""),
    ],
)
def test_a_slug_is_a_name_of_the_format_or_empty(text: str, name: str) -> None:
    assert slug(text) == name
    assert slug(name) == name
    assert not name or re.fullmatch(NAME, name)


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(0, 99))
def test_graphml_keeps_all_that_networkx_wrote(nodes: int, seed: int) -> None:
    graph = nx.gnp_random_graph(nodes, 0.5, seed=seed)
    graph.add_edges_from(nx.path_graph(nodes).edges)
    rng = np.random.default_rng(seed)
    for node, data in graph.nodes(data=True):
        data |= {"speed": float(rng.uniform(1, 9)), "capacity": int(rng.integers(1, 9))}
        data |= {"x": float(node), "y": 0.5, "agent": bool(node % 2 == 0), "role": "rpi"}
    for _, _, data in graph.edges(data=True):
        data["rate"] = float(rng.uniform(1, 9))
    text = "\n".join(nx.generate_graphml(graph))
    read = import_graph(nx.parse_graphml(text)).topology
    direct = import_graph(graph).topology
    assert read.names == direct.names
    assert read.neighbours == direct.neighbours
    for field in ("speed", "capacity", "position", "is_agent", "rates"):
        assert np.array_equal(getattr(read, field), getattr(direct, field))


EDGE_LISTS = {
    "header": "from,to,rate\na,b,5\nb,c,\nc,b,7\n",
    "another order": "\ufeffrate;to;from\r\n5;b;a\r\n;c;b\r\n7;b;c\r\n",
    "source and target": "source\ttarget\trate\na\tb\t5\nb\tc\t\nc\tb\t7\n",
}


@pytest.mark.parametrize("text", EDGE_LISTS.values(), ids=EDGE_LISTS)
def test_edge_lists_with_a_header(text: str, tmp_path: Path) -> None:
    topology = import_graph(read_edges(write(tmp_path, text))).topology
    assert topology.names == ["a", "b", "c"]
    assert topology.rates.tolist() == [5, 5, 7, 7]


@pytest.mark.parametrize("text", ["a b\nb c\n", "# pairs\na,b # first\n\nb;c\n", "a\tb\nb\tc"])
def test_edge_lists_without_a_header(text: str, tmp_path: Path) -> None:
    assert import_graph(read_edges(write(tmp_path, text))).topology.neighbours == [[1], [0, 2], [1]]


def test_a_table_of_nodes_gives_order_and_attributes(tmp_path: Path) -> None:
    nodes = write(tmp_path, "name,speed,role\nc,5,\nb,,server\na,7,nuc\n", "nodes.csv")
    graph = read_edges(write(tmp_path, "a b\nb c\n"), nodes)
    topology = import_graph(graph).topology
    assert topology.names == ["c", "b", "a"]
    assert topology.roles == ["rpi", "server", "nuc"]
    assert topology.speed.tolist() == [5, 2.904e9, 7]


@pytest.mark.parametrize(
    ("edges", "nodes", "sentence"),
    [
        ("", None, "edge list '.*' is empty"),
        ("# nothing\n", None, "holds no link: must have at least one"),
        ("a b 5\n", None, "line 1 is 'a b 5': must be two names, or the file a CSV whose first"),
        ("a b\nb\n", None, "line 2 is 'b': must be two names"),
        ("a,b\nb,\n", None, "line 2 is 'b,': must be two names"),
        ("from,rate\na,1\n", None, r"has no column to: must have from and to \(its columns are"),
        ("from,to\na,a\n", None, "line 2: link a - a: must join two nodes"),
        ("from,to\na,b\na,b\n", None, "line 3: link a - b again: must be there once in this"),
        ("from,to\na,b,c\n", None, "line 2 has 3 cells: must have 2"),
        ("from,to\na,\n", None, "line 2: column to is empty"),
        ("a c\n", "name\na\nb\n", r"line 1: to is 'c': must be a node of the network \(a, b\)"),
        ("a camera2\n", "name\na\ncamera1\n", r"did you mean camera1\?"),
        ("a b\n", "name\na\na\n", "node table '.*', line 3: name is 'a' again: must be unique"),
        ("a b\n", "nam\na\n", "node table '.*' has no column name"),
        ("a b\n", "name\na\nb\nc\n", r"falls into 2 parts \(c cannot be reached from a\)"),
        ("from,to,rate\na,b,fast\n", None, "rate of link a - b is 'fast': must be a finite number"),
        ("from,to,rate\na,b,0\n", None, "rate of link a - b is 0.0: must be a finite number above"),
        ("a b\n", "name,speed\na,-3\nb,\n", "speed of node a is -3.0: must be"),
        ("a b\n", "name,capacity\na,2.5\nb,\n", "capacity of node a is 2.5: must be a whole"),
        ("a b\n", "name,agent\na,perhaps\nb,\n", "agent of node a is 'perhaps': must be true or"),
        ("a b\n", "name,x\na,1\nb,\n", "node a has no y: must be on all nodes or on none"),
        ("a b\n", "name,role\na,drone\nb,\n", "node a has no speed: must have one with the role"),
    ],
)
def test_lists_that_are_wrong_get_one_sentence(
    edges: str, nodes: str | None, sentence: str, tmp_path: Path
) -> None:
    table = None if nodes is None else write(tmp_path, nodes, "nodes.csv")
    with pytest.raises(ValueError, match=rf"^[^\n]*{sentence}[^\n]*$"):
        import_graph(read_edges(write(tmp_path, edges), table))


PATH = nx.path_graph(2)


@pytest.mark.parametrize(
    ("graph", "options", "sentence"),
    [
        (3, {}, "graph is 3: must be a networkx graph"),
        (nx.Graph(), {}, "at least one node"),
        (nx.empty_graph(2), {}, "falls into 2 parts"),
        (PATH, {"names": {"sped": "a"}}, r"field in names is 'sped': .*did you mean speed\?"),
        (PATH, {"names": {"speed": "cpu"}}, "attribute for speed of a node is 'cpu': must be one"),
        (PATH, {"names": {"rate": "bw"}}, "attribute for rate of a link is 'bw': must be one of"),
        (PATH, {"defaults": {"speed": "fast"}}, "default of speed is 'fast': must be a finite"),
        (PATH, {"defaults": {"agent": 3}}, "default of agent is 3: must be true or false"),
        (PATH, {"scale": {"role": 2}}, "scale of role is 2: must be that of a number"),
        (PATH, {"scale": {"speed": "x"}}, "scale of speed is 'x': must be a finite number"),
        (PATH, {"fit": 0}, "fit is 0: must be a finite number above 0"),
        (nx.Graph([("!", "b")]), {}, "name of node '!' is '!': must contain a letter or digit"),
        (nx.Graph([("a b", "a_b")]), {}, "2 nodes are named a_b"),
        (nx.path_graph(["tx2_0", "tx2_1"]), {}, "at least one agent and one source of tasks"),
    ],
)
def test_graphs_that_are_wrong_get_one_sentence(graph: Any, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"^[^\n]*{sentence}[^\n]*$"):
        import_graph(graph, **options)


@pytest.mark.parametrize("text", ["", "<graphml>", "<a/>", json.dumps({"nodes": []}), "\0"])
def test_what_is_no_graphml_gets_one_sentence(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^GraphML file '[^\n]*' is not GraphML \([^\n]*$"):
        read_graphml(write(tmp_path, text, "net.graphml"))
    with pytest.raises(ValueError, match=r"^GraphML file '[^\n]*' cannot be read \(No such file"):
        read_graphml(tmp_path / "none.graphml")
