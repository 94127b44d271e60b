"""Cost of the strategy, and its gain with a straggler: ``make benchmark``.

Compare the ratios within one run, not times between machines.
"""

import itertools
import json
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fauno_flwr.deployment.engine import Engine
from strategies import SGD, BufferedAsync, Guard, Mean, Median, NormFiltered, TrimmedMean
from strategies.arrays import Layout, to_arrays, to_record
from strategies.buffer import Buffer, Update
from strategies.flights import Flight
from strategies.flower_internals import set_identity
from strategies.grids import InMemoryGrid
from strategies.merge import merge_weights
from strategies.versions import Versions

REUSE = Path(__file__).parents[1] / "examples" / "reuse"
NODES, K = 20, 10
# 7,233 parameters: a critic of two layers.
SHAPES = {"0.weight": (64, 46), "0.bias": (64,), "2.weight": (64, 64), "2.bias": (64,)}
SHAPES |= {"4.weight": (1, 64), "4.bias": (1,)}


@pytest.fixture
def trained() -> list[dict[str, np.ndarray]]:
    """Return arrays as nodes would send them."""
    rng = np.random.default_rng(0)
    return [
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
        for _ in range(NODES)
    ]


@pytest.mark.parametrize("rule", [Mean(), TrimmedMean(), Median(), NormFiltered()], ids=repr)
def test_guard_buffer_and_merge(benchmark, trained: list, rule: object) -> None:
    """Updates per second after decoding: K updates, then a version."""
    versions, guard, optimizer = Versions(to_record(trained[0])), Guard(), SGD()
    guard.begin(versions.layout, "arrays", "num-examples")
    base = versions.bases[0]
    reply = Message.__new__(Message)

    def run() -> None:
        buffer = Buffer()
        for m in range(K):
            difference, norm = guard.check_arrays(trained[m], base)
            flight = Flight(str(m), m, m, 0, 0.0, 60.0)
            buffer.put(Update(reply, flight, 1.0, difference, {"loss": 0.0}, 0.0, norm))
        updates = buffer.in_order()
        weights = merge_weights([u.steps for u in updates], [1.0] * K)
        versions.merge(updates, weights, rule, optimizer, False)

    benchmark(run)
    benchmark.extra_info["updates_per_second"] = round(K / benchmark.stats["median"])


@pytest.mark.parametrize("nodes", [NODES, 1000])
def test_replies_to_versions(benchmark, trained: list, nodes: int) -> None:
    """Updates per second from replies to versions: all checks, what is usual, all bounds."""
    set_identity(run_id=1, node_id=1, task_id=1)
    metrics = MetricRecord({"num-examples": 10, **{f"m{i}": 0.5 for i in range(25)}})
    replies = [
        Message(RecordDict({"arrays": to_record(each), "metrics": metrics}), 1, "train")
        for each in trained
    ]
    versions, guard, optimizer = Versions(to_record(trained[0])), Guard(), SGD()
    guard.begin(versions.layout, "arrays", "num-examples")
    base, numbers = versions.bases[0], itertools.count()

    def run() -> None:
        buffer, version = Buffer(), next(numbers)
        for m in range(version * K, version * K + K):
            flight = Flight(str(m), m % nodes, m % nodes, version, 0.0, 60.0)
            buffer.put(guard.check(replies[m % NODES], flight, base, 0.0))
        buffer.bound(10.0, guard.most_norm)
        updates = buffer.in_order()
        weights = merge_weights([u.steps for u in updates], [1.0] * K)
        versions.merge(updates, weights, Mean(), optimizer, False)

    benchmark(run)
    benchmark.extra_info["updates_per_second"] = round(K / benchmark.stats["median"])


@pytest.mark.parametrize("by", ["strategies", "flower"])
def test_decode(benchmark, trained: list, by: str) -> None:
    """The step before it: decode arrays from a record, with or without a check of the schema."""
    record = to_record(trained[0])
    guard = Guard()
    guard.begin(Layout(trained[0]), "arrays", "num-examples")
    benchmark(lambda: guard.decode(record) if by == "strategies" else to_arrays(record))
    benchmark.extra_info["updates_per_second"] = round(1 / benchmark.stats["median"])


