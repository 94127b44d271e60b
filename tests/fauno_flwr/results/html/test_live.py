"""The report of a run that goes on: served on loopback, anew as the run writes."""

import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.results.html import live
from fauno_flwr.results.html.live import LiveReport, serve_report
from fauno_flwr.results.state import FINISHED, State, append_end, write_process


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run of this process that trains."""
    write_process(tmp_path)
    (tmp_path / "config.yaml").write_text(load_config("ether2").to_yaml())
    (tmp_path / "events.jsonl").write_text('{"event": "stage", "stage": "training"}\n')
    return tmp_path


def write(run: Path, version: int) -> None:
    flush = {"t": 1.0, "event": "flush", "version": version, "nodes": [1], "names": ["rpi_0"]}
    flush |= {"steps": [10.0], "staleness": [0], "norms": [1.0], "scaled_down": 0, "members": [0]}
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps(flush) + "\n")


def get(address: str, host: str | None = None) -> str:
    request = urllib.request.Request(address, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()


def test_it_is_served_until_the_run_has_ended(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.3)
    found: list[str] = []
    worker = threading.Thread(target=serve_report, args=(run, 0, found.append))
    worker.start()
    while not found:
        time.sleep(0.02)
    address = found[0]
    assert address.startswith("http://127.0.0.1:")
    first = json.loads(get(f"{address}/number"))["number"]
    assert "<title>" in get(f"{address}/")
    write(run, 1)
    deadline = time.monotonic() + 90
    while json.loads(get(f"{address}/number"))["number"] == first:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for wrong in (lambda: get(f"{address}/etc"), lambda: get(f"{address}/", "evil.example")):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            wrong()
    append_end(run, State(FINISHED))
    worker.join(90)
    assert not worker.is_alive()
    with pytest.raises(urllib.error.URLError):
        get(f"{address}/")


def test_a_page_is_made_only_when_something_was_written(run: Path) -> None:
    report = LiveReport(run)
    before = report.number
    assert report.update()
    assert report.number == before
    write(run, 1)
    assert report.update()
    assert report.number == before + 1
    append_end(run, State(FINISHED))
    assert not report.update()


def test_what_cannot_be_followed_is_one_sentence(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for arguments, sentence in (
        ([run, other, "--follow"], "--follow takes one run, not 2"),
        ([run, "--port", "80"], "port is 80: has no effect without --follow"),
        ([other, "--follow"], "must be a folder with the results of fauno simulate"),
    ):
        done = CliRunner().invoke(app, ["report", *map(str, arguments)])
        assert done.exit_code == 2
        assert sentence in done.output
    with pytest.raises(ConfigError):
        LiveReport(other)
