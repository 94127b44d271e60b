"""Runs in which every node fails, on Flower's engines: the node's own sentence, everywhere."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fauno_flwr.results.directory import read_lines
from tests.fauno_flwr.cli.test_main import FAUNO
from tests.fauno_flwr.deployment.test_engine import alive, descendants

pytestmark = pytest.mark.slow
ENVIRONMENTS = """\
import gymnasium as gym
import numpy as np


class Unplugged(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        raise RuntimeError("sensor 7 is unplugged")


class NotANumber(Unplugged):
    def step(self, action):
        return np.full(3, np.nan, np.float32), 0.0, False, False, {}


gym.register("Unplugged-v0", Unplugged, disable_env_checker=True)
gym.register("NotANumber-v0", NotANumber, disable_env_checker=True)
"""
PATIENCE = 60  # seconds, on an idle machine
GYM = ("world=gym", "world.nodes=3")
FAILURES = ("error", "refused")  # in training, in the handshake
SIMULATE, DEPLOY = ("simulate",), ("deploy", "local")


@contextmanager
def another_world() -> Iterator[str]:
    """Serve a world with another topology; yields its address."""
    command = [FAUNO, "world", "serve", "topology=ether1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.partition(" decide, on ")[2].split()[0]
        process.terminate()


@contextmanager
def settings_of(case: str) -> Iterator[list[str]]:
    if case == "shared":
        with another_world() as address:
            network = ["topology=full20", "topology.nodes=3"]
            yield [*network, "world=shared", f"world.address={address}"]
    else:
        yield [*GYM, f"world.env_id=environments:{case}-v0"]


@pytest.mark.parametrize("command", [SIMULATE, DEPLOY], ids=["simulate", "deploy"])
@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("Unplugged", "RuntimeError: sensor 7 is unplugged"),
        ("NotANumber", "is not finite"),
        ("shared", "the run and the world have different settings: topology"),
    ],
)
def test_a_run_in_which_every_node_fails_ends_with_its_sentence(
    command: tuple[str, ...], case: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "environments.py").write_text(ENVIRONMENTS)
    out, environment = tmp_path / "run", {**os.environ, "PYTHONPATH": str(tmp_path)}
    with settings_of(case) as settings, (tmp_path / "said").open("w") as said:
        begin = time.monotonic()
        process = subprocess.Popen(
            [FAUNO, *command, *settings, "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd=tmp_path,
            env=environment,
        )
        started = set()
        while process.poll() is None:
            started |= descendants(process.pid)
            time.sleep(0.3)
        lasted = time.monotonic() - begin
    text = (tmp_path / "said").read_text()
    assert process.returncode == 1, text
    first, last = (line for line in text.splitlines() if sentence in line)
    assert re.match(r"(node|rpi|nuc|server)_\d: ", first), first  # at once, with the node's name
    assert last.startswith("fauno: the run has failed: all 3 nodes ")
    assert "Traceback" not in text
    assert "ray.exceptions" not in text
    assert "\x1b" not in text
    assert alive(started) == []
    events = read_lines(out / "events.jsonl")
    assert sentence in events[-1]["reason"]
    assert sentence in next(each["reason"] for each in events if each["event"] in FAILURES)
    shown = subprocess.run(
        [FAUNO, "status", str(out), "--json"], capture_output=True, text=True, check=True
    )
    status = json.loads(shown.stdout)
    assert status["state"] == "failed"
    assert sentence in status["reason"]
    assert "Traceback" in (out / "flower.log").read_text() or command == DEPLOY
    print(f"{case}, {command[0]}: ended after {lasted:.0f} s")
    assert lasted < PATIENCE
