"""What nodes report, and a full disk, cannot end a run, nor its report."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from fauno_flwr import client_app
from fauno_flwr.config.loading import load_config
from fauno_flwr.federation import summary
from fauno_flwr.federation.protocol import METRICS
from fauno_flwr.federation.run import Run
from fauno_flwr.federation.sizing import SizedGuard
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.results import directory, report
from fauno_flwr.results.directory import RunDirectory, append_line, read_lines
from fauno_flwr.results.state import State
from fauno_flwr.results.status import format_status, node_statistics
from fauno_flwr.tasks.edge import EdgeTask
from strategies import Guard
from strategies.grids import InMemoryGrid
from tests.fauno_flwr.tiny import AGENTS, TINY

HOSTILE = {
    "reward": [1.0, 2.0],
    "response": float("nan"),
    "eval/return": 1e9,
    "time/wall": -1.0,
    "x" * 5000: 1.0,
    **{f"m{i}": 1.0 for i in range(256)},
    STEPS: 3,
}


def hostile_app(message: Message, context: Context) -> Message:
    """Train as the app does; partition 0 reports other metrics."""
    reply = client_app.app(message, context)
    if context.node_config["partition-id"] == 0 and METRICS in reply.content:
        record = reply.content.metric_records[METRICS]
        for name in list(record):
            del record[name]
        for name, value in HOSTILE.items():
            record[name] = value
    return reply


def run(out: Path, **settings: Any) -> Path:
    """Run a tiny federation with one hostile node; return the folder of its results."""
    config = load_config("ether2", [*TINY, *(f"{key}={value}" for key, value in settings.items())])
    task = EdgeTask(config, config.build_scenario())
    Run(InMemoryGrid(hostile_app, AGENTS), config, task, RunDirectory(out)).execute()
    return out


def test_hostile_metrics_end_neither_the_run_nor_its_report(tmp_path: Path) -> None:
    out = run(tmp_path / "run")
    written = json.loads((out / "summary.json").read_text())
    assert written["versions"] == 4
    assert all(node["steps"] > 0 for node in written["nodes"].values())
    assert (out / "figures" / "learning.png").exists()
    for row in read_lines(out / "metrics.jsonl"):
        assert row["time/wall"] >= 0
        assert "eval/return" not in row
        assert isinstance(row["train/reward"], float)
        assert len(row) < 100


@pytest.mark.parametrize(
    ("name", "value"),
    [("usable", lambda self, metrics: dict(metrics)), ("is_name", Guard.is_name)],
)
def test_hostile_metrics_reach_the_results_without_the_schema(
    name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SizedGuard, name, value)
    with pytest.raises(AssertionError):
        test_hostile_metrics_end_neither_the_run_nor_its_report(tmp_path)


ODD_EVENTS = [
    {"event": "reply", "name": "a", "node": 1, "version": 0, "latency": 1.0, "metrics": metrics}
    for metrics in ({}, {"reward": None}, {"reward": [1.0]}, {"reward": 2.0, "response": "x"})
]


def test_figures_and_statistics_are_of_the_metrics_that_there_are(tmp_path: Path) -> None:
    report.plot_learning(ODD_EVENTS, tmp_path / "learning.png")
    assert (tmp_path / "learning.png").exists()
    report.plot_learning(ODD_EVENTS[:3], tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()
    assert node_statistics(ODD_EVENTS)["a"]["steps"] == 0


def test_a_report_that_cannot_be_made_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    for module, name in (
        (report, "plot_learning"),
        (report, "plot_rows"),
        (report, "format_rows"),
        (summary, "node_statistics"),
    ):
        monkeypatch.setattr(module, name, broken)
    out = run(tmp_path / "run")
    assert json.loads((out / "summary.json").read_text())["nodes"] is None
    assert sum("cannot be made: RuntimeError: broken" in text for text in caplog.messages) == 4


class FullDisk:
    """Files to which nothing can be appended for a while."""

    def __init__(self, full: range) -> None:
        self.full, self.calls = full, 0

    def append_line(self, path: Path, line: str) -> None:
        self.calls += 1
        if self.calls in self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        append_line(path, line)


def test_a_full_disk_of_the_server_pauses_its_events_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk(range(10, 25))
    monkeypatch.setattr(directory, "append_line", disk.append_line)
    out = run(tmp_path / "run")
    assert disk.calls > 25
    assert json.loads((out / "summary.json").read_text())["versions"] == 4
    said = [text for text in caplog.messages if "events.jsonl cannot be written" in text]
    assert said == ["events.jsonl cannot be written (No space left on device); the run goes on"]


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system takes a part of a line, then nothing more."""
    path = tmp_path / "events.jsonl"
    append_line(path, '{"event": "a"}\n')
    opened = Path.open

    class Half:
        def __init__(self, file: Any) -> None:
            self.file, self.full = file, False

        def __enter__(self) -> "Half":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.full = True
            return int(self.file.write(data[: len(data) // 2]))

    monkeypatch.setattr(Path, "open", lambda self, *args, **more: Half(opened(self, *args, **more)))
    with pytest.raises(OSError, match="No space left"):
        append_line(path, '{"event": "b"}\n')
    monkeypatch.setattr(Path, "open", opened)
    append_line(path, '{"event": "c"}\n')
    assert [event["event"] for event in read_lines(path)] == ["a", "c"]


def test_a_ban_is_shown_by_the_status() -> None:
    events = [
        {"event": "dispatch", "name": "a", "node": 1},
        {"event": "ban", "name": "a", "node": 1, "offences": 6, "reason": "norm is 9e5"},
    ]
    text = format_status(events, 4, State("running"))
    assert "a is banned after 6 offences; the last: norm is 9e5" in text


def test_the_metrics_of_a_node_are_numbers_and_few() -> None:
    guard = SizedGuard.__new__(SizedGuard)
    guard.weighted_by_key = STEPS
    kept = guard.usable({**HOSTILE, "loss": 1.5, "flag": True})
    assert len(kept) == guard.most_metrics
    assert kept[STEPS] == 3
    assert all(isinstance(value, float | int) and np.isfinite(value) for value in kept.values())
