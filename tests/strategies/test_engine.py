"""With Flower's real engines: virtual time in the simulation, the reuse example deployed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fauno_flwr.deployment.engine import ENVIRONMENT, Engine
from tests.paths import ROOT

REUSE = ROOT / "examples" / "reuse"
pytestmark = pytest.mark.slow

PROJECT = """
[project]
name = "virtual"
version = "0.1.0"
dependencies = []
[tool.flwr.app]
publisher = "fauno"
[tool.flwr.app.components]
serverapp = "virtual.apps:server"
clientapp = "virtual.apps:client"
[tool.flwr.app.config]
out = ""
"""

APPS = '''
"""Clients that take a random real time; a server under virtual time."""
import hashlib, json, random, time
from pathlib import Path
import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from strategies import BufferedAsync, Polynomial
from strategies.latency import Latency
from strategies.virtual_time import VirtualTimeGrid
from tests.strategies.conftest import TrainOnly

client = ClientApp()
server = ServerApp()

@client.train()
def train(message, context):
    i = int(context.node_config["partition-id"])
    n = int(context.state.metric_records.get("n", MetricRecord({"n": 0}))["n"]) + 1
    time.sleep(random.random() * 0.2)
    theta = message.content["arrays"]["w"].numpy()
    moved = theta + np.random.default_rng([i, n]).normal(size=theta.shape)
    content = RecordDict({
        "arrays": ArrayRecord({"w": Array(moved)}),
        "metrics": MetricRecord({"num-examples": 1 + i}),
    })
    reply = Message(content, reply_to=message)
    context.state["n"] = MetricRecord({"n": n})
    return reply

@server.main()
def main(grid, context):
    events = []
    virtual = VirtualTimeGrid(grid, Latency(speeds=(1, 2, 3, 0.2), jitter=0.3))
    strategy = TrainOnly(2, staleness=Polynomial(), on_event=events.append)
    start = ArrayRecord({"w": Array(np.zeros(5))})
    result = strategy.start(virtual, start, num_rounds=30)
    strategy.drain(virtual, timeout=100)
    Path(context.run_config["out"]).write_text(json.dumps({
        "events": events,
        "arrays": hashlib.sha256(result.arrays["w"].data).hexdigest(),
        "seconds": virtual.clock.monotonic(),
    }))
'''


def finish(engine: Engine, run_id: str) -> None:
    end = time.monotonic() + 300
    while not engine.status(run_id)[0].startswith("finished"):
        assert time.monotonic() < end, engine.tail(40)
        time.sleep(1)
    assert engine.status(run_id)[0] == "finished:completed", engine.run_log(run_id)[-3000:]


def test_two_worker_counts_give_the_same_events_and_arrays(tmp_path: Path) -> None:
    app = tmp_path / "virtual-app"
    (app / "virtual").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PROJECT)
    (app / "virtual" / "__init__.py").write_text('"""Empty."""\n')
    (app / "virtual" / "apps.py").write_text(APPS)
    results = []
    with Engine() as engine:
        for workers in (1, 4):
            out = tmp_path / f"{workers}.json"
            finish(engine, engine.submit(app, {"out": str(out)}, nodes=6, workers=workers))
            results.append(json.loads(out.read_text()))
    assert len([e for e in results[0]["events"] if e["event"] == "flush"]) == 30
    assert results[0] == results[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run a process group, and stop it at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("strategy", ["fedavg", "async"])
def test_the_reuse_example_in_a_deployment(tmp_path: Path, strategy: str) -> None:
    """One SuperLink, two SuperNodes, each in its own process."""
    out, link = tmp_path / "loss.json", f"127.0.0.1:{free_port()}"
    settings = {"strategy": f"'{strategy}'", "num-rounds": "4", "target-loss": "0.0"}
    settings |= {"seconds": "0.0", "out": f"'{out}'"}
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "site"\n[superlink.site]\naddress = "{link}"\ninsecure = true\n'
    )
    # The commands of this environment, activated or not.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **ENVIRONMENT, "FLWR_HOME": str(home), "PATH": path}
    port = link.split(":")[1]
    with ExitStack() as stack:
        superlink = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", port]
        stack.enter_context(running(superlink, environment, tmp_path / "link.log"))
        time.sleep(5)
        for i in range(2):
            node = ["flower-supernode", "--insecure", "--superlink", link, "--host", "127.0.0.1"]
            node += ["--port", str(free_port())]
            node += ["--node-config", f"partition-id={i} num-partitions=2"]
            mine = {**environment, "FLWR_HOME": str(tmp_path / f"node{i}")}
            stack.enter_context(running(node, mine, tmp_path / f"node{i}.log"))
        time.sleep(8)
        overrides = " ".join(f"{key}={value}" for key, value in settings.items())
        submit = ["flwr", "run", str(REUSE), "site", "--run-config", overrides]
        subprocess.run(submit, env=environment, check=True, capture_output=True)
        end = time.monotonic() + 200
        while not out.exists():
            assert time.monotonic() < end, (tmp_path / "link.log").read_text()[-3000:]
            time.sleep(1)
        time.sleep(1)
    history = json.loads(out.read_text())
    assert [each["version"] for each in history] == [0, 1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"] / 2
