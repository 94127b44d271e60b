"""Commands that are killed at a random version, and resumed by the same command."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fauno_flwr.results.directory import read_lines
from tests.fauno_flwr.cli.test_main import FAUNO, fauno

TRAINING = ["agent.prior=0", "federation.versions=10"]  # without a prior, a new agent is bad
COMMANDS = {
    "train": ["train", *TRAINING],
    "simulate": ["simulate", *TRAINING],
    "deploy local": [
        *("deploy", "local", "--nodes", "3", "agent.prior=0", "federation.versions=6"),
        "training.seconds_per_message=10",
    ],
}
PATIENCE = 600.0  # seconds


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_lines(out / "events.jsonl") if event["event"] == kind]


def table(out: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads((out / "summary.json").read_text())["table"]
    return {row["policy"]: row for row in rows}


def kill_at(command: list[str], out: Path, version: int, number: int) -> None:
    """Run a command, and kill it once a version has been made."""
    process = subprocess.Popen([FAUNO, *command, "--out", str(out)], stderr=subprocess.PIPE)
    end = time.monotonic() + PATIENCE
    while not out.exists() or len(events(out, "flush")) < version:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert not (out / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_five_times_and_resumed_each_time(tmp_path: Path, command: str) -> None:
    """Five trainings, each killed at a random version, end as the uninterrupted one."""
    settings, rng = COMMANDS[command], random.Random(command)
    whole = tmp_path / "whole"
    assert fauno(*settings, "--out", str(whole)).returncode == 0
    versions = len(events(whole, "flush"))
    for attempt in range(5):
        number = (signal.SIGINT, signal.SIGKILL)[attempt % 2]
        version = rng.randrange(2, versions)  # the first one may not have been saved
        saving = [*settings, f"federation.checkpoints={tmp_path / f'checkpoints-{attempt}'}"]
        kill_at(saving, tmp_path / f"killed-{attempt}", version, number)
        out = tmp_path / f"resumed-{attempt}"
        done = fauno(*saving, "--out", str(out))
        assert done.returncode == 0, done.stderr
        (resumed,) = events(out, "resume")
        assert resumed["version"] in (version - 1, version)
        ours, theirs = table(out), table(whole)
        shown = [t["fauno"]["finished_ratio"] for t in (ours, theirs)]
        print(f"{command}: {number.name} at version {version}: {shown}")
        if command == "train":
            assert ours == theirs
            for name in ("critic", "actors"):
                file = Path("checkpoints") / f"{name}.safetensors"
                assert (out / file).read_bytes() == (whole / file).read_bytes()
            continue
        # The engine runs in real time: two uninterrupted trainings differ by more than the interval
        # over worlds. New agents would have lost what was learned above keeping every task.
        gains = [
            t["fauno"]["finished_ratio"]["mean"] - t["local"]["finished_ratio"]["mean"]
            for t in (ours, theirs)
        ]
        assert gains[0] > 0.9 * gains[1] > 0
        for name in {event["name"] for event in events(out, "reply")}:
            counted = [e["metrics"]["messages"] for e in events(out, "reply") if e["name"] == name]
            assert counted == sorted(set(counted)), "an agent began anew"
