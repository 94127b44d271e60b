"""The commands ``fauno topology``."""

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from fauno_flwr.config.loading import choices, load_config
from sim_env.network.plain import json_schema
from sim_env.network.topology import build_topology


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a small network in several formats."""
    monkeypatch.chdir(tmp_path)
    graph = nx.path_graph(["rpi_0", "rpi_1", "server"])
    nx.write_graphml(graph, tmp_path / "net.graphml")
    (tmp_path / "edges.csv").write_text("from,to,mbit\nrpi_0,rpi_1,5\nrpi_1,server,50\n")
    (tmp_path / "net.json").write_text(
        json.dumps(
            {
                "format": "fauno-topology",
                "version": 1,
                "nodes": [
                    {"name": "a", "speed": 5e7, "capacity": 9, "x": 0, "y": 0},
                    {"name": "b", "speed": 5e8, "capacity": 99, "x": 9, "y": 0, "agent": False},
                ],
                "links": [{"from": "a", "to": "b", "rate": 2e9, "rate_back": 3e5, "latency": 0.25}],
            }
        )
    )
    return tmp_path


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["topology", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_show_prints_what_was_read(folder: Path) -> None:
    lines = invoke("show", "net.json", "workload.rate=3").splitlines()
    assert lines[0].startswith("2 nodes, 1 decide; 1 links; 6 tasks/s at 2 sources, offered load")
    rows = [" ".join(line.split()) for line in lines]
    assert "rpi 2 5e+07 to 5e+08 9 to 99 1 300 kbit/s to 2 Gbit/s 6 1" in rows
    assert "a rpi 5e+07 9 1 2 Gbit/s 3 yes" in rows
    assert "b rpi 5e+08 99 1 300 kbit/s 3 no" in rows
    assert lines[-1] == "latency of links: 0.25 s"


@pytest.mark.parametrize("name", choices("topology"))
def test_every_preset_is_shown_and_survives_its_file(name: str, folder: Path) -> None:
    output = invoke("show", name, "--out", "again.json")
    read, original = (
        build_topology(load_config("ether2", [f"topology={each}"]).topology)
        for each in ("again.json", name)
    )
    assert f"{original.num_nodes} nodes" in output
    assert read.names == original.names
    assert read.neighbours == original.neighbours
    assert np.array_equal(read.position, original.position)


def test_large_networks_are_shown_by_role() -> None:
    output = invoke("show", "full20", "topology.nodes=70")
    assert "rpi_0" not in output
    assert "nuc" in output


def test_a_function_is_shown_and_converted(folder: Path) -> None:
    (folder / "shown_topology.py").write_text(
        "import networkx as nx\n"
        "def path(spec):\n"
        "    graph = nx.path_graph(3)\n"
        "    for node in graph:\n"
        "        graph.add_node(node, speed=1e8, capacity=5, role='rpi', pos=(0, 0))\n"
        "    return graph\n"
    )
    assert "wrote path.json" in invoke("show", "shown_topology:path", "--out", "path.json")
    assert "3 nodes" in invoke("show", "path.json")


def test_graphml_and_edges_become_the_same_network(folder: Path) -> None:
    output = invoke("from-graphml", "net.graphml", "--out", "a.json")
    assert "role: the one in the name" in output
    invoke(
        "from-edges", "edges.csv", "--map", "rate=mbit", "--scale", "rate=1e6", "--out", "b.json"
    )
    a, b = (json.loads((folder / name).read_text()) for name in ("a.json", "b.json"))
    assert a["nodes"] == b["nodes"]
    assert [link["rate"] for link in b["links"]] == [5e6, 5e7]
    stripped = [{key: link[key] for key in ("from", "to")} for link in b["links"]]
    assert stripped == a["links"]


def test_the_picture_is_one(folder: Path) -> None:
    invoke("show", "net.json", "--out", "net.png", "--out", "net.svg", "--out", "net.pdf")
    frame = imread(folder / "net.png")
    assert frame.shape[:2] == (700, 1000)
    assert len(np.unique(frame.reshape(-1, frame.shape[2]), axis=0)) > 100
    assert (folder / "net.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (folder / "net.svg").read_text()


def test_the_picture_shows_rates_of_sources(folder: Path) -> None:
    (folder / "sources.csv").write_text("node,rate\nb,1.5\n")
    invoke("show", "net.json", "--out", "one.svg")
    output = invoke("show", "net.json", "workload.sources=sources.csv", "--out", "two.svg")
    assert "1.5 tasks/s at 1 sources" in output
    assert (folder / "one.svg").read_text() != (folder / "two.svg").read_text()


def test_the_schema_is_printed() -> None:
    assert json.loads(invoke("schema")) == json_schema()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "ethr2"], "topology is 'ethr2': must be one of"),
        (["show", "none.json"], "none.json' cannot be read (No such file"),
        (["show", "net.graphml"], "NAME|FILE is 'net.graphml': must be a preset, a .json file or"),
        (["show", "none:none"], "topology.kind is 'none:none': cannot be imported"),
        (["show", "net.json", "topology.nodes=3"], "topology.nodes is 3"),
        (["show", "net.json", "--out", "net.jpg"], "--out is 'net.jpg': must end in .json, .png"),
        (["show", "net.json", "--out", "none/a.png"], "none/a.png' cannot be written (No such"),
        (["show", "net.json", "--out", "none/a.json"], "none/a.json' cannot be written (No such"),
        (["show", "net.json", "physics.noise_bandwidth=message"], "must be 'link' with a topology"),
        (["show", "net.json", "topology.memory_per_task=1"], "memory_per_task is 1"),
        (["show", "net.json", "workload.source_rates={c: 1}"], "workload.source_rates.c is 1.0"),
        (["from-graphml", "edges.csv"], "GraphML file 'edges.csv' is not GraphML"),
        (["from-graphml", "none.graphml"], "cannot be read (No such file"),
        (["from-graphml", "net.graphml", "--map", "speed"], "--map is 'speed': must be of the"),
        (["from-graphml", "net.graphml", "--map", "sped=a"], "did you mean speed?"),
        (["from-graphml", "net.graphml", "--map", "speed=cpu"], "speed of a node is 'cpu': must"),
        (["from-graphml", "net.graphml", "--default", "speed=x"], "default of speed is 'x': must"),
        (["from-graphml", "net.graphml", "--scale", "x=y"], "scale of x is 'y': must be a finite"),
        (["from-graphml", "net.graphml", "--fit", "0"], "fit is 0.0: must be a finite number"),
        (["from-graphml", "net.graphml", "--out", "a"], "--out is 'a': must end in"),
        (["from-edges", "none.csv"], "edge list 'none.csv' cannot be read (No such file"),
        (["from-edges", "."], "edge list '.' cannot be read (Is a directory)"),
        (["from-edges", "net.graphml"], "must be two names"),
        (
            ["from-edges", "edges.csv", "--nodes", "none.csv"],
            "node table 'none.csv' cannot be read",
        ),
        (["from-edges", "edges.csv", "--nodes", "edges.csv"], "has no column name"),
        (
            ["from-edges", "edges.csv", "--default", "speed=1", "--default", "speed=2"],
            "--default is 'speed=2': speed must be there once",
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str, folder: Path) -> None:
    result = CliRunner().invoke(app, ["topology", *arguments])
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(folder.glob("a*"))
