"""With Flower's real simulation engine; about a minute, most of it Flower's start."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fauno_flwr.deployment.engine import Engine, stage_app
from fauno_flwr.deployment.processes import is_zombie
from tests.fauno_flwr.cli.test_main import FAUNO
from tests.fauno_flwr.tiny import AGENTS, TINY
from tests.paths import ROOT


def descendants(pid: int) -> set[psutil.Process]:
    """Everything that a command has started so far, the command itself included."""
    try:
        process = psutil.Process(pid)
        return {process, *process.children(recursive=True)}
    except psutil.Error:
        return set()


def run_watched(arguments: list[str], cwd: Path) -> tuple[int, str, set[psutil.Process]]:
    """Run a command; its exit code, what it said, and every process it was seen to start."""
    seen: set[psutil.Process] = set()
    with (cwd / "said.txt").open("w") as said:
        process = subprocess.Popen(arguments, cwd=cwd, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            seen |= descendants(process.pid)
            time.sleep(0.3)
    return process.returncode, (cwd / "said.txt").read_text(), seen


def alive(processes: set[psutil.Process]) -> list[str]:
    return [str(each) for each in processes if each.is_running() and not is_zombie(each)]


def wait_for(engine: Engine, run_id: str, patience: float = 120.0) -> tuple[str, str]:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        status, details = engine.status(run_id)
        if status.startswith("finished"):
            return status, details
        time.sleep(1)
    raise AssertionError(engine.tail(50))


def test_simulate_trains_through_flower_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "run of ä user"
    code, said, started = run_watched([FAUNO, "simulate", *TINY, "--out", str(out)], tmp_path)
    assert code == 0, said
    assert "FAuNO" in said
    assert str(out / "summary.json") in said
    summary = json.loads((out / "summary.json").read_text())
    assert summary["versions"] == 4
    assert len(summary["nodes"]) == AGENTS
    assert len(started) > 5
    assert alive(started) == []


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
    started = descendants(process.pid)
    assert len(started) > 5
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in said
    assert alive(started) == []


def test_a_signal_while_stopping_does_not_stop_the_stopping() -> None:
    """A child that ignores SIGTERM is killed, although another signal comes in meanwhile."""
    script = """
import os, psutil, signal, subprocess, sys, threading
from fauno_flwr.deployment import engine as launcher
from fauno_flwr.cli.signals import unwinding
stopping = unwinding()
stopping.__enter__()
engine = launcher.Engine()
engine.__enter__()
code = "import signal, time; signal.signal(15, 1); print('up', flush=True); time.sleep(99)"
child = subprocess.Popen([sys.executable, "-c", code], env=engine.environment, stdout=-1)
child.stdout.readline()
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
launcher.STOP_TIMEOUT = 3.0
engine.__exit__(None, None, None)
print(psutil.pid_exists(child.pid), engine.home.exists())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["False", "False"], done.stdout + done.stderr


def test_an_engine_whose_starter_is_killed_is_stopped() -> None:
    script = """
import time
from fauno_flwr.deployment.engine import Engine
with Engine() as engine:
    print(engine.home, flush=True)
    time.sleep(99)
"""
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    home = Path(starter.stdout.readline().strip())
    started = descendants(starter.pid)
    assert len(started) > 2
    starter.kill()
    starter.communicate()
    assert psutil.wait_procs(started, timeout=30)[1] == []
    assert not home.exists()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as started:
        yield started


@pytest.mark.parametrize(
    ("run_config", "sentence"),
    [
        ({"overrides": "federation.buffer_size=20"}, "federation.buffer_size is 20: must be at"),
        *(
            pytest.param(run_config, sentence, marks=pytest.mark.slow)
            for run_config, sentence in (
                ({"out": "/proc/nothing/run"}, "out is '/proc/nothing/run': cannot be written"),
                ({"overrides": "federation.bufer=2"}, "key is 'federation.bufer': must be one of"),
                ({"overrides": "workload.rate=-1"}, "workload.rate is -1.0: must be"),
                ({"overrides": "training.peers=best"}, "training.peers is 'best': must be one of"),
            )
        ),
    ],
)
def test_flwr_run_fails_and_says_why(
    engine: Engine, run_config: dict[str, str], sentence: str
) -> None:
    status, details = wait_for(engine, engine.submit(ROOT, run_config, AGENTS, 1))
    assert status == "finished:failed"
    assert sentence in details


def test_the_compiled_kernel_serves_another_folder_and_another_process(tmp_path: Path) -> None:
    """A FAB is a new folder for every build: what one compiled, the next one finds."""
    script = "from sim_env.scenario import load_scenario as s; from sim_env.world import World as w"
    script += "; w(s('ether2'), [1])"  # compiles the two functions that seed a world
    counts = []
    for name in ("first", "second"):
        shutil.copytree(ROOT / "sim_env", tmp_path / name / "sim_env")
        subprocess.run(
            [sys.executable, "-c", script],
            env={
                **os.environ,
                "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
                "PYTHONPATH": str(tmp_path / name),
            },
            check=True,
        )
        counts.append(len(list((tmp_path / "cache").rglob("*.nbc"))))
    assert counts == [2, 2]


@pytest.mark.slow
def test_the_demo_beats_the_baselines(tmp_path: Path) -> None:
    """Paired 95 % intervals against LeastQueue exclude 0 in both measures."""
    out = tmp_path / "demo"
    subprocess.run([FAUNO, "simulate", "--out", str(out)], check=True)
    rows = {row["policy"]: row for row in json.loads((out / "summary.json").read_text())["table"]}
    minus = rows["fauno"]["minus"]["lq"]
    assert minus["finished_ratio"]["low"] > 0
    assert minus["response_mean"]["high"] < 0
    for other in ("random", "local"):
        assert rows["fauno"]["finished_ratio"]["low"] > rows[other]["finished_ratio"]["high"]


@pytest.mark.slow
def test_flwr_run_completes_in_the_checkout(tmp_path: Path) -> None:
    with Engine() as engine:
        config = {"overrides": " ".join(TINY), "out": str(tmp_path / "run")}
        status, details = wait_for(engine, engine.submit(ROOT, config, AGENTS, 2))
    assert status == "finished:completed", details
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(tmp_path: Path) -> None:
    """Away from the checkout, with nothing but what the wheel asks for."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bin_dir = tmp_path / "venv" / "bin"
    subprocess.run([bin_dir / "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([bin_dir / "pip", "install", "-q", wheel], check=True)

    def fauno(*arguments: str) -> str:
        done = subprocess.run(
            [bin_dir / "fauno", *arguments],
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "LeastQueue" in fauno("compare", "--seeds", "2", "evaluation.window=100")
    assert "FAuNO" in fauno("simulate", *TINY, "--out", str(tmp_path / "run"))


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


@pytest.mark.slow
def test_any_gymnasium_environment_is_learned_through_flower(tmp_path: Path) -> None:
    """The run config names it; client, strategy and results are those of every other run."""
    out = tmp_path / "run"
    with Engine() as engine:
        settings = {
            "conf": "cartpole",
            "env-id": "CartPole-v1",
            "overrides": "federation.versions=4 evaluation.worlds=2",
            "out": str(out),
        }
        run_id = engine.submit(stage_app(engine.home / "app"), settings, 4, 2)
        assert wait_for(engine, run_id, 500.0)[0] == "finished:completed", engine.run_log(run_id)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["env_id"] == "CartPole-v1"
    assert summary["versions"] == 4
    assert [row["policy"] for row in summary["table"]] == ["fauno", "random"]
    assert len(summary["nodes"]) == 4
