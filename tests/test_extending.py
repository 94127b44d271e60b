"""The recipes of docs/extending.md run as they stand there, in a folder outside of the package."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from fauno_flwr.experiments import runner
from fauno_flwr.experiments.cells import run_cell
from fauno_flwr.experiments.design import Cell
from sim_env import plugins
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r'```python title="(\w+\.py)"\n(.+?)```', PAGE, re.DOTALL))
RECIPES = {
    title: (re.findall(r'title="(\w+)\.py"', text), re.findall(r"^\$ (.+)$", text, re.MULTILINE))
    for title, text in re.findall(r"^## (.+?)\n(.+?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}
COMMANDS = [(title, command) for title, (_, commands) in RECIPES.items() for command in commands]
# The smallest sizes; settings of a command come before them.
WORLD = ["evaluation.worlds=1", "evaluation.window=50", "evaluation.warmup=0"]
TRAINING = ["topology.clusters=1", "training.worlds=1", "training.ticks=16", "training.warmup=0"]
TINY = {"compare": WORLD, "train": [*WORLD, *TRAINING, "federation.versions=1"], "experiment": []}


def arguments(command: str) -> list[str]:
    """Return the arguments of a command of the page, with the smallest sizes."""
    program, name, *options = shlex.split(command)
    assert program == "fauno"
    return [name, *options, *TINY[name]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder with the files of all recipes; afterwards nothing of it can be imported."""
    path = tmp_path_factory.mktemp("recipes")
    for name, code in FILES.items():
        (path / name).write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(plugins, "_folders", [])
        patch.setenv("PYTHONPATH", str(ROOT))
        yield path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_there_is_a_recipe_for_each_part() -> None:
    assert [title for title, (files, _) in RECIPES.items() if files] == [
        "Heuristic",
        "Reward",
        "Observation",
        "Topology",
        "Workload",
        "Staleness rule",
        "Merge rule",
        "Server optimiser",
        "Algorithm",
        "Network",
        "Method",
        "Experiment",
    ]


def test_each_recipe_is_one_short_file_that_a_command_uses_by_import_path() -> None:
    used = " ".join(command for _, command in COMMANDS)
    for title, (files, _) in RECIPES.items():
        for name in files:
            imported = any(f"from {name} import" in code for code in FILES.values())
            assert f"{name}:" in used or imported, title
            assert len(FILES[f"{name}.py"].splitlines()) <= 20, title
    assert len(FILES["my_rule.py"].splitlines()) <= 15


class HerePool(runner.RayPool):
    """Compute cells here instead of in workers of Ray."""

    def __call__(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, dict[str, Any]]]:
        for cell in cells:
            yield cell, run_cell(cell)


@pytest.mark.parametrize(("title", "command"), COMMANDS, ids=[title for title, _ in COMMANDS])
def test_a_recipe_runs(
    title: str, command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RayPool", HerePool)
    result = CliRunner().invoke(app, arguments(command))
    assert result.exit_code == 0, result.output
    check(title, command, result.output, folder)


@pytest.mark.parametrize(
    ("title", "command"),
    [
        pytest.param(title, command, marks=[pytest.mark.slow] if title == "Experiment" else [])
        for title, command in COMMANDS
        if title in ("Heuristic", "Experiment")
    ],
)
def test_a_recipe_runs_as_a_user_starts_it(title: str, command: str, folder: Path) -> None:
    """In a process that does not look for modules in the working directory by itself."""
    code = "from fauno_flwr.cli.main import app; app()"
    process = [sys.executable, "-P", "-c", code, *arguments(command)]
    done = subprocess.run(process, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check(title, command, done.stdout, folder)


def check(title: str, command: str, output: str, folder: Path) -> None:
    """Assert that the tables hold the baselines, and what the recipe adds to them."""
    if title == "Experiment":
        output = (folder / "results" / "forgetting" / "results.md").read_text()
        shutil.rmtree(folder / "results" / "forgetting")
        assert "half-life 1" in output
    assert "ShortestExpectedDelay" in output
    assert ("MyRule" in output) == ("my_rule:MyRule" in command)