def test_large_models(benchmark) -> None:
    """CPU milliseconds per update of 10 MB with all checks, beside a running sum without any."""
    set_identity(run_id=1, node_id=1, task_id=1)
    rng = np.random.default_rng(0)
    start = {"w": rng.normal(size=2_500_000).astype(np.float32)}
    metrics = MetricRecord({"num-examples": 10})
    replies = [
        Message(
            RecordDict(
                {"arrays": to_record({"w": start["w"] + np.float32(m)}), "metrics": metrics}
            ),
            1,
            "train",
        )
        for m in range(K)
    ]
    flights = [Flight(str(m), m, m, 0, 0.0, 60.0) for m in range(K)]

    def ours() -> float:
        versions, guard, buffer = Versions(to_record(start)), Guard(), Buffer()
        guard.begin(versions.layout, "arrays", "num-examples")
        began = time.process_time()
        for reply, flight in zip(replies, flights, strict=True):
            buffer.put(guard.check(reply, flight, versions.bases[0], 0.0))
        buffer.bound(10.0, guard.most_norm)
        weights = merge_weights([1.0] * K, [1.0] * K)
        arrays = versions.merge(buffer.in_order(), weights, Mean(), SGD(), False)
        assert arrays is not None
        versions.add(arrays)
        return (time.process_time() - began) / K * 1e3

    def running_sum() -> float:
        began, total = time.process_time(), np.zeros_like(start["w"])
        for reply in replies:
            total += (reply.content["arrays"]["w"].numpy() - start["w"]) / np.float32(K)
        return (time.process_time() - began) / K * 1e3

    benchmark.pedantic(ours, rounds=3, warmup_rounds=1)
    numbers = {"ours": min(ours() for _ in range(5)), "sum": min(running_sum() for _ in range(5))}
    benchmark.extra_info["cpu_ms_per_update"] = {n: round(ms, 2) for n, ms in numbers.items()}


