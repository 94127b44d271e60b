"""Networks: the published sizes, common invariants, and rejected ones."""

import json
import tracemalloc
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_env import memory
from sim_env.network import generators
from sim_env.network.files import role_of
from sim_env.network.graph import memory_needed
from sim_env.network.topology import (
    Topology,
    TopologySpec,
    build_topology,
    from_networkx,
    read_ether_json,
)
from sim_env.scenario import Scenario, ScenarioSpec
from tests.paths import SHARED_DATA

DATA = SHARED_DATA / "topologies"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="published topologies are not here")
PUBLISHED = {1: (8, 6, 4), 2: (23, 19, 16), 3: (32, 26, 22), 4: (45, 37, 32)}
NAN = float("nan")
MEANS = {"speed": 1e8, "capacity": 20, "role": "rpi", "pos": (0.0, 0.0)}
FLAT = ("random", "grid", "ring", "full", "bridged")


def degrees(topology: Topology) -> list[int]:
    return [len(row) for row in topology.neighbours]


def counts(topology: Topology) -> tuple[int, int, int]:
    return topology.num_nodes, len(topology.agents), int(topology.is_source.sum())


@given(
    kind=st.sampled_from(["ether", *FLAT]),
    clusters=st.integers(1, 6),
    nodes=st.integers(2, 60),
    seed=st.integers(0, 99),
)
def test_every_network_is_connected_symmetric_and_repeatable(
    kind: str, clusters: int, nodes: int, seed: int
) -> None:
    sizes = {"clusters": clusters} if kind == "ether" else {"nodes": nodes}
    spec = TopologySpec(kind=kind, **sizes, seed=seed)
    if kind == "random":
        spec.radius = 75.0
    topology, again = build_topology(spec), build_topology(spec)
    graph = topology.to_networkx()
    assert nx.is_connected(graph)
    assert [sorted(graph[node]) for node in graph] == topology.neighbours == again.neighbours
    assert np.array_equal(topology.position, again.position)
    assert len(set(topology.names)) == topology.num_nodes
    assert all(
        name.startswith(role) for name, role in zip(topology.names, topology.roles, strict=True)
    )
    assert set(np.array(topology.roles)[topology.is_source]) == {"rpi"}
    if kind != "ether":
        assert topology.num_nodes == nodes
        assert len(topology.agents) == nodes


@given(nodes=st.integers(2, 60))
def test_degrees_of_the_flat_networks(nodes: int) -> None:
    built = {kind: build_topology(TopologySpec(kind=kind, nodes=nodes)) for kind in FLAT[1:]}
    assert set(degrees(built["ring"])) == {min(2, nodes - 1)}
    assert set(degrees(built["full"])) == {nodes - 1}
    assert max(degrees(built["grid"])) <= 4
    place, rows = built["bridged"].position, built["bridged"].neighbours
    left = place[:, 0] < 50
    across = [(a, b) for a in np.flatnonzero(left) for b in rows[a] if not left[b]]
    assert len(across) == 1
    for node, degree in enumerate(degrees(built["bridged"])):
        assert degree == (left == left[node]).sum() - 1 + (node in across[0])
    apart = np.linalg.norm(place[left][:, None] - place[~left][None], axis=2)
    bridge = np.linalg.norm(place[across[0][0]] - place[across[0][1]])
    assert bridge == pytest.approx(apart.min(), rel=1e-12)


def test_a_grid_is_a_grid() -> None:
    topology = build_topology(TopologySpec(kind="grid", nodes=20))
    lattice = nx.grid_2d_graph(4, 5)
    assert nx.is_isomorphic(topology.to_networkx(), lattice)
    lengths = [
        np.linalg.norm(topology.position[a] - topology.position[b])
        for a, row in enumerate(topology.neighbours)
        for b in row
    ]
    assert lengths == pytest.approx([10.0] * len(lengths))


