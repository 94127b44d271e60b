"""Ctrl-C: one sentence, exit code 130, no traceback, no process left, and what was trained kept."""

import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from fauno_flwr.results.directory import read_lines
from fauno_flwr.results.state import INTERRUPTED, State, state_of
from fauno_flwr.tasks.trained import read_actors
from tests.fauno_flwr.cli.test_main import FAUNO
from tests.fauno_flwr.deployment.test_engine import alive, descendants
from tests.fauno_flwr.tiny import AGENTS, TINY

ENDLESS = [*TINY, "federation.versions=100000"]
# Without the settings of the engine, which co-simulation does not have.
ALONE = [setting for setting in ENDLESS if "wait_for_nodes" not in setting]
LONG = ["topology=ether1", "evaluation.worlds=64", "evaluation.window=100000"]
# Each command, and the seconds within which it is interrupted; it must take longer than these.
COMMANDS: dict[str, tuple[list[str], float]] = {
    "compare": (["compare", *LONG], 8.0),
    "evaluate": (["evaluate", "{trained}", *LONG[1:]], 8.0),
    "train": (["train", *ALONE, "--out", "run"], 20.0),
    "experiment": (["experiment", "buffer", "--quick", "--out", "run"], 30.0),
    "simulate": (["simulate", *ENDLESS, "--out", "run"], 40.0),
    "deploy": (["deploy", "local", "--nodes", "2", "--out", "run"], 40.0),
    "world": (["world", "serve", "topology=ether1"], 10.0),
}
MOMENTS = 20
PATIENCE = 10.0  # seconds until all processes have ended, on an idle machine


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start a command; returns as soon as it handles signals, which is before its imports."""
    process = subprocess.Popen(
        [FAUNO, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    while not catches(process.pid, signal.SIGTERM):  # which Python itself does not
        assert process.poll() is None
        time.sleep(0.001)
    return process


def catches(pid: int, number: int) -> bool:
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line
    ]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def interrupt(process: subprocess.Popen[str]) -> str:
    """Send SIGINT; assert that everything ends properly; return what was printed."""
    started = descendants(process.pid)
    idle = psutil.getloadavg()[0] < (psutil.cpu_count() or 1)
    patience = PATIENCE if idle else 6 * PATIENCE
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=patience)
    assert process.returncode == 128 + signal.SIGINT, said
    lines = said.splitlines()
    assert lines.count("fauno: stopped by SIGINT") == 1, said
    for trace in ("Traceback", "Error", "Exception", "Aborted"):
        assert trace not in said, said
    end = time.monotonic() + patience
    while alive(started) and time.monotonic() < end:
        time.sleep(0.1)
    assert alive(started) == []
    return said


@pytest.mark.parametrize("seconds", [0.0, 0.4, 1.5])
def test_a_command_is_interrupted_while_it_imports(seconds: float, tmp_path: Path) -> None:
    process = start(["compare", *LONG], tmp_path)
    time.sleep(seconds)
    interrupt(process)


def test_training_that_is_interrupted_keeps_its_parameters(tmp_path: Path) -> None:
    process = start(["train", *ALONE, "--out", "run"], tmp_path)
    out = tmp_path / "run"
    while not any(each["event"] == "flush" for each in read_lines(out / "events.jsonl")):
        assert process.poll() is None
        time.sleep(0.1)
    said = interrupt(process)
    events = read_lines(out / "events.jsonl")
    version = [each["version"] for each in events if each["event"] == "flush"][-1]
    assert f"fauno: version {version} of the parameters is kept in {out}\n" in said
    assert (out / "checkpoints" / "critic.safetensors").exists()
    assert len(read_actors(out)) == AGENTS
    assert state_of(out, events) == State(INTERRUPTED, "SIGINT")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    subprocess.run(
        [FAUNO, "train", *ALONE, "federation.versions=4", "--out", str(out)],
        check=True,
        capture_output=True,
    )
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_long_command_is_interrupted_at_random_moments(
    name: str, trained: Path, tmp_path: Path
) -> None:
    """Twenty moments each, spread over the time from the first import on."""
    command, seconds = COMMANDS[name]
    rng = random.Random(name)
    for number in range(MOMENTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = start([word.format(trained=trained) for word in command], folder)
        time.sleep((number + rng.random()) * seconds / MOMENTS)
        said = interrupt(process)
        out = folder / "run"
        events = read_lines(out / "events.jsonl")
        if events:
            assert state_of(out, events) == State(INTERRUPTED, "SIGINT")
        if name == "train" and any(each["event"] == "flush" for each in events):
            assert len(read_actors(out)) == AGENTS
        if name == "experiment" and (out / "cells").exists():
            assert "the same command resumes" in said or not any((out / "cells").iterdir())