def walking_app() -> ClientApp:
    """Make an app whose nodes add a hundredth to every parameter."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        theta = message.content["arrays"]["w"].numpy() + np.float32(0.01)
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(theta)}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        return Message(content, reply_to=message)

    return app


@pytest.mark.parametrize("settings", [{}, {"concurrency": 100}], ids=["all at once", "100"])
def test_cost_per_update_by_number_of_nodes(benchmark, settings: dict[str, int]) -> None:
    """CPU seconds of 1,000 merged updates, after the first version: the best of three runs."""

    def cost(nodes: int) -> float:
        # About 50 replies in a second, however many nodes there are.
        scale = 1.0 if settings else nodes / 100
        times = scale * np.random.default_rng(0).uniform(1, 3, nodes)
        grid = InMemoryGrid(walking_app(), nodes, duration=lambda i, k: float(times[i]))
        began: list[float] = []
        strategy = BufferedAsync(
            10,
            fraction_evaluate=0.0,
            on_version=lambda version, *_: began.append(time.process_time()),
            **settings,
        )
        strategy.start(grid, to_record({"w": np.zeros(1000, np.float32)}), 101, timeout=None)
        return began[-1] - began[0]

    seconds = {nodes: min(cost(nodes) for _ in range(3)) for nodes in (100, 1_000)}
    seconds[10_000] = min(benchmark.pedantic(cost, (10_000,), rounds=1), cost(10_000))
    benchmark.extra_info["cpu_seconds"] = {
        str(nodes): round(each, 3) for nodes, each in seconds.items()
    }
    benchmark.extra_info["ratio"] = round(seconds[10_000] / seconds[100], 2)
    assert seconds[10_000] < 2 * seconds[100]


@pytest.mark.parametrize("concurrency", [5, 40])
def test_memory(benchmark, concurrency: int) -> None:
    """Peak memory with models of 0.1 MB: grows with the concurrency, not with the versions."""

    def peak(versions: int) -> float:
        grid = InMemoryGrid(walking_app(), 50, duration=lambda i, k: 1.0 + 0.1 * i)
        start = to_record({"w": np.zeros(25_000, np.float32)})
        tracemalloc.start()
        strategy = BufferedAsync(5, concurrency=concurrency, fraction_evaluate=0.0)
        strategy.start(grid, start, versions)
        top = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        return round(top, 1)

    few = peak(30)
    many = benchmark.pedantic(peak, (300,), rounds=1)
    benchmark.extra_info["megabytes"] = {"30 versions": few, "300 versions": many}
    assert many < 1.5 * few


def settings(strategy: str, out: Path, seconds: float) -> dict[str, bool | float | int | str]:
    """Return the run config of the example."""
    return {
        "strategy": strategy,
        "num-rounds": 400,
        "target-loss": 0.2,
        "local-epochs": 1,
        "seconds": seconds,
        "slow-down": 10.0,
        "out": str(out),
    }


def compare(histories: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Compute versions per second and seconds to the target loss, from the first version on.

    Only ``seconds_in_all`` includes the start of the engine's workers, which import torch.
    """
    table = {}
    for name, history in histories.items():
        first, last = history[1], history[-1]
        assert last["loss"] <= 0.2
        rate = (last["version"] - 1) / (last["t"] - first["t"])
        table[name] = {
            "versions_per_second": rate,
            "seconds_to_target": last["t"] - first["t"],
            "seconds_in_all": last["t"],
        }
    ours, theirs = table["async"], table["fedavg"]
    table["ratio"] = {
        "versions_per_second": ours["versions_per_second"] / theirs["versions_per_second"],
        "seconds_to_target": theirs["seconds_to_target"] / ours["seconds_to_target"],
        "seconds_in_all": theirs["seconds_in_all"] / ours["seconds_in_all"],
    }
    return {name: {k: round(v, 2) for k, v in row.items()} for name, row in table.items()}


def test_straggler_virtual_time(benchmark, tmp_path: Path, monkeypatch) -> None:
    """The reuse example, ten nodes, one of them ten times slower: seconds of virtual time."""
    monkeypatch.syspath_prepend(REUSE)
    from reuse import client_app, server_app

    torch.set_num_threads(1)

    def run(strategy: str) -> list[dict[str, float]]:
        out = tmp_path / f"{strategy}.json"
        config = settings(strategy, out, seconds=0.0)
        grid = InMemoryGrid(
            client_app.app,
            10,
            duration=lambda i, k: 10.0 if i == 0 else 1.0,
            run_config=config,
        )
        server_app.main(grid, Context(1, 1, {}, RecordDict(), config))
        return json.loads(out.read_text())

    histories = {"fedavg": run("fedavg")}
    histories["async"] = benchmark.pedantic(run, ("async",), rounds=1)
    benchmark.extra_info.update(compare(histories))
    assert benchmark.extra_info["ratio"]["seconds_to_target"] >= 5


@pytest.mark.slow
def test_straggler_flwr_run(benchmark, tmp_path: Path) -> None:
    """The same through ``flwr run``, in real time: six workers for ten nodes."""

    def run(strategy: str) -> list[dict[str, float]]:
        out = tmp_path / f"{strategy}.json"
        with Engine() as engine:
            run_id = engine.submit(REUSE, settings(strategy, out, seconds=0.3), 10, 6)
            while not engine.status(run_id)[0].startswith("finished"):
                time.sleep(1)
            assert out.exists(), engine.run_log(run_id)[-3000:]
        return json.loads(out.read_text())

    histories = {"fedavg": run("fedavg")}
    histories["async"] = benchmark.pedantic(run, ("async",), rounds=1)
    benchmark.extra_info.update(compare(histories))
    assert benchmark.extra_info["ratio"]["seconds_to_target"] >= 5


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-o", "python_files=bench_*.py", *sys.argv[1:]]))
