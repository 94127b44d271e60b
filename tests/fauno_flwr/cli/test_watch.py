"""``fauno status --watch``: a view that follows a run until it has ended."""

import io
import json
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fauno_flwr.cli import watch as module
from fauno_flwr.cli.main import app
from fauno_flwr.cli.watch import Watch, sparkline, watch
from fauno_flwr.results.state import FINISHED, State, append_end, write_process


def append(folder: Path, name: str, row: dict) -> None:
    with (folder / name).open("a") as file:
        file.write(json.dumps(row) + "\n")


def reply(node: str) -> dict:
    return {"event": "reply", "name": node, "latency": 2.0, "metrics": {"num-steps": 10}}


def flush(version: int) -> dict:
    return {"event": "flush", "version": version, "names": ["rpi_0"], "staleness": [0]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run of this process, which has made one version."""
    write_process(tmp_path)
    (tmp_path / "config.yaml").write_text("federation: {versions: 4}\n")
    append(tmp_path, "events.jsonl", {"event": "stage", "stage": "training"})
    append(tmp_path, "events.jsonl", reply("rpi_0"))
    append(tmp_path, "events.jsonl", flush(1))
    append(tmp_path, "metrics.jsonl", {"version": 1, "time/wall": 3.0, "train/reward": 0.1})
    return tmp_path


def test_it_follows_a_run_to_its_end(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH", 0.02)
    console = Console(record=True, force_terminal=True, width=120, file=io.StringIO())

    def wait_for(text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in console.export_text(clear=False) and time.monotonic() < deadline:
            time.sleep(0.01)

    def work() -> None:
        wait_for("version 1/4")
        for version in (2, 3):
            row = {"version": version, "time/wall": 3.0 * version, "train/reward": 0.5}
            append(run, "metrics.jsonl", row)
            append(run, "events.jsonl", flush(version))
            wait_for(f"version {version}/4, {3 * (4 - version)} s left")
        error = {"event": "error", "name": "tx2_0", "node": 1, "reason": "no answer", "code": 1}
        append(run, "events.jsonl", error)
        wait_for("tx2_0: 1 x")
        append_end(run, State(FINISHED))

    worker = threading.Thread(target=work)
    worker.start()
    assert watch(run, 4, console).name == FINISHED
    worker.join()
    shown = console.export_text()
    for expected in ("version 1/4", "version 2/4", "3 s left", "rpi_0", "finished", "tx2_0: 1 x"):
        assert expected in shown, expected


def test_without_a_terminal_it_prints_lines(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH", 0.01)
    append_end(run, State(FINISHED))
    result = CliRunner().invoke(app, ["status", str(run), "--watch"])
    assert result.exit_code == 0
    assert result.output == "finished: training, version 1/4\n"


def test_time_left_is_that_of_the_last_versions(run: Path) -> None:
    seen = Watch(run, 4)
    seen.update()
    assert seen.seconds_left(seen.metrics) is None  # of one version nothing follows
    append(run, "metrics.jsonl", {"version": 2, "time/wall": 8.0})
    append(run, "events.jsonl", flush(2))
    seen.update()
    assert seen.seconds_left(seen.metrics) == pytest.approx(10.0)


def test_json_and_watch_exclude_each_other(run: Path) -> None:
    result = CliRunner().invoke(app, ["status", str(run), "--watch", "--json"])
    assert result.exit_code == 2
    assert "--json and --watch exclude each other" in result.output


def test_a_sparkline_spans_its_values() -> None:
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([3.0, 3.0, 3.0]) == "▁▁▁"
    assert len(sparkline(list(range(100)))) == module.WIDTH
