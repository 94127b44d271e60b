"""What an operator sees of a run: status, metrics for Prometheus, the log; without an engine."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from flwr.common.logger import FLOWER_LOGGER, log
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.logs import SETTING, set_up_logging
from fauno_flwr.results import bounded_http
from fauno_flwr.results.directory import read_lines
from fauno_flwr.results.prometheus import make_metrics_server, make_registry
from fauno_flwr.results.state import (
    FAILED,
    FINISHED,
    GONE,
    INTERRUPTED,
    RUNNING,
    STATES,
    UNKNOWN,
    State,
    append_end,
    state_of,
    write_process,
)
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
TYPES = {
    "fauno_run_state": "gauge",
    "fauno_version": "gauge",
    "fauno_nodes": "gauge",
    "fauno_node_dispatches": "counter",
    "fauno_node_replies": "counter",
    "fauno_node_merged": "counter",
    "fauno_node_steps": "counter",
    "fauno_node_staleness_mean": "gauge",
    "fauno_node_staleness_max": "gauge",
    "fauno_node_latency_seconds_mean": "gauge",
    "fauno_node_failures": "counter",
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(RunConfig().to_yaml())
    lines = [json.dumps(event) for event in EVENTS]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_failures_are_counted_by_node_and_reason() -> None:
    assert failures(EVENTS) == {'b"\\': {"finite": 2, "message-unavailable": 1}}
    text = format_status(EVENTS, 5, State(FAILED, "too few nodes"))
    assert text.startswith("failed: too few nodes\ntraining, version 1/5\n")
    assert "2 x finite, 1 x message-unavailable; the last: time is over" in text


def test_a_run_is_running_as_long_as_its_process_then_gone(out: Path) -> None:
    program = (
        "import pathlib, sys, time; from fauno_flwr.results.state import write_process;"
        "write_process(pathlib.Path(sys.argv[1])); print(flush=True); time.sleep(600)"
    )
    arguments = [sys.executable, "-c", program, str(out)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert state_of(out, EVENTS) == State(RUNNING)
        process.kill()
    assert state_of(out, EVENTS).name == GONE
    values = json.loads((out / "process.json").read_text())
    own = {**values, "pid": os.getpid()}  # a process that has got the number of the run's
    (out / "process.json").write_text(json.dumps(own))
    assert state_of(out, EVENTS).name == GONE
    (out / "process.json").write_text(json.dumps({**own, "host": "another"}))
    assert state_of(out, EVENTS).name == UNKNOWN


def test_what_a_run_says_about_its_end_is_its_state(out: Path) -> None:
    write_process(out)
    path = out / "events.jsonl"
    with path.open("a") as file:
        file.write('{"event": "err')  # killed in the course of a line
    append_end(out, State(INTERRUPTED, "SIGINT"))
    done = fauno("status", str(out), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    values = json.loads(done.stdout)
    assert (values["state"], values["reason"]) == (INTERRUPTED, "SIGINT")
    assert (values["stage"], values["version"]) == ("training", 1)
    append_end(out, State(FINISHED))
    append_end(out, State(INTERRUPTED, "SIGINT"))  # too late
    assert state_of(out, read_lines(path)) == State(FINISHED)


def test_an_event_that_was_never_whole_is_not_followed_by_an_end(out: Path) -> None:
    path = out / "events.jsonl"
    for text in ("", '{"event": "sta'):
        path.write_text(text)
        append_end(out, State(INTERRUPTED, "SIGINT"))
        assert path.read_text() == text


def exported(out: Path) -> str:
    return generate_latest(make_registry(out)).decode()


def test_metrics_have_their_names_types_and_labels(out: Path) -> None:
    families = list(text_string_to_metric_families(exported(out)))
    assert {family.name: family.type for family in families} == TYPES
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["fauno_version",] == 1
    assert samples["fauno_nodes",] == 2
    assert samples["fauno_node_replies_total", "a"] == 1
    assert samples["fauno_node_steps_total", "a"] == 10
    assert samples["fauno_node_latency_seconds_mean", "a"] == 2.0
    assert samples["fauno_node_failures_total", 'b"\\', "finite"] == 2
    assert 'fauno_node_failures_total{node="b\\"\\\\",reason="finite"} 2.0\n' in exported(out)
    assert len(samples) == len(STATES) + 2 + 7 * 2 + 2
    assert samples["fauno_run_state", UNKNOWN] == 1  # there is no process.json
    assert sum(samples["fauno_run_state", name] for name in STATES) == 1


def test_metrics_are_served_from_what_the_run_has_written(out: Path) -> None:
    with make_metrics_server(out, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            for _ in range(2):
                with urllib.request.urlopen(f"{url}/metrics") as answer:
                    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                    assert answer.read().decode() == exported(out)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{url}/events.jsonl")
        finally:
            server.shutdown()
            thread.join()


def hold_half_requests(out: Path, count: int = 150) -> None:
    """Assert that half requests hold few threads, for a short time, and no honest one back."""
    before = set(threading.enumerate())
    with make_metrics_server(out, "127.0.0.1", 0) as server, ExitStack() as stack:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        address = ("127.0.0.1", server.server_port)

        def others() -> set[threading.Thread]:
            return set(threading.enumerate()) - before - {serving}

        try:
            connections = []
            for _ in range(count):
                each = stack.enter_context(socket.create_connection(address, timeout=10))
                each.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
                connections.append(each)
            time.sleep(0.3)
            assert len(others()) <= bounded_http.MOST_CONNECTIONS
            url = f"http://127.0.0.1:{server.server_port}/metrics"
            assert urllib.request.urlopen(url, timeout=5).status == 200
            end = time.monotonic() + 3
            while (left := others()) and time.monotonic() < end:
                with suppress(OSError):  # it is closed from the other side
                    connections[-1].send(b"x")  # a byte now and then keeps nothing open
                time.sleep(0.1)
            assert not left
        finally:
            server.shutdown()
            serving.join()


def test_half_requests_hold_few_threads_for_a_short_time(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_http, "DEADLINE", 1.0)
    hold_half_requests(out)


@pytest.mark.parametrize("guard", ["bound", "deadline"])
def test_half_requests_pile_up_without_the_guard(
    out: Path, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    monkeypatch.setattr(bounded_http, "DEADLINE", 20.0)
    if guard == "bound":
        monkeypatch.setattr(bounded_http.BoundedServer, "_make_room", lambda server: None)
    with pytest.raises(AssertionError):
        hold_half_requests(out)


def test_metrics_are_printed_once_without_a_port(out: Path) -> None:
    done = fauno("metrics", str(out))
    assert (done.returncode, done.stdout) == (0, exported(out))
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
    assert list(first) == ["time", "level", "logger", "process", "message"]
    assert datetime.fromisoformat(first["time"]).utcoffset() == timedelta(0)
    assert len(first["time"]) == len("2026-01-01T00:00:00.000+00:00")
    assert (first["level"], first["logger"], first["process"]) == ("info", "flwr", os.getpid())
    assert first["message"] == 'two\nlines and a "quote" of node ä'
    assert "RuntimeError: no" in second["exception"]


def test_an_unknown_format_of_the_log_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "xml")
    with pytest.raises(ConfigError, match="FAUNO_LOG_FORMAT is 'xml': must be text or json"):
        set_up_logging()


def test_a_process_that_logs_text_does_not_import_the_json_formatter() -> None:
    script = "import sys; from fauno_flwr.federation.logs import set_up_logging; set_up_logging(); "
    script += "print('pythonjsonlogger' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key != SETTING}
    for form, imported in (({}, "False"), ({SETTING: "json"}, "True")):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**environment, **form},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == imported
