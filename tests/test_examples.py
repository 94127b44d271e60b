"""The apps of examples/: one line between FedAvg and BufferedAsync, and what they learn."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate

from fauno_flwr.deployment.engine import Engine
from tests.deployed import run_deployed
from tests.doc_commands import read_page
from tests.paths import ROOT

EXAMPLES = ROOT / "examples"
# Far below what examples/README.md has; guessing gives 10 % of the digits and 63 % of the patients.
LEAST = {
    "quickstart": 0.6,
    "logistic": 0.9,
    "logged": 0.8,
    "private": 0.8,
    "personal": 0.6,
    "boosted": 0.9,
}
ROUNDS = {"fedavg": 20, "async": 40}  # as many trainings


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_flower_builds_the_app_without_a_warning(name: str) -> None:
    _, warnings = load_and_validate(EXAMPLES / name / "pyproject.toml", check_module=False)
    assert warnings == []
    assert build_fab_from_disk(EXAMPLES / name)


@pytest.mark.parametrize("name", [*LEAST, "reuse"])
def test_only_the_import_of_the_strategy_differs(name: str) -> None:
    """The two branches are one line each, and the setting is read nowhere else."""
    folder = EXAMPLES / name / name
    server = (folder / "server_app.py").read_text()
    branches = re.findall(
        r'    if settings\["strategy"\] == "fedavg":\n'
        r"        from flwr.serverapp.strategy import FedAvg as Strategy\n"
        r"    else:\n"
        r"        from strategies import BufferedAsync as Strategy\n",
        server,
    )
    assert len(branches) == 1
    code = "".join(path.read_text() for path in folder.glob("*.py"))
    assert code.count("strategies") == code.count('"strategy"') == 1


def test_the_page_has_every_app() -> None:
    page = read_page("examples/README.md").partition("## When versions swing")[0]
    rows = re.findall(r"^\| \[?(\w+)\]?.*\|$", page, re.MULTILINE)
    for name in LEAST:
        assert rows.count(name) == 2  # what it shows, and what to expect
    assert set(rows) - {"app", "virtual"} == {*LEAST, "reuse"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Return an engine on which all apps run, one after the other."""
    with Engine() as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ROUNDS)
@pytest.mark.parametrize("name", LEAST)
def test_the_app_learns_with_either_strategy(
    name: str, strategy: str, engine: Engine, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    out, logs = tmp_path / "out.json", tmp_path / "logs"
    settings = {"strategy": strategy, "num-rounds": ROUNDS[strategy], "out": str(out)}
    if name == "logged":
        pytest.importorskip("tensorboard")
        settings["log-dir"] = str(logs)
    run_id = engine.submit(EXAMPLES / name, settings, nodes=10, workers=2)
    end = time.monotonic() + 600
    while not engine.status(run_id)[0].startswith("finished"):
        assert time.monotonic() < end, engine.tail(40)
        time.sleep(1)
    assert engine.status(run_id)[0] == "finished:completed", engine.run_log(run_id)[-3000:]
    history = json.loads(out.read_text())
    assert history[-1]["version"] == ROUNDS[strategy]
    final = [each["accuracy"] for each in history[-5:]]
    assert sum(final) / len(final) > LEAST[name]
    if name == "logged":
        check_logs(logs)


def check_logs(folder: Path) -> None:
    """Every node has logged each of its trainings once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    nodes = sorted(folder.iterdir())
    assert len(nodes) == 10
    for node in nodes:
        events = EventAccumulator(str(node)).Reload()
        assert set(events.Tags()["scalars"]) == {
            f"train/{metric}" for metric in ("loss", "num-examples", "version")
        }
        steps = [event.step for event in events.Scalars("train/loss")]
        # Files of the same second are read in any order.
        assert sorted(steps) == list(range(1, len(steps) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ROUNDS)
@pytest.mark.parametrize("name", ["logistic", "personal"])
def test_the_app_runs_in_a_deployment(name: str, strategy: str, tmp_path: Path) -> None:
    """One SuperLink, two SuperNodes; each training starts a process, which takes seconds."""
    pytest.importorskip("sklearn")
    settings = {"strategy": strategy, "num-rounds": 4}
    history = run_deployed(EXAMPLES / name, settings, tmp_path)
    assert [each["version"] for each in history][-4:] == [1, 2, 3, 4]
    first, last = history[0]["accuracy"], history[-1]["accuracy"]
    assert last > (0.9 if name == "logistic" else first)


@pytest.fixture
def gossiping(tmp_path: Path) -> Path:
    """Return the quickstart app with one line changed at either end."""
    pytest.importorskip("sklearn")
    folder = shutil.copytree(EXAMPLES / "quickstart", tmp_path / "app")
    changes = {
        "server_app.py": ("BufferedAsync as Strategy", "Gossip as Strategy"),
        "client_app.py": (
            "app = ClientApp()",
            "app = ClientApp(mods=[__import__('strategies').gossip_mod()])",
        ),
    }
    for name, (old, new) in changes.items():
        path = folder / "quickstart" / name
        code = path.read_text()
        assert code.count(old) == 1
        path.write_text(code.replace(old, new))
    return folder


@pytest.mark.slow
def test_the_app_learns_without_a_global_model(
    gossiping: Path, engine: Engine, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    settings = {"strategy": "async", "num-rounds": 20, "out": str(out)}
    run_id = engine.submit(gossiping, settings, nodes=10, workers=2)
    end = time.monotonic() + 600
    while not engine.status(run_id)[0].startswith("finished"):
        assert time.monotonic() < end, engine.tail(40)
        time.sleep(1)
    assert engine.status(run_id)[0] == "finished:completed", engine.run_log(run_id)[-3000:]
    final = [each["accuracy"] for each in json.loads(out.read_text())[-5:]]
    assert sum(final) / len(final) > LEAST["quickstart"]


@pytest.mark.slow
def test_the_app_is_deployed_without_a_global_model(gossiping: Path, tmp_path: Path) -> None:
    settings = {"strategy": "async", "num-rounds": 4}
    history = run_deployed(gossiping, settings, tmp_path, nodes=4)
    assert [each["version"] for each in history] == [0, 1, 2, 3, 4]
    assert history[-1]["accuracy"] > history[0]["accuracy"]


def test_the_comparison_runs_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(EXAMPLES)
    compare = import_module("compare")
    assert set(compare.APPS) == set(LEAST)
    seconds = compare.training_times(draw=0)
    synchronous = compare.train("logistic", "fedavg", 3, seconds)
    asynchronous = compare.train("logistic", "async", 6, seconds)
    slow = [seconds(0, k) for k in range(3)]  # a round waits for it
    assert [each["t"] for each in synchronous] == pytest.approx([0, *np.cumsum(slow)])
    assert asynchronous[-1]["version"] == 6
    assert asynchronous[-1]["t"] < 9  # at most 1.5 s each
    assert min(each[-1]["accuracy"] for each in (synchronous, asynchronous)) > 0.9