def test_random_links_are_those_within_the_radius() -> None:
    topology = build_topology(TopologySpec(kind="random", nodes=40, seed=3))
    apart = np.linalg.norm(topology.position[:, None] - topology.position[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert [np.flatnonzero(row < 50).tolist() for row in apart] == topology.neighbours


@pytest.mark.parametrize("kind", FLAT)
@pytest.mark.parametrize(("nodes", "nucs"), [(10, 5), (20, 5), (40, 5), (80, 10), (4, 2)])
def test_flat_networks_have_the_tiers_of_peersimgym(kind: str, nodes: int, nucs: int) -> None:
    reach = {"radius": 80.0} if kind == "random" else {}
    topology = build_topology(TopologySpec(kind=kind, nodes=nodes, **reach))
    tiers = list(zip(topology.speed, topology.capacity, strict=True))
    third = round((nodes - nucs) / 3)
    assert tiers.count((14800e4, 215)) == nucs
    assert tiers.count((7200e4, 20)) == tiers.count((9600e4, 20)) == third
    assert tiers.count((9600e4, 27)) == nodes - nucs - 2 * third


@pytest.mark.parametrize("clusters", PUBLISHED)
def test_ether_networks_have_the_published_sizes(clusters: int) -> None:
    topology = build_topology(TopologySpec(clusters=clusters))
    assert counts(topology) == PUBLISHED[clusters]
    assert topology.roles.count("tx2") == 2 * clusters
    assert sorted(set(degrees(topology)))[0] == 2
    assert max(degrees(topology)) == topology.num_nodes - 1


@with_data
@pytest.mark.parametrize("clusters", PUBLISHED)
def test_published_ether_files(clusters: int) -> None:
    path = DATA / f"network_{clusters}_clusters_heterogeneous_type.json"
    topology = build_topology(TopologySpec(kind="file", path=str(path)))
    assert counts(topology) == PUBLISHED[clusters]
    generated = build_topology(TopologySpec(clusters=clusters))
    for field in ("speed", "capacity"):
        assert sorted(getattr(topology, field)) == sorted(getattr(generated, field))
    assert sorted(topology.roles) == sorted(generated.roles)
    assert sorted(degrees(topology)) == sorted(degrees(generated))
    assert topology.position.min() == 0
    assert topology.position.max() == 100


@with_data
@pytest.mark.parametrize(("nodes", "mean_degree"), [(10, 3.0), (20, 9.4)])
def test_published_random_files(nodes: int, mean_degree: float) -> None:
    topology = read_ether_json(DATA / f"network_random{nodes}.json")
    assert counts(topology) == (nodes, nodes, nodes - 5)
    assert np.mean(degrees(topology)) == pytest.approx(mean_degree)


def ether_file(**changes: object) -> dict:
    """Write a file of four nodes with links in another order than the nodes."""
    names = {"rpi4_0": 11, "nuc_0": 12, "tx2_0": 13, "server_0": 14}
    places = [[0.0, 5.0], [2.0, 5.0], [2.0, 5.0], [4.0, 25.0]]
    nodes = {
        name: {
            "id": identity,
            "coordinates": place,
            "capacity": {"cpu_milis": 7200, "memory": 6 * 2**30},
        }
        for (name, identity), place in zip(names.items(), places, strict=True)
    }
    neighbours = {"13": [12, 14], "11": [14, 12, 12, 11], "14": []}
    return {"nodes": nodes, "links": {"neighbours": neighbours}, **changes}


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "topology.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_ether_json_is_read_as_the_original_reads_it(tmp_path: Path) -> None:
    topology = read_ether_json(write(tmp_path, ether_file()))
    assert topology.names == ["rpi4_0", "nuc_0", "tx2_0", "server_0"]
    assert topology.roles == ["rpi", "nuc", "tx2", "server"]
    assert topology.agents.tolist() == [0, 1, 3]
    assert topology.is_source.tolist() == [True, False, False, False]
    assert topology.speed.tolist() == [7200e4] * 4
    assert topology.capacity.tolist() == [20] * 4
    # Stretched to 0..100 on both axes; the third node was in the place of the second.
    assert topology.position.tolist() == [[0, 0], [50, 0], [51, 1], [100, 100]]
    # 13-12, 13-14, 11-14, 11-12, each at both ends at once, repeats and 11-11 left out, give
    # [3, 1], [2, 0], [1, 3], [2, 0]; then the same again, from node 0 on: 0-3, 0-1, 1-2, 2-3.
    assert topology.neighbours == [[3, 1], [0, 2], [1, 3], [0, 2]]


def test_memory_per_task_and_speed_of_a_file(tmp_path: Path) -> None:
    topology = read_ether_json(write(tmp_path, ether_file()), 2**30, speed_per_millicpu=1e3)
    assert topology.capacity.tolist() == [6] * 4
    assert topology.speed.tolist() == [7200e3] * 4


@pytest.mark.parametrize(
    ("name", "role"),
    [("rpi5_6G_0", "rpi"), ("server-rpi", "server"), ("my_nuc", "nuc"), ("drone", "worker")],
)
def test_roles_come_from_names(name: str, role: str) -> None:
    assert role_of(name) == role


def broken(where: str, value: object) -> dict:
    """Write the file with another value at a path of keys; ``del`` removes the key."""
    content = ether_file()
    *path, last = where.split("/")
    inner = content
    for key in path:
        inner = inner[key]
    if value == "del":
        del inner[last]
    else:
        inner[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a list: must be a mapping with nodes and links"),
        ({"a": 1}, "has no key 'nodes'"),
        (broken("links", "del"), "has no key 'links'"),
        (broken("links/neighbours", "del"), "links has no key 'neighbours'"),
        (broken("nodes", {}), "nodes is {}: must have at least one node"),
        (broken("nodes/nuc_0", 3), "node nuc_0 is 3: must be a mapping"),
        (broken("nodes/nuc_0/id", "del"), "node nuc_0 has no key 'id'"),
        (broken("nodes/nuc_0/id", 11), "node nuc_0 has the id 11 of an earlier node"),
        (broken("nodes/nuc_0/coordinates", "del"), "node nuc_0 has no key 'coordinates'"),
        (broken("nodes/nuc_0/coordinates", [1]), "node nuc_0: coordinates are [1]"),
        (broken("nodes/nuc_0/coordinates", [1, None]), "node nuc_0: y is None"),
        (broken("nodes/nuc_0/capacity/memory", "del"), "capacity has no key 'memory'"),
        (broken("nodes/nuc_0/capacity/memory", 10), "capacity of node nuc_0 is 0.0"),
        (broken("nodes/nuc_0/capacity/memory", -1), "memory is -1: must be"),
        (broken("nodes/nuc_0/capacity/cpu_milis", NAN), "nuc_0: capacity: cpu_milis is nan"),
        (broken("nodes/nuc_0/capacity/cpu_milis", "fast"), "cpu_milis is 'fast'"),
        (broken("nodes/nuc_0/coordinates", [1, 10**400]), "node nuc_0: y is 1000"),
        (broken("nodes/nuc_0/coordinates", [1e308, 0]), "node nuc_0: x is 1e+308: must be"),
        (broken("nodes/nuc_0/capacity/cpu_milis", 10**400), "cpu_milis is 1000"),
        (broken("nodes/nuc\n1", 3), "node nuc 1 is 3: must be a mapping"),
        (broken("links/neighbours/99", [11]), "links are those of '99'"),
        (broken("links/neighbours/11", [99]), "node '11' names neighbour 99"),
        (broken("links/neighbours/11", 12), "neighbours of '11' are 12: must be a list"),
        (broken("links/neighbours/11", []), "falls into 2 parts (nuc_0 cannot be reached"),
    ],
)
def test_a_file_that_is_no_topology_gets_one_sentence(
    tmp_path: Path, content: object, sentence: str
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        read_ether_json(write(tmp_path, content))
    assert sentence in str(caught.value)


def test_a_file_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match=r"'/none.json' cannot be read \(No such file"):
        build_topology(TopologySpec(kind="file", path="/none.json"))
    with pytest.raises(ValueError, match=r"topology.path is ''"):
        TopologySpec(kind="file")


def line(**changes: object) -> Topology:
    """Build three Raspberry Pis in a line, with changes."""
    fields: dict = {
        "names": ["a", "b", "c"],
        "roles": ["rpi"] * 3,
        "speed": np.full(3, 1e8),
        "capacity": np.full(3, 20),
        "position": np.array([[0.0, 0], [1, 0], [2, 0]]),
        "neighbours": [[1], [0, 2], [1]],
        "is_agent": np.ones(3, bool),
        "is_source": np.ones(3, bool),
    }
    return Topology(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"neighbours": [[1], [0], []]}, "falls into 2 parts (c cannot be reached from a)"),
        ({"neighbours": [[1], [0, 3], [1]]}, "node b names neighbour 3: must be between 0 and 2"),
        ({"neighbours": [[1], [0, -1], [1]]}, "node b names neighbour -1"),
        ({"neighbours": [[1], [0, 2], []]}, "link b - c: must join two nodes, and both ends"),
        ({"neighbours": [[1], [0, 1, 2], [1]]}, "link b - b: must join two nodes"),
        ({"neighbours": [[1, 1], [0, 2], [1]]}, "node a lists a neighbour twice: b"),
        ({"capacity": np.array([20, 0, 20])}, "capacity of node b is 0.0: must be"),
        ({"speed": np.array([1e8, 1e8, np.nan])}, "speed of node c is nan: must be"),
        ({"speed": np.array([1e8, -1.0, 1e8])}, "speed of node b is -1.0"),
        ({"position": np.array([[0, 0], [np.inf, 0], [1, 1]])}, "position of node b is (inf, 0.0)"),
        ({"position": np.zeros((3, 3))}, "position has the shape (3, 3): must be (3, 2)"),
        ({"speed": np.full(2, 1e8)}, "a network of 3 nodes has 2 speed"),
        ({"names": ["a", "b", "a"]}, "2 nodes are named a"),
        ({"names": ["a", ["b"], "c"]}, "name of node 1 is ['b']: must be text"),
        ({"roles": ["rpi", None, "rpi"]}, "role of node 1 is None: must be text"),
        ({"speed": 1e8}, "speed is 100000000.0: must have one entry for each node"),
        ({"speed": [1e8, None, 1e8]}, "speed is [100000000.0, None, 100000000.0]: must be numbers"),
        ({"speed": np.ones((3, 2))}, "speed has the shape (3, 2): must be (3,)"),
        ({"speed": np.ones(3, complex)}, "must be numbers for each node"),
        ({"capacity": [2.5, 20, 20]}, "capacity of node a is 2.5: must be a whole number"),
        ({"capacity": [10**12, 20, 20]}, "at most 2.14748e+09"),
        ({"position": [[0, 0], [1], [2, 0]]}, "position is [[0, 0], [1], [2, 0]]: must be numbers"),
        ({"is_agent": ["no"] * 3}, "is_agent is ['no', 'no', 'no']: must be true or false"),
        ({"is_agent": [1, 0, 2]}, "is_agent is [1, 0, 2]: must be true or false"),
        ({"neighbours": None}, "neighbours is None: must have one entry for each node"),
        ({"neighbours": [["b"], [0, 2], [1]]}, "neighbours of node a are ['b']: must be the"),
        ({"neighbours": [[1.5], [0, 2], [1]]}, "neighbours of node a are [1.5]: must be the"),
        ({"neighbours": [[1], [0, 10**30], [1]]}, "neighbours of node b are [0, 1000"),
        ({"neighbours": [1, [0, 2], [1]]}, "neighbours of node a are 1: must be the numbers"),
        ({"is_source": np.zeros(3, bool)}, "at least one agent and one source"),
    ],
)
def test_a_network_that_cannot_be_gets_one_sentence(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        line(**changes)
    assert sentence in str(caught.value)


def test_lists_will_do() -> None:
    fields = ("speed", "capacity", "position", "is_agent", "is_source")
    topology = line(**{field: getattr(line(), field).tolist() for field in fields})
    for field in fields:
        assert getattr(topology, field).dtype == getattr(line(), field).dtype
        assert np.array_equal(getattr(topology, field), getattr(line(), field))
    assert Scenario(ScenarioSpec(), topology=topology).net.slots.tolist() == [2, 3, 2]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"nodes": 2.5}, "topology.nodes is 2.5: must be a whole number at least 2"),
        ({"nodes": 10**400}, "topology.nodes is 1000"),
        ({"clusters": 1.5}, "topology.clusters is 1.5: must be a whole number at least 1"),
        ({"seed": 1.5}, "topology.seed is 1.5: must be a whole number"),
        ({"radius": NAN}, "topology.radius is nan: must be a finite number above 0"),
        ({"memory_per_task": 1e-300}, "capacity of node rpi_0 is inf: must be"),
        ({"memory_per_task": 1e300}, "capacity of node rpi_0 is 0.0: must be"),
        ({"kind": "gird"}, "did you mean grid?"),
        ({"kind": "file", "path": 3}, "topology.path is 3: must be the path of a file"),
        ({"kind": "file", "path": "a\0b"}, "must be the path of a file"),
        ({"kind": "file", "path": "~nobody-at-all/x"}, "must be in a home that exists"),
    ],
)
def test_a_request_that_cannot_be_gets_one_sentence(spec: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{,200}$") as caught:
        build_topology(TopologySpec(**spec))
    assert sentence in str(caught.value)


def test_a_radius_beyond_all_numbers_reaches_everybody() -> None:
    topology = build_topology(TopologySpec(kind="random", nodes=10, radius=1e308))
    assert degrees(topology) == [9] * 10


def test_a_random_network_in_parts_names_the_radius() -> None:
    with pytest.raises(ValueError, match=r"topology.radius is 10.0: .* falls into \d+ parts"):
        build_topology(TopologySpec(kind="random", radius=10.0))


@pytest.mark.parametrize(
    "spec",
    [
        TopologySpec(kind="grid", nodes=10_000),
        TopologySpec(kind="ring", nodes=10_000),
        TopologySpec(kind="random", nodes=10_000, radius=3.0),
        TopologySpec(clusters=900),
    ],
    ids=lambda spec: spec.kind,
)
def test_ten_thousand_nodes_take_memory_by_link_and_not_by_pair(spec: TopologySpec) -> None:
    tracemalloc.start()
    topology = build_topology(spec)
    net = Scenario(ScenarioSpec(), topology=topology).net
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert topology.num_nodes >= 9_900
    links = len(net.neighbour) - topology.num_nodes
    assert peak < memory_needed(topology.num_nodes, links) < 1e8


@pytest.mark.parametrize(
    "spec",
    [TopologySpec(kind=kind, nodes=1_000_000) for kind in ("random", "full", "bridged")]
    + [TopologySpec(clusters=10**12)],
    ids=lambda spec: spec.kind,
)
def test_a_network_that_does_not_fit_is_refused_before_it_is_tried(
    spec: TopologySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generators, "_assemble", None)
    with pytest.raises(ValueError, match=r"(nodes|clusters) is 1000000.* GB that are free"):
        build_topology(spec)


def test_little_memory_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 50e6)
    with pytest.raises(ValueError, match=r"1,000,000 nodes.* about 1\.5 GB .* 0\.050 GB that are"):
        build_topology(TopologySpec(kind="grid", nodes=1_000_000))
    dense = nx.complete_graph(700)
    with pytest.raises(ValueError, match="700 nodes, the busiest with 699 links, needs about"):
        from_networkx(dense, MEANS)
