"""Deployments in separate processes on loopback; minutes each on an idle machine."""

import contextlib
import json
import math
import os
import re
import signal
import socket
import stat
import subprocess
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from fauno_flwr.deployment.engine import free_addresses
from fauno_flwr.deployment.keys import write_node_key
from fauno_flwr.deployment.local import Deployment
from fauno_flwr.results.directory import read_lines
from tests.fauno_flwr.cli.test_main import FAUNO
from tests.fauno_flwr.deployment.conftest import LITTLE, Started, names_of
from tests.fauno_flwr.deployment.test_engine import alive, descendants, run_watched

pytestmark = pytest.mark.slow
PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)-----END", re.DOTALL)


@pytest.mark.parametrize("options", [[], ["--no-warm"]], ids=["warm", "as-flower-does-it"])
def test_deploy_local_trains_and_leaves_nothing_behind(tmp_path: Path, options: list[str]) -> None:
    out = tmp_path / "run"
    # Longer than two rollouts take on a busy machine, so that more are requested.
    settings = [*LITTLE, "training.seconds_per_message=12", "federation.versions=5"]
    command = [FAUNO, "deploy", "local", "--nodes", "3", "--out", str(out), *options, *settings]
    code, said, started = run_watched(command, tmp_path)
    assert code == 0, said
    assert "FAuNO" in said
    assert ("worker-2: process" in said) == (not options)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["versions"] == 5
    assert len(summary["nodes"]) == 3
    assert len(started) > 8
    assert alive(started) == []
    rollouts = [e["rollouts"] for e in read_lines(out / "events.jsonl") if e["event"] == "reply"]
    assert rollouts[0] == 2
    # A new process for each message may take all of these seconds on a busy machine.
    assert rollouts[-1] > 2 or options
    shown = subprocess.run([FAUNO, "status", str(out)], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("finished\ndone, version 5/5\n")
    for name, node in summary["nodes"].items():
        (line,) = [line for line in shown.stdout.splitlines() if line.startswith(f"{name} ")]
        assert line.split()[1:3] == [str(node["replies"]), str(node["merged"])]


def test_a_failing_run_is_exit_code_1(tmp_path: Path) -> None:
    settings = [*LITTLE, "federation.timeout=0.001"]
    command = [FAUNO, "deploy", "local", "--nodes", "2", "--out", str(tmp_path / "run"), *settings]
    code, said, started = run_watched(command, tmp_path)
    assert code == 1, said
    assert "no version was made in federation.timeout" in said
    assert alive(started) == []


def tokens_of(deployment: Deployment) -> set[bytes]:
    """Return the tokens of running tasks, which Flower passes on command lines."""
    found = set()
    for service in deployment.services.values():
        for process in descendants(service.process.pid):
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if "--token" in command:
                    found.add(command[command.index("--token") + 1].encode())
    return found


def ask_in_plain_text(address: str) -> bytes:
    """Send an HTTP request without TLS; return the answer."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        try:
            return connection.recv(1024)
        except ConnectionResetError:
            return b""


def secrets_of(home: Path) -> list[bytes]:
    """Return the secrets: of the SuperExec, and a late line of each private key.

    The first lines of two keys are the same.
    """
    found = [(home / "superexec.secret").read_bytes()]
    for path in home.rglob("*"):
        if path.is_file() and (key := PRIVATE.search(path.read_bytes())):
            found.append(key.group(1).split()[-2])
    return found


def test_tls_and_keys_keep_strangers_out_and_secrets_in(tmp_path: Path) -> None:
    with Deployment(3, tls=True, auth=True) as deployment:
        run = Started(deployment, tmp_path / "run", "federation.versions=5")
        run.wait(lambda: run.events("dispatch"))

        stranger = tmp_path / "stranger"
        write_node_key(stranger)
        (address,) = free_addresses(1)
        refused = deployment.spawn("stranger", *deployment.node_command(0, address, stranger))
        assert refused.wait(60) != 0
        assert "Sent successfully" not in (deployment.home / "stranger.log").read_text()

        assert b"200" not in ask_in_plain_text(deployment.address)
        plain = deployment.node_command(0, address)
        at = plain.index("--root-certificates")
        plain[at : at + 2] = ["--insecure"]
        plain_node = deployment.spawn("plain", *plain, "--max-retries", "1")
        assert plain_node.wait(60) != 0

        tokens = tokens_of(deployment)
        run.end()
        assert run.summary()["versions"] == 5
        assert len({event["node"] for event in run.events("dispatch")}) == 3
        assert run.events("error") == []

        secret = secrets_of(deployment.home)
        assert len(set(secret)) == 1 + 1 + 3  # of the SuperExec, of the server, of the nodes
        written = run.logs() + [path for path in run.out.rglob("*") if path.is_file()]
        texts = [path.read_bytes() for path in written]
        texts.append(deployment.run_log(run.run_id).encode())
        assert tokens
        assert not [text for text in texts for each in (*secret, *tokens) if each in text]
        assert stat.S_IMODE(deployment.home.stat().st_mode) == 0o700
        for path in deployment.home.rglob("*"):
            if path.is_file() and any(each in path.read_bytes() for each in secret):
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        files = list(deployment.home.glob("node-*/state/agent-*.state"))
        assert len(files) == 3
        for path in files:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("secure", "warm"),
    [(False, False), (True, True), (False, True)],
    ids=["as-flower-does-it", "tls-auth", "no-tls"],
)
def test_a_killed_node_resumes_with_its_agent(tmp_path: Path, secure: bool, warm: bool) -> None:
    """The others do not wait for it; after its restart its counter continues."""
    with Deployment(3, tls=secure, auth=secure, warm=warm) as deployment:
        settings = ["federation.versions=5000", "federation.buffer_size=2"]
        run = Started(deployment, tmp_path / "run", *settings)
        name = run.wait(lambda: run.events("reply"))[0]["name"]
        run.wait(lambda: len(run.events("dispatch", name)) > len(run.events("reply", name)))
        numbers = {
            json.loads(path.read_bytes().partition(b"\n")[0])["agent"]
            for path in deployment.home.glob("node-*/state/agent-*.state")
        }
        victim = next(
            service
            for number in numbers
            if (service := deployment.services[f"supernode-{number}"])
            and names_of(run)[number] == name
        )
        before = len(run.events("reply", name))
        killed_at = run.events()[-1].get("t", 0.0)
        killed = time.monotonic()
        os.kill(victim.process.pid, signal.SIGKILL)
        run.wait(lambda: len(run.events("reply", name)) > before)
        away = time.monotonic() - killed
        replies = run.events("reply", name)
        counters = [int(event["metrics"]["messages"]) for event in replies]
        # The message that was lost may have been trained and saved before the plug was pulled.
        assert counters[before] - counters[before - 1] in (1, 2), counters
        assert victim.restarts >= 1
        others = [event for event in run.events("flush") if event["t"] > killed_at]
        meanwhile = [e for e in others if e["t"] < replies[before]["t"] and name not in e["names"]]
        assert meanwhile, "no version was made without the dead node"
        unmerged: Counter[int] = Counter()
        for event in run.events():
            if event["event"] == "reply":
                unmerged[event["node"]] += 1
            elif event["event"] == "flush":
                unmerged.subtract(event["nodes"])
                assert min(unmerged.values()) >= 0, "an update was merged twice"
        given_up = next(e["t"] for e in run.events("error", name) if e["t"] > killed_at)
        going_on = {
            event["name"]
            for event in run.events("dispatch")
            if killed_at < event["t"] < given_up and event["name"] != name
        }
        assert len(going_on) == 2, "the others waited for the dead node"
        usual, waits = (turnarounds(run, name, *span) for span in ((0, killed_at), (killed_at,)))
        print(
            f"\nback after {away:.0f} s; {len(meanwhile)} versions meanwhile; counter "
            f"{counters[before - 1]} -> {counters[before]}; from reply to next message, s: "
            f"before the kill {sorted(usual)}, after {sorted(waits)}; restarts {victim.restarts}"
        )
        # The nodes share this machine with their server, so this holds on an idle machine only.
        assert max(waits) < 1.0


def turnarounds(run: Started, name: str, since: float, until: float = math.inf) -> list[float]:
    """Return the seconds from each reply of the other nodes to their next message."""
    waits, replied = [], {}
    for event in run.events():
        if event.get("name", name) == name or not since <= event.get("t", -1.0) <= until:
            continue
        if event["event"] == "reply":
            replied[event["node"]] = event["t"]
        elif event["event"] == "dispatch" and event["node"] in replied:
            waits.append(round(event["t"] - replied.pop(event["node"]), 3))
    return waits


@pytest.mark.parametrize("victim", ["worker-0", "supernode-0", "message"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_node_resumes_after_its_worker_was_stopped_or_its_supernode_or_a_message(
    tmp_path: Path, victim: str, number: signal.Signals
) -> None:
    """Its messages run in forks of the worker, which end with it; the others go on meanwhile."""
    with Deployment(3, tls=True, auth=True) as deployment:
        settings = ["federation.versions=5000", "federation.buffer_size=2"]
        run = Started(deployment, tmp_path / "run", *settings)
        name = names_of(run)[0]
        run.wait(lambda: run.events("reply", name))
        worker = deployment.services["worker-0"]
        # One that has just begun: at its end, a message may be sent before it is stopped.
        known = set(psutil.Process(worker.process.pid).children())
        messages = run.wait(lambda: set(psutil.Process(worker.process.pid).children()) - known)
        before = len(run.events("reply", name))
        service = deployment.services.get(victim)
        stopped = [service.process.pid] if service else [each.pid for each in messages]
        for pid in stopped:
            os.kill(pid, number)
        if victim != "supernode-0":
            run.wait(lambda: not alive(messages), 10)  # no fork outlives its worker
        versions = len(run.events("flush"))
        run.wait(lambda: len(run.events("reply", name)) > before + 1)
        assert len(run.events("flush")) > versions
        assert service is None or service.restarts >= 1
        assert service is not None or worker.restarts == 0
        if service is None:
            assert run.events("error", name), "the message that was stopped is reported"
        counters = [int(event["metrics"]["messages"]) for event in run.events("reply", name)]
        assert counters[before] - counters[before - 1] in (1, 2), counters
        started = descendants(worker.process.pid)
        assert not [p for p in started if "--token" in p.cmdline()]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls-auth"])
def test_a_run_outlives_its_superlink(tmp_path: Path, secure: bool) -> None:
    with Deployment(3, tls=secure, auth=secure) as deployment:
        run = Started(deployment, tmp_path / "run", "federation.versions=8")
        run.wait(lambda: run.events("flush"))
        service = deployment.services["superlink"]
        os.kill(service.process.pid, signal.SIGKILL)
        run.end()
        assert service.restarts == 1
        versions = [event["version"] for event in run.events("flush")]
        assert versions == list(range(1, 9))
        messages = [event["message"] for event in run.events("reply")]
        assert len(messages) == len(set(messages)), "a reply was counted twice"


def test_a_training_resumes_after_its_server_was_killed(tmp_path: Path) -> None:
    """A new run with the same checkpoints resumes from the last version, with the same nodes."""
    settings = ["federation.versions=6", f"federation.checkpoints={tmp_path / 'training'}"]
    with Deployment(3) as deployment:
        first = Started(deployment, tmp_path / "first", *settings)
        first.wait(lambda: len(first.events("flush")) >= 2)
        serverapps = [
            process
            for process in descendants(deployment.services["superexec"].process.pid)
            if any("flwr-serverapp" in word for word in process.cmdline())
        ]
        assert serverapps
        for process in serverapps:
            process.kill()
        psutil.wait_procs(serverapps, timeout=10)
        second = Started(deployment, tmp_path / "second", *settings)
        second.end()
        assert deployment.status(first.run_id)[0] != "finished:completed"
    (resumed,) = [event["version"] for event in second.events("resume")]
    # A version that was reported but not yet saved when its server died is made again.
    assert first.events("flush")[-1]["version"] - resumed in (0, 1)
    versions = [event["version"] for event in second.events("flush")]
    assert versions == list(range(1, 7))
    for name in {event["name"] for event in second.events("reply")}:
        before = [int(e["metrics"]["messages"]) for e in first.events("reply", name)]
        after = [int(e["metrics"]["messages"]) for e in second.events("reply", name)]
        # At most one message was in flight when the server died; a reply between the last
        # checkpoint and the death is not in the record.
        steps = [b - a for a, b in pairwise([0, *after])]
        assert set(steps) <= {1, 2, 3}, (before, after)
        assert sum(step > 1 for step in steps) <= 1, (before, after)
