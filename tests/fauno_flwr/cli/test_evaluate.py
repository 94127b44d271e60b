"""``fauno evaluate``: trained actors in networks of other sizes, beside the heuristics."""

import csv
import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from fauno_flwr.cli.main import app
from tests.fauno_flwr.tasks.test_trained import write_run

SHORT = ["evaluation.worlds=2", "evaluation.warmup=20", "evaluation.window=100"]
ACTORS = Path("checkpoints", "actors.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(
        tmp_path_factory.mktemp("runs") / "run", *SHORT, "evaluation.policies=[sed,local]"
    )


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def policies(out: Path) -> list[str]:
    return [row["policy"] for row in json.loads((out / "table.json").read_text())["table"]]


@pytest.mark.parametrize(
    "network", [[], ["topology=ether4", "workload.rate=0.5"], ["topology=random10"]]
)
def test_the_actors_stand_beside_the_heuristics(
    network: list[str], run: Path, tmp_path: Path
) -> None:
    done = evaluate(run, *network, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert policies(tmp_path / "out") == ["fauno", "sed", "local"]
    assert "FAuNO - ShortestExpectedDelay: finished" in done.output
    with (tmp_path / "out" / "differences.csv").open() as file:
        pairs = [(row["policy"], row["other"]) for row in csv.DictReader(file)]
    assert pairs[::2] == [("fauno", "sed"), ("fauno", "local"), ("local", "sed")]


def test_a_topology_of_ones_own(run: Path, tmp_path: Path) -> None:
    """A file with 7 nodes: the trained ones of the same roles act in it."""
    nodes = {
        f"{role}_{place}": {
            "id": place,
            "coordinates": [place, place % 3],
            "capacity": {"cpu_milis": 1000 * (place + 1), "memory": 6.4e9},
        }
        for place, role in enumerate(["rpi"] * 4 + ["nuc"] * 2 + ["server"])
    }
    links = {str(place): [(place + 1) % 7] for place in range(7)}
    path = tmp_path / "net.json"
    path.write_text(json.dumps({"nodes": nodes, "links": {"neighbours": links}}))
    done = evaluate(run, "topology.kind=file", f"topology.path={path}", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    (fauno,) = (
        row
        for row in json.loads((tmp_path / "out" / "table.json").read_text())["table"]
        if row["policy"] == "fauno"
    )
    assert len(fauno["served_by"]) == 7
    assert fauno["finished"] > 0


def test_a_role_that_was_not_trained_needs_any_role(run: Path, tmp_path: Path) -> None:
    some = tmp_path / "some"
    (some / "checkpoints").mkdir(parents=True)
    (some / "config.yaml").write_text((run / "config.yaml").read_text())
    actors = {key: array for key, array in load_file(run / ACTORS).items() if key[:3] == "rpi"}
    save_file(actors, some / ACTORS)
    done = evaluate(some)
    assert done.exit_code == 2
    assert "must be a role of a trained node (rpi) without any_role (--any-role)" in done.output
    assert evaluate(some, "--any-role", "evaluation.policies=[]").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{none}"], "holds no config.yaml: must be the folder of a run"),
        (["{run}", "--best"], "holds no best actors: train with evaluation.every=N"),
        (["{run}", "training.ticks=5"], "training.ticks is 5: has no effect in fauno evaluate"),
        (["{run}", "agent.hidden=16"], "agent.hidden is 16: has no effect in fauno evaluate"),
        (["{run}", "observation=paper"], "the actors of the run do not fit"),
        (["{run}", "--out", "{run}"], "is not empty"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(
    arguments: list[str], sentence: str, run: Path, tmp_path: Path
) -> None:
    done = evaluate(*(each.format(run=run, none=tmp_path) for each in arguments))
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert sentence in done.output


def test_best_actors_are_evaluated(run: Path, tmp_path: Path) -> None:
    """Different actors give another table than the last ones."""
    both = write_run(tmp_path / "run", *SHORT, "evaluation.policies=[]")
    best = both / "checkpoints" / "best"
    best.mkdir()
    save_file({key: -array for key, array in load_file(both / ACTORS).items()}, best / ACTORS.name)
    last, kept = evaluate(both), evaluate(both, "--best")
    assert last.exit_code == kept.exit_code == 0
    assert last.output != kept.output
