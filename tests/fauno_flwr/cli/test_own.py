"""Heuristics and experiments of one's own, in modules outside of the package."""

import csv
import json
import subprocess
from pathlib import Path

import pytest

from fauno_flwr.cli.experiment import find_experiment
from fauno_flwr.config.settings import ConfigError
from fauno_flwr.experiments.cells import fingerprint
from fauno_flwr.experiments.design import Experiment, cells
from fauno_flwr.experiments.report import write
from fauno_flwr.experiments.runner import Results, compute, in_process
from fauno_flwr.tasks.heuristics import find_heuristic
from tests.fauno_flwr.cli.test_main import FAUNO

RULE = '''\
"""Send every task to the first neighbour, as long as the own queue is not empty."""

import numpy as np

from sim_env.engine.features import QUEUE


class MyRule:
    def __call__(self, observation, rng):
        busy = observation.destination[:, 0, QUEUE] > 0
        return np.where(busy & observation.mask[:, 1], 1, 0)


def broken():
    raise RuntimeError
'''
EXPERIMENT = """\
from fauno_flwr.experiments.design import Arm, Condition, Design, Experiment
from fauno_flwr.experiments.methods import Method

METHODS = {"fauno": Method("FAuNO"), "wide": Method("wide", ("agent.hidden=40",))}
WORLD = ("topology=ether1", "evaluation.worlds=2", "evaluation.warmup=20", "evaluation.window=100")
TRAINING = ("training.worlds=2", "training.ticks=40", "training.rollouts=1", "training.warmup=10")


def design(quick):
    condition = Condition("small", "1 cluster", WORLD, TRAINING)
    return Design([condition], [Arm(name, "small") for name in METHODS], messages=1)


EXPERIMENT = Experiment("width", "Do wider networks learn more?", design, METHODS)
"""
SHORT = ("evaluation.warmup=20", "evaluation.window=100")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a heuristic and an experiment, from which modules can be imported."""
    # Named after the test's folder: modules stay imported.
    name = tmp_path.name.replace("-", "_")
    (tmp_path / f"rule_{name}.py").write_text(RULE)
    (tmp_path / f"experiment_{name}.py").write_text(EXPERIMENT)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def path_of(folder: Path, kind: str, attribute: str) -> str:
    return f"{kind}_{folder.name.replace('-', '_')}:{attribute}"


def fauno(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FAUNO, *arguments], capture_output=True, text=True, check=False, cwd=folder
    )


def test_an_own_heuristic_has_at_most_15_lines() -> None:
    assert len(RULE.partition("\n\n\ndef broken")[0].splitlines()) <= 15


def test_compare_shows_an_own_heuristic_of_the_working_directory(folder: Path) -> None:
    rule, out = path_of(folder, "rule", "MyRule"), folder / "out"
    done = fauno(
        folder, "compare", "--policies", f"sed,{rule}", "--seeds", "2", "--out", str(out), *SHORT
    )
    assert done.returncode == 0, done.stderr
    assert f"{rule} - ShortestExpectedDelay: finished" in done.stdout
    with (out / "table.csv").open() as file:
        rows = {row["policy"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["sed", rule]
    assert rows["sed"]["created"] == rows[rule]["created"]
    assert rows["sed"]["finished"] != rows[rule]["finished"]
    again = fauno(folder, "compare", "--conf", str(out / "config.yaml"))
    assert again.stdout == done.stdout.rpartition("results in")[0]


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "--policies", "{}"],
        ["simulate", "evaluation.policies=[{}]"],
        ["train", "evaluation.policies=[{}]"],
        ["experiment", "buffer", "--out", "results", "--heuristics", "{}"],
    ],
    ids=["compare", "simulate", "train", "experiment"],
)
def test_a_heuristic_that_cannot_be_found_is_one_sentence(folder: Path, command: list[str]) -> None:
    done = fauno(folder, *(word.format(path_of(folder, "rule", "Missing")) for word in command))
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing': cannot be imported (module" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("math:pi", "must be a function of an observation and a generator"),
        ("subprocess:Popen", r"raised TypeError \(.*missing 1 required positional argument"),
        ("sd", "did you mean sed"),
    ],
)
def test_what_is_no_heuristic_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        find_heuristic("policies", name)


def test_an_own_experiment_has_an_own_heuristic_in_its_tables(folder: Path) -> None:
    rule = path_of(folder, "rule", "MyRule")
    experiment = find_experiment(path_of(folder, "experiment", "EXPERIMENT"))
    experiment = experiment.with_heuristics(["lqrand", rule, "sed"])
    assert experiment.heuristics == ("lqrand", rule)
    found = compute(
        cells(experiment, True, 1), Results(folder / "out"), in_process, lambda line: None
    )
    text = write(experiment, True, found, folder / "out")
    summary = json.loads((folder / "out" / "summary.json").read_text())
    rows = {row["policy"]: row for row in summary["table"]}
    assert {"sed", "local", "lqrand", rule, "fauno", "wide"} <= set(rows)
    assert f"| {rule} |" in text
    assert f"### Where FAuNO does not beat {rule}" in text
    assert "| LeastQueueRandomTies |" in text
    assert rows[rule]["finished_ratio"] != rows["local"]["finished_ratio"]


def test_further_heuristics_leave_computed_cells_as_they_are(folder: Path) -> None:
    experiment = find_experiment(path_of(folder, "experiment", "EXPERIMENT"))
    before = {cell.key: fingerprint(cell) for cell in cells(experiment, True, 1)}
    rule = path_of(folder, "rule", "MyRule")
    made = cells(experiment.with_heuristics([rule]), True, 1)
    after = {cell.key: fingerprint(cell) for cell in made}
    assert before.items() < after.items()
    (own,) = (cell for cell in made if cell.policies == (rule,))
    assert own.key not in before


def test_the_fingerprint_depends_on_the_source_of_an_own_heuristic(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = find_experiment(path_of(folder, "experiment", "EXPERIMENT"))
    rule = path_of(folder, "rule", "MyRule")
    experiment = experiment.with_heuristics([rule])

    def own() -> str:
        return next(
            fingerprint(cell) for cell in cells(experiment, True, 1) if cell.policies == (rule,)
        )

    before = own()
    monkeypatch.setattr("inspect.getsource", lambda module: "another rule")
    assert own() != before


@pytest.mark.parametrize("name", ["os.path:join", "no_such_module:X"])
def test_an_experiment_that_is_none_is_one_sentence(name: str) -> None:
    with pytest.raises(ConfigError, match="experiment is"):
        find_experiment(name)
    assert isinstance(find_experiment("buffer"), Experiment)


@pytest.mark.slow
def test_an_own_experiment_runs_from_the_command_line(folder: Path) -> None:
    """Through Ray, whose workers import the heuristic from the working directory."""
    rule = path_of(folder, "rule", "MyRule")
    done = fauno(
        folder,
        *("experiment", path_of(folder, "experiment", "EXPERIMENT"), "--quick", "--seeds", "1"),
        *("--heuristics", rule, "--out", "out"),
    )
    assert done.returncode == 0, done.stderr
    assert f"| {rule} |" in done.stdout
    again = fauno(
        folder,
        *("experiment", path_of(folder, "experiment", "EXPERIMENT"), "--quick", "--tables-only"),
        *("--heuristics", rule, "--out", "out"),
    )
    assert again.stdout == done.stdout
