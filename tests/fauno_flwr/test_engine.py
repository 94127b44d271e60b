"""With Flower's real simulation engine; about a minute, most of it Flower's start."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from fauno_flwr.launcher import MARK, Engine
from tests.fauno_flwr.test_apps import AGENTS, TINY
from tests.fauno_flwr.test_main import FAUNO

ROOT = Path(__file__).parents[2]


def marked() -> list[str]:
    """Processes that a run of ours has started and not stopped."""
    found = []
    for process in psutil.process_iter():
        try:
            if MARK in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def wait_for(engine: Engine, run_id: str) -> tuple[str, str]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        status, details = engine.status(run_id)
        if status.startswith("finished"):
            return status, details
        time.sleep(1)
    raise AssertionError(engine.tail(50))


def test_simulate_trains_through_flower_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [FAUNO, "simulate", *TINY, "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAuNO" in done.stdout
    assert str(out / "summary.json") in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["versions"] == 4
    assert len(summary["nodes"]) == AGENTS
    assert marked() == []


def test_terminating_simulate_leaves_no_process_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [FAUNO, "simulate", *TINY, "federation.versions=5000", "--out", str(tmp_path / "run")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    events = tmp_path / "run" / "events.jsonl"
    end = time.monotonic() + 90
    while not (events.exists() and "flush" in events.read_text()):
        assert time.monotonic() < end, "training did not begin"
        assert process.poll() is None
        time.sleep(0.5)
    assert len(marked()) > 3
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in said
    assert marked() == []


@pytest.mark.parametrize(
    ("run_config", "sentence"),
    [
        ({"overrides": "federation.buffer_size=20"}, "federation.buffer_size is 20: must be at"),
        ({"conf": "nowhere"}, "conf 'nowhere' is not known: must be one of"),
    ],
)
def test_flwr_run_fails_and_says_why(
    run_config: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    with Engine() as engine:
        config = {**run_config, "out": str(tmp_path / "run")}
        status, details = wait_for(engine, engine.submit(ROOT, config, AGENTS, 1))
    assert status == "finished:failed"
    assert sentence in details


@pytest.mark.slow
def test_flwr_run_completes_in_the_checkout(tmp_path: Path) -> None:
    with Engine() as engine:
        config = {"overrides": " ".join(TINY), "out": str(tmp_path / "run")}
        status, details = wait_for(engine, engine.submit(ROOT, config, AGENTS, 2))
    assert status == "finished:completed", details
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(tmp_path: Path) -> None:
    """In an environment that has the dependencies and nothing of the checkout."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel],
        check=True,
    )
    script = "import fauno_flwr; print(fauno_flwr.__file__); from fauno_flwr.main import app; app()"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, "PYTHONPATH": str(target)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(str(target))
        return done.stdout

    assert "LeastQueue" in run("compare", "--seeds", "2", "evaluation.window=100")
    assert "FAuNO" in run("simulate", *TINY, "--out", str(tmp_path / "run"))


def test_the_fab_holds_conf_and_no_tests(tmp_path: Path) -> None:
    flwr = str(Path(FAUNO).with_name("flwr"))
    done = subprocess.run(
        [flwr, "build", "--app", ROOT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (fab,) = tmp_path.glob("*.fab")
    names = zipfile.ZipFile(fab).namelist()
    assert "conf/preset/ether2.yaml" in names
    assert "fauno_flwr/server_app.py" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]
