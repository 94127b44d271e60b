"""The plain JSON format of networks, and rates and latencies of single links."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_env.engine.state import OFFLOADED
from sim_env.network.conversion import from_networkx
from sim_env.network.files import read_topology
from sim_env.network.graph import LINK_FIELDS
from sim_env.network.plain import from_plain, json_schema, save_topology, to_plain
from sim_env.network.topology import Topology, TopologySpec, build_topology
from sim_env.scenario import PhysicsSpec, Scenario, ScenarioSpec
from sim_env.world import World
from tests.conftest import small_scenarios
from tests.paths import ROOT

VALID = jsonschema.Draft202012Validator(json_schema())


def plain(**changes: object) -> dict[str, Any]:
    """Describe a line of three nodes, with changes."""
    means = {"speed": 1e8, "capacity": 20, "y": 0.0}
    return {
        "format": "fauno-topology",
        "version": 1,
        "nodes": [{"name": name, "x": x, **means} for name, x in (("a", 0), ("b", 10), ("c", 20))],
        "links": [
            {"from": "a", "to": "b", "rate": 1e6, "rate_back": 2e6, "latency": 0.5},
            {"from": "c", "to": "b"},
        ],
        **changes,
    }


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "net.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def assert_same(one: Topology, other: Topology) -> None:
    for field in Topology.__dataclass_fields__:
        a, b = getattr(one, field), getattr(other, field)
        if field in LINK_FIELDS and a is not None:
            assert b is not None
            np.testing.assert_array_equal(np.concatenate(a), np.concatenate(b))
        else:
            np.testing.assert_array_equal(np.array(a, object), np.array(b, object))


def test_defaults_of_nodes_and_both_directions_of_links(tmp_path: Path) -> None:
    topology = read_topology(write(tmp_path, plain()))
    assert topology.names == ["a", "b", "c"]
    assert topology.roles == ["rpi"] * 3
    assert topology.is_agent.all()
    assert topology.is_source.all()
    assert topology.neighbours == [[1], [0, 2], [1]]
    assert topology.rates[:2].tolist() == [1e6, 2e6]
    assert topology.latencies[:2].tolist() == [0.5, 0.5]
    assert np.isnan(topology.rates[2:]).all()
    assert np.isnan(topology.latencies[2:]).all()


def test_stated_links_replace_those_of_the_physics(tmp_path: Path) -> None:
    topology = read_topology(write(tmp_path, plain()))
    bare = read_topology(
        write(tmp_path, plain(links=[{"from": "a", "to": "b"}, {"from": "b", "to": "c"}]))
    )
    for physics in (PhysicsSpec(), PhysicsSpec(link="fixed", latency=0.1)):
        spec = ScenarioSpec(physics=physics)
        net, usual = (Scenario(spec, topology=each).net for each in (topology, bare))
        forth, back = net.first[0] + 1, net.first[1] + 1
        assert net.rate[[forth, back]] == pytest.approx([1e5, 2e5])  # bits per tick of 0.1 s
        assert net.latency[[forth, back]] == pytest.approx([5, 5])
        others = np.setdiff1d(np.arange(len(net.rate)), [forth, back])
        assert np.array_equal(net.rate[others], usual.rate[others])
        assert np.array_equal(net.latency[others], usual.latency[others])


def test_a_task_on_a_link_that_is_too_slow_does_not_finish() -> None:
    graph = nx.path_graph(["a", "b"])
    nx.set_node_attributes(graph, {"a": (0, 0), "b": (1, 0)}, "pos")
    nodes = {"speed": 1e8, "capacity": 1000, "role": "rpi"}
    finished, kept = [], []
    for rate in (1e9, 1e4):
        graph.edges["a", "b"]["rate"] = rate
        scenario = Scenario(ScenarioSpec(), topology=from_networkx(graph, nodes))
        assert scenario.jobs.input_bits.min() / 1e4 > 60
        world = World(scenario, [0])
        for _ in range(600):
            world.step(np.array([[1, 0]], np.int32))
        finished.append(int(world.metrics().finished[0]))
        kept.append(int(world.metrics().created[0] - world.state.total[0, OFFLOADED]))
    assert kept[0] == kept[1]  # the same decisions
    assert finished[1] <= kept[1]
    assert finished[0] > kept[0]


def test_rates_that_depend_on_the_message_are_refused(tmp_path: Path) -> None:
    topology = read_topology(write(tmp_path, plain()))
    spec = ScenarioSpec(physics=PhysicsSpec(noise_bandwidth="message"))
    with pytest.raises(ValueError, match=r"noise_bandwidth is 'message': must be 'link'"):
        Scenario(spec, topology=topology)


@settings(max_examples=25)
@given(small_scenarios(), st.data())
def test_every_network_survives_file_and_graph(scenario: Scenario, data: st.DataObject) -> None:
    topology = scenario.topology
    numbers = st.floats(1e-3, 1e9) | st.just(float("nan"))
    rows = [list(row) for row in topology.neighbours]
    drawn = {(a, b): data.draw(numbers) for a, row in enumerate(rows) for b in row if a < b}
    other = {pair: data.draw(st.sampled_from([1, 2])) * value for pair, value in drawn.items()}
    both = drawn | {pair[::-1]: value for pair, value in other.items()}
    fields = {name: getattr(topology, name) for name in Topology.__dataclass_fields__}
    fields["link_rate"] = [[both[a, b] for b in row] for a, row in enumerate(rows)]
    if np.isnan(list(both.values())).all():
        fields["link_rate"] = None
    stated = Topology(**fields)
    content = json.loads(json.dumps(to_plain(stated)))
    VALID.validate(content)
    assert_same(from_plain(content, "file"), stated)
    assert_same(from_networkx(stated.to_networkx()), stated)


def test_a_saved_network_is_read_again(tmp_path: Path) -> None:
    topology = build_topology(TopologySpec(clusters=3))
    path = save_topology(topology, tmp_path / "net.json")
    assert_same(build_topology(TopologySpec(kind="file", path=str(path))), topology)


def test_the_schema_in_the_docs_is_the_one_of_the_code() -> None:
    written = (ROOT / "docs" / "topology.schema.json").read_text()
    assert written == json.dumps(json_schema(), indent=2) + "\n"


def node(**changes: object) -> dict[str, Any]:
    first, *rest = plain()["nodes"]
    changed = {key: value for key, value in {**first, **changes}.items() if value != "del"}
    return plain(nodes=[changed, *rest])


def link(**changes: object) -> dict[str, Any]:
    first, *rest = plain()["links"]
    changed = {key: value for key, value in {**first, **changes}.items() if value != "del"}
    return plain(links=[changed, *rest])


STRUCTURE = [
    (plain(format="ether"), "format is 'ether': must be 'fauno-topology'"),
    (plain(version=2), "version is 2: must be 1"),
    (plain(version=True), "version is True: must be 1"),
    (plain(nods=[]), "key is 'nods': must be one of format, version, .*did you mean nodes"),
    (plain(nodes=[]), r"nodes is \[\]: must have at least one node"),
    (plain(nodes={"a": {}}), r"nodes is \{'a': \{\}\}: must be a list"),
    (plain(links=3), "links is 3: must be a list"),
    (plain(description=3), "description is 3: must be text"),
    ({key: value for key, value in plain().items() if key != "links"}, "has no key 'links'"),
    (plain(nodes=[3]), r"nodes\[0\] is 3: must be an object with name, speed, capacity, x, y"),
    (node(speed="fast"), r"nodes\[0\] \(a\): speed is 'fast': must be a finite number above 0"),
    (node(speed=0), "speed is 0: must be a finite number above 0"),
    (node(speed=True), "speed is True: must be"),
    (node(speed="del"), r"nodes\[0\] \(a\) has no speed: must have one \(instructions per second"),
    (node(sped=1), "key is 'sped': .*did you mean speed"),
    (node(queue=1), "key is 'queue': .*did you mean capacity"),
    (node(position=[1, 2]), r"key is 'position': .*did you mean x and y\?"),
    (node(capacity=2.5), "capacity is 2.5: must be a whole number"),
    (node(capacity=0), "capacity is 0: must be a finite number at least 1"),
    (node(x=None), "x is None: must be a finite number"),
    (node(x=1e13), "x is 10000000000000.0: must be a finite number at least -1e"),
    (node(agent="yes"), "agent is 'yes': must be true or false"),
    (node(role=3), "role is 3: must be letters, digits, _ and -"),
    (node(name="a.b"), r"name is 'a.b': must be letters, digits, _ and -"),
    (node(name=""), "name is '': must be letters"),
    (link(rate=0), r"links\[0\] \(a - b\): rate is 0: must be a finite number above 0"),
    (link(latency=-1), r"latency is -1: must be a finite number at least 0"),
    (link(bandwidth=1), "key is 'bandwidth': .*did you mean rate"),
    (link(to="del"), r"links\[0\] has no to: must have one \(name of another node\)"),
]
MEANING = [
    (node(name="a\n"), "name is 'a.n': must be letters"),
    (node(name="b"), r"nodes\[1\] \(b\) has the name of nodes\[0\]: must be unique"),
    (link(to="bb"), r"to is 'bb': must be a node of the network \(a, b, c\)"),
    (link(to="a"), r"links\[0\] \(a - a\): must join two different nodes"),
    (plain(links=[*plain()["links"], {"from": "b", "to": "c"}]), r"\(b - c\) is links\[1\] again"),
    (link(rate="del"), "link a - b states its rate one way only"),
    (plain(links=plain()["links"][:1]), r"falls into 2 parts \(c cannot be reached from a\)"),
    (plain(nodes=[{**each, "source": False} for each in plain()["nodes"]]), "one source of tasks"),
]


@pytest.mark.parametrize(("content", "sentence"), STRUCTURE + MEANING)
def test_a_file_that_is_wrong_gets_one_sentence(
    tmp_path: Path, content: dict, sentence: str
) -> None:
    with pytest.raises(ValueError, match=rf"^topology file '[^\n]*{sentence}[^\n]*$"):
        read_topology(write(tmp_path, content))


def test_the_schema_and_the_reader_agree_on_the_structure() -> None:
    VALID.validate(plain())
    for content, sentence in STRUCTURE:
        assert not VALID.is_valid(content), sentence
    for content, _ in MEANING:
        VALID.validate(content)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (json.dumps(plain()).replace('"speed"', '"x"', 1), "key 'x' is there twice"),
        (json.dumps(node(x=float("nan"))), "x is nan: must be a finite number"),
        (json.dumps(plain())[:-9], "is not JSON"),
        (json.dumps([plain()]), "holds a list"),
        (json.dumps({"nodes": [], "links": []}), "has no key 'format': must be 'fauno-topology'"),
    ],
)
def test_a_text_that_is_wrong_gets_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"^topology file '[^\n]*{sentence}[^\n]*$"):
        read_topology(write(tmp_path, text))


def test_memory_per_task_has_no_effect_on_stated_capacities(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^topology.memory_per_task is 1.0: must be 320000000"):
        read_topology(write(tmp_path, plain()), 1.0)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[1.0], [1.0], [1.0]], r"link_rate of node 1 is \[1.0\]: must be 2 numbers"),
        ([[1.0], [1.0, 0.0], [1.0]], "link_rate from 1 to 2 is 0.0: must be a finite number above"),
        ([[1.0], [1.0, 2.0], ["x"]], "link_rate is .*: must be numbers"),
        ([[1.0], [1.0, 2.0], [np.nan]], "link 1 - 2 states its rate one way only"),
        ([[1.0], [1.0, np.inf], [1.0]], "link_rate from 1 to 2 is inf"),
        (3, "link_rate is 3: must have one entry for each node"),
    ],
)
def test_rates_that_cannot_be(rows: Any, sentence: str) -> None:
    graph = from_networkx(
        nx.path_graph(3), {"speed": 1, "capacity": 1, "role": "rpi", "pos": (0, 0)}
    )
    fields = {name: getattr(graph, name) for name in Topology.__dataclass_fields__}
    with pytest.raises(ValueError, match=sentence):
        Topology(**{**fields, "link_rate": rows})


def test_names_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    graph = nx.relabel_nodes(nx.path_graph(2), {0: "a b"})
    topology = from_networkx(graph, {"speed": 1, "capacity": 1, "role": "rpi", "pos": (0, 0)})
    with pytest.raises(ValueError, match="name of a node is 'a b': must be letters"):
        save_topology(topology, tmp_path / "net.json")
    with pytest.raises(ValueError, match=r"cannot be written \(No such file"):
        save_topology(build_topology(TopologySpec()), tmp_path / "none" / "net.json")


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (nx.MultiGraph([(0, 1, {"rate": 1}), (0, 1, {"rate": 2})]), "rate of link 0 - 1 is 2 and"),
        (nx.Graph([(0, 1, {"rate": "fast"})]), "rate of link 0 - 1 is 'fast': must be"),
        (nx.Graph([(0, 1, {"latency": -1})]), "latency of link 0 - 1 is -1: must be"),
    ],
)
def test_edges_that_cannot_be(graph: nx.Graph, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        from_networkx(graph, {"speed": 1, "capacity": 1, "role": "rpi", "pos": (0, 0)})


def test_a_directed_graph_may_state_each_direction() -> None:
    means = {"speed": 1, "capacity": 1, "role": "rpi", "pos": (0, 0)}
    graph = nx.DiGraph([(0, 1, {"rate": 1}), (1, 0, {"rate": 2}), (1, 2, {"rate": 3})])
    assert from_networkx(graph, means).rates.tolist() == [1, 2, 3, 3]
