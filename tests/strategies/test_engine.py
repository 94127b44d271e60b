"""With Flower's real engines: virtual time in the simulation, the reuse example deployed."""

import json
import time
from pathlib import Path

import pytest

from fauno_flwr.deployment.engine import Engine
from tests.deployed import run_deployed
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


@pytest.mark.parametrize("strategy", ["fedavg", "async"])
def test_the_reuse_example_in_a_deployment(tmp_path: Path, strategy: str) -> None:
    settings = {"strategy": strategy, "num-rounds": 4, "target-loss": 0.0}
    settings |= {"local-epochs": 5, "seconds": 0.0}
    history = run_deployed(REUSE, settings, tmp_path)
    assert [each["version"] for each in history] == [0, 1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"] / 2
