"""docs/own_network.md runs block by block, as it stands, in an empty folder."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "own_network.md").read_text()
LONG = ("fauno train", "fauno compare", "fauno evaluate", "python use_actor.py")


class Block(NamedTuple):
    """A fenced block of the page."""

    language: str
    title: str
    text: str


BLOCKS = [
    Block(*found)
    for found in re.findall(
        r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE
    )
]


def commands(block: Block) -> list[str]:
    """Return the commands of a block; every other block is a file."""
    assert block.language == "console" or block.title
    return re.findall(r"^\$ (.+)$", block.text, re.MULTILINE) if not block.title else []


def in_process(command: str, folder: Path) -> str:
    """Run a command of the page without a process of its own, and return what it printed."""
    program, *arguments = shlex.split(command)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if program == "fauno":
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, result.output
            return result.output
        patch.setattr(sys, "argv", arguments)
        runpy.run_path(arguments[0], run_name="__main__")
    return ""


def run(command: str, folder: Path) -> str:
    """Run a command as a user's shell does, and return what it printed."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": search, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def follow(
    folder: Path, run: Callable[[str, Path], str], skipped: tuple[str, ...] = ()
) -> dict[str, str]:
    """Write the files and run the commands of the page in order; return the outputs."""
    outputs = {}
    for block in BLOCKS:
        if block.title:
            (folder / block.title).write_text(block.text)
        for command in commands(block):
            if not command.startswith(skipped):
                outputs[command] = run(command, folder)
    return outputs


def check_networks(folder: Path, outputs: dict[str, str]) -> None:
    shown = {command: text for command, text in outputs.items() if "fauno topology" in command}
    plain, loaded, small, ether3, converted, named = shown.values()
    assert plain.startswith("30 nodes, 30 decide; 54 links; 50 tasks/s at 25 sources")
    assert loaded.startswith("30 nodes, 30 decide; 54 links; 36 tasks/s at 25 sources")
    assert small.startswith("2 nodes, 1 decide; 1 links; 2 tasks/s at 1 sources")
    assert ether3.startswith("32 nodes, 26 decide")
    assert "not used" not in converted
    assert re.search(r"^Data_centre +server +2e\+09 .* 1 Gbit/s", converted, re.MULTILINE)
    assert "6.5 tasks/s at 3 sources" in named
    for picture in ("net.png", "ether3.png", "abc.png", "sources.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")


def test_the_page_has_every_step_of_a_newcomer() -> None:
    text = " ".join(command for block in BLOCKS for command in commands(block))
    steps = ("show net.json", "compare", "my_rule:MyRule", "train", "evaluate", "use_actor.py")
    assert [step for step in steps if step not in text] == []
    assert "topology=larger.json" in text


def test_the_networks_of_the_page(tmp_path: Path) -> None:
    check_networks(tmp_path, follow(tmp_path, in_process, LONG))


@pytest.mark.slow
def test_the_whole_page_as_it_stands(tmp_path: Path) -> None:
    outputs = follow(tmp_path, run)
    check_networks(tmp_path, outputs)
    compared, trained, evaluated = (
        next(text for command, text in outputs.items() if command.startswith(start))
        for start in ("fauno compare", "fauno train", "fauno evaluate")
    )
    for table in (compared, trained):
        assert "MyRule" in table
    for table in (trained, evaluated):
        assert "FAuNO" in table
    assert re.fullmatch(r"camera_0 earned -?[\d.]+\n", outputs["python use_actor.py"])
