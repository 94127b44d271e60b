"""What an operator sees of a run: status, Prometheus' text, the log; without an engine."""

import json
import logging
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.common.logger import FLOWER_LOGGER, log

from fauno_flwr.cli.metrics import format_metrics, serve
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.logs import SETTING, set_up_logging
from fauno_flwr.results.status import failures, format_status
from tests.fauno_flwr.cli.test_main import fauno

METRICS = {"num-steps": 10, "messages": 1}
ABOUT = {"version": 0, "staleness": 0, "latency": 2.0, "kind": "train", "message": "m"}
EVENTS = [
    {"event": "stage", "stage": "training", "since_start": 1.0},
    {"event": "dispatch", "t": 0.0, "node": 1, "name": "a"},
    {"event": "dispatch", "t": 0.0, "node": 2, "name": 'b"\\'},
    {"event": "reply", "t": 2.0, "node": 1, "name": "a", "metrics": METRICS, **ABOUT},
    {"event": "reject", "t": 2.0, "node": 2, "name": 'b"\\', "check": "finite", "reason": "NaN"},
    {"event": "reject", "t": 3.0, "node": 2, "name": 'b"\\', "check": "finite", "reason": "NaN"},
    {"event": "error", "t": 4.0, "node": 2, "name": 'b"\\', "code": 3, "reason": "time is over"},
    {"event": "flush", "t": 4.0, "version": 1, "nodes": [1], "names": ["a"], "staleness": [0]},
]
LABELS = r'\{(?:\w+="(?:[^"\\\n]|\\.)*",?)+\}'
LINE = re.compile(rf"# (HELP|TYPE) \w+ .+|\w+({LABELS})? -?[\d.e+]+")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(RunConfig().to_yaml())
    lines = [json.dumps(event) for event in EVENTS]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_failures_are_counted_by_node_and_reason() -> None:
    assert failures(EVENTS) == {'b"\\': {"finite": 2, "message-unavailable": 1}}
    told = format_status(EVENTS, 5)
    assert told.startswith("training, version 1/5\n")
    assert "2 x finite, 1 x message-unavailable; the last: time is over" in told


def test_metrics_are_in_the_text_format() -> None:
    text = format_metrics(EVENTS)
    assert text.endswith("\n")
    lines = text.splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert "fauno_version 1" in lines
    assert 'fauno_node_replies_total{node="a"} 1' in lines
    assert 'fauno_node_failures_total{node="b\\"\\\\",reason="finite"} 2' in lines
    samples = [line for line in lines if not line.startswith("#")]
    assert len(samples) == len({line.rsplit(" ", 1)[0] for line in samples})


def test_metrics_are_served_from_what_the_run_has_written(out: Path) -> None:
    with serve(out, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            for _ in range(2):
                with urllib.request.urlopen(f"{url}/metrics") as answer:
                    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                    assert answer.read().decode() == format_metrics(EVENTS)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{url}/events.jsonl")
        finally:
            server.shutdown()
            thread.join()


def test_metrics_are_printed_once_without_a_port(out: Path) -> None:
    done = fauno("metrics", str(out))
    assert (done.returncode, done.stdout) == (0, format_metrics(EVENTS))
    assert fauno("metrics", "/proc").returncode == 2


@pytest.fixture
def flower_log() -> Iterator[None]:
    before = list(FLOWER_LOGGER.handlers)
    yield
    FLOWER_LOGGER.handlers[:] = before


def test_the_log_is_json_lines_if_asked_for(
    flower_log: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SETTING, "json")
    set_up_logging()
    set_up_logging()
    log(logging.INFO, 'two\nlines and a "quote" of %s', "node ä")
    try:
        raise RuntimeError("no")
    except RuntimeError:
        log(logging.ERROR, "failed", exc_info=True)
    first, second = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert first["level"] == "info"
    assert first["message"] == 'two\nlines and a "quote" of node ä'
    assert "RuntimeError: no" in second["exception"]


def test_an_unknown_format_of_the_log_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "xml")
    with pytest.raises(ConfigError, match="FAUNO_LOG_FORMAT is 'xml': must be text or json"):
        set_up_logging()
