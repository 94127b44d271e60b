"""The grids for tests: what a scripted federation does, and when."""

import ast
import random
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from strategies import Polynomial
from strategies.arrays import to_record
from strategies.faults import FAULTS
from strategies.flower_internals import set_metadata
from strategies.grids import InMemoryGrid
from strategies.latency import Latency, Trace
from strategies.virtual_time import VirtualTimeGrid
from tests.strategies.conftest import TrainOnly, make_linear_app


def query(node: int, ttl: float = 10.0) -> Message:
    return Message(RecordDict(), dst_node_id=1000 + node, message_type=MessageType.QUERY, ttl=ttl)


@pytest.fixture
def echo() -> ClientApp:
    """Return an app that reports its partition and its number of messages."""
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        n = int(context.state.metric_records.get("n", MetricRecord({"n": 0}))["n"]) + 1
        context.state["n"] = MetricRecord({"n": n})
        who = MetricRecord({"id": int(context.node_config["partition-id"]), "n": n})
        return Message(RecordDict({"who": who}), reply_to=message)

    return app


def test_a_node_does_one_message_at_a_time(echo: ClientApp) -> None:
    grid = InMemoryGrid(echo, 2, duration=lambda i, k: 1.0 + k)
    ids = grid.push_messages([query(0), query(0), query(1), query(0)])
    times: list[tuple[float, int, int]] = []
    while (event := grid.next_event()) is not None:
        grid.clock.sleep(100.0)
        assert grid.clock.monotonic() == event
        for reply in grid.pull_messages(ids):
            who = reply.content["who"]
            times.append((event, int(who["id"]), int(who["n"])))
    assert times == [(1.0, 0, 1), (1.0, 1, 1), (3.0, 0, 2), (6.0, 0, 3)]


@pytest.mark.parametrize(
    ("fault", "codes", "times", "sources"),
    [
        ("raise", [2], [1.0], [1000]),
        ("crash", [0], [1.0], [1000]),
        ("drop", [3], [10.0], [1]),
        ("silent", [], [], []),
        ("late", [None], [70.0], [1000]),
        ("duplicate", [None, None], [1.0, 1.0], [1000, 1000]),
        ("forge", [None, None], [1.0, 1.0], [1001, 1000]),
        ("refuse", [], [], []),
    ],
)
def test_every_fault(
    echo: ClientApp, fault: str, codes: list, times: list[float], sources: list[int]
) -> None:
    grid = InMemoryGrid(echo, 2, faults=lambda i, k: fault)
    ids = list(grid.push_messages([query(0)]))
    assert (ids == [""]) == (fault == "refuse")
    seen = []
    for _ in range(200):
        for reply in grid.pull_messages(ids):
            code = reply.error.code if reply.has_error() else None
            seen.append((code, grid.clock.monotonic(), reply.metadata.src_node_id))
        grid.clock.sleep(1.0)
    assert seen == list(zip(codes, times, sources, strict=True))


def test_random_faults_have_their_frequency_and_repeat(echo: ClientApp) -> None:
    def count(seed: int) -> dict[str, int]:
        grid = InMemoryGrid(echo, 20, faults={"raise": 0.2, "duplicate": 0.1}, seed=seed)
        found = [grid.faults(i, k) for i in range(20) for k in range(100)]
        return {kind: found.count(kind) for kind in FAULTS}

    counts = count(1)
    assert 330 < counts["raise"] < 470
    assert 150 < counts["duplicate"] < 250
    assert sum(counts.values()) == counts["raise"] + counts["duplicate"]
    assert count(1) == counts
    assert count(2) != counts


def test_a_node_that_returns_is_another_one(echo: ClientApp) -> None:
    grid = InMemoryGrid(echo, 2, presence={0: [(0.0, 2.5), (4.0, 1e9)]})
    assert set(grid.get_node_ids()) == {1000, 1001}
    (reply,) = grid.send_and_receive([query(0)])
    assert reply.content["who"]["n"] == 1
    (lost,) = grid.send_and_receive([query(0), query(1)], timeout=0.5)[:1] or [None]
    assert lost is None or lost.has_error()
    grid.clock.now = 3.0
    assert set(grid.get_node_ids()) == {1001}
    assert list(grid.push_messages([query(0)])) == [""]
    grid.clock.now = 4.0
    assert set(grid.get_node_ids()) == {1001, 1002}
    (again,) = grid.send_and_receive([query(2)])
    assert again.content["who"]["id"] == 0
    assert again.content["who"]["n"] == 1


def test_a_message_in_flight_when_its_node_leaves_is_lost(echo: ClientApp) -> None:
    grid = InMemoryGrid(echo, 1, duration=5.0, presence={0: [(0.0, 2.5)]})
    (lost,) = grid.send_and_receive([query(0)])
    assert (lost.error.code, grid.clock.monotonic()) == (5, 2.5)


def test_a_strategy_admits_nodes_that_return(zeros: ArrayRecord) -> None:
    events: list[dict] = []
    grid = InMemoryGrid(make_linear_app(), 3, presence={0: [(0.0, 5.5), (8.0, 1e9)]})
    strategy = TrainOnly(3, on_event=events.append)
    strategy.start(grid, zeros, num_rounds=12)
    flushes = [(e["t"], e["nodes"]) for e in events if e["event"] == "flush"]
    assert len(flushes) == 12
    assert all(nodes == [1000, 1001, 1002] for t, nodes in flushes if t <= 5.5)
    assert all(nodes == [1001, 1002, 1003] for t, nodes in flushes if t > 5.5)
    assert not [t for t, _ in flushes if 5.5 < t < 8.0]


def test_many_restarts_leave_no_trace_in_the_strategy(zeros: ArrayRecord) -> None:
    """New ids forever: the back-off state of the strategy does not grow."""
    sessions = [(float(t), t + 0.9) for t in range(400)]
    grid = InMemoryGrid(make_linear_app(), 3, presence={0: sessions})
    strategy = TrainOnly(2, backoff=0.5, max_backoff=1.0)
    strategy.start(grid, zeros, num_rounds=390)
    assert strategy.session is not None
    assert len(strategy.session.flights._failures) <= 3


def test_a_client_cannot_change_the_message_of_another(zeros: ArrayRecord) -> None:
    app = ClientApp()
    seen = []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen.append(message.content["arrays"]["w"].numpy().copy())
        message.content["arrays"].clear()
        return Message(RecordDict(), reply_to=message)

    TrainOnly(2, time_limit=5).start(InMemoryGrid(app, 2), zeros)
    assert len(seen) >= 2
    assert all(np.array_equal(theta, np.zeros(2)) for theta in seen)


def test_flowers_own_strategies_run_on_it(zeros: ArrayRecord) -> None:
    grid = InMemoryGrid(make_linear_app(), 4, duration=lambda i, k: 100.0 if i == 3 else 1.0)
    result = FedAvg(fraction_evaluate=0.0).start(grid, zeros, num_rounds=20)
    assert grid.clock.monotonic() == 2000.0
    assert len(result.train_metrics_clientapp) == 20


def test_latency_by_hand() -> None:
    latency = Latency(
        seconds_per_step=0.01,
        steps=200,
        speeds=(1.0, 4.0),
        num_bytes=1e6,
        bytes_per_second=1e7,
        delay=0.05,
    )
    assert latency(0, 0) == pytest.approx(2.0 + 0.3)
    assert latency(1, 0) == latency(3, 9) == pytest.approx(0.5 + 0.3)


def test_jitter_has_its_deviation_and_depends_on_node_and_message_alone() -> None:
    latency = Latency(jitter=0.25, seed=3)
    logs = np.log([latency(i, k) for i in range(40) for k in range(50)])
    assert abs(logs.mean()) < 4 * 0.25 / np.sqrt(2000)
    assert logs.std() == pytest.approx(0.25, rel=0.1)
    assert Latency(jitter=0.25, seed=3)(7, 7) == latency(7, 7)
    assert Latency(jitter=0.25, seed=4)(7, 7) != latency(7, 7)


def test_traces(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("0,1.5\n1,4\n0,2.5\n")
    trace = Trace.from_csv(path)
    assert [trace(0, k) for k in range(4)] == [1.5, 2.5, 1.5, 2.5]
    assert trace(1, 7) == 4.0
    with pytest.raises(ValueError, match=r"no node 2: it has \[0, 1\]"):
        trace(2, 0)
    path.write_text("0,fast\n")
    with pytest.raises(ValueError, match=r"row 1 of .*must be partition_id,seconds"):
        Trace.from_csv(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_nodes": 0}, "num_nodes is 0"),
        ({"duration": -1.0}, "duration is -1.0"),
        ({"faults": {"explode": 0.1}}, "a fault is 'explode': must be one of raise, crash"),
        ({"faults": {"raise": 1.5}}, "the probability of raise is 1.5"),
    ],
)
def test_impossible_federations_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InMemoryGrid(make_linear_app(), **{"num_nodes": 2, **arguments})


class BusyEngine(InMemoryGrid):
    """An engine with random node ids whose replies arrive when threads are done."""

    def __init__(self, app: ClientApp, num_nodes: int, workers: int) -> None:
        super().__init__(app, num_nodes)
        # Its replies take real time: with a virtual clock, which a poll advances at once,
        # every message of a slow machine would be past its time-to-live.
        self.clock = time
        self._slots = threading.Semaphore(workers)
        self._ready: dict[str, Message] = {}
        self._alias = dict(zip(random.sample(range(10**6), num_nodes), self.nodes, strict=True))
        self._threads: list[threading.Thread] = []

    def get_node_ids(self) -> list[int]:
        return list(self._alias)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            self._messages += 1
            message_id = f"real-{self._messages}"
            set_metadata(message, message_id=message_id)
            work = threading.Thread(target=self._work, args=(message_id, message))
            work.start()
            self._threads.append(work)
            ids.append(message_id)
        return ids

    def _work(self, message_id: str, message: Message) -> None:
        with self._slots:
            time.sleep(
                0.001
            )  # as the engine, it reads the message after the strategy has continued
            context = self.nodes[self._alias[message.metadata.dst_node_id]].context
            reply = self._answer(message, context)
            time.sleep(random.random() * 0.01)
            self._ready[message_id] = reply

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._ready.pop(i) for i in list(message_ids) if i in self._ready]


def in_turn(function: Callable) -> Callable:
    """Wrap a function so that one thread at a time runs it."""
    lock = threading.Lock()

    def locked(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return function(*args, **kwargs)

    return locked


def run_on_a_busy_engine(workers: int, wrap: bool) -> tuple[list[dict], bytes, float]:
    engine = BusyEngine(make_linear_app(), 5, workers)
    partitions = {alias: node_id - 1000 for alias, node_id in engine._alias.items()}
    latency = Latency(speeds=(1, 2, 3, 4, 0.2), jitter=0.2)
    grid = VirtualTimeGrid(engine, latency, partitions=partitions, poll_interval=0.001)
    events: list[dict] = []
    strategy = TrainOnly(2, staleness=Polynomial(), on_event=events.append)
    start = to_record({"w": np.zeros(2)})
    # NumPy parses the header of an array with ast.parse, which miscounts its depth in threads
    # (CPython issue 106905: SystemError, "AST constructor recursion depth mismatch").
    with patch.object(ast, "parse", in_turn(ast.parse)):
        result = strategy.start(grid if wrap else engine, start, num_rounds=25)
        for thread in engine._threads:
            thread.join()
    return events, result.arrays["w"].data, grid.clock.monotonic()


def test_virtual_time_makes_a_busy_engine_repeatable() -> None:
    """Random real times, random node ids, 1 or 4 workers: the same events and bytes."""
    runs = [run_on_a_busy_engine(workers, wrap=True) for workers in (1, 4, 2)]
    assert all(run == runs[0] for run in runs[1:])
    # Mutation: the engine alone does not repeat itself.
    alone = [run_on_a_busy_engine(workers, wrap=False)[1] for workers in (1, 4, 2)]
    assert len(set(alone)) > 1


def test_virtual_time_is_that_of_the_in_memory_grid(zeros: ArrayRecord) -> None:
    latency = Latency(speeds=(1, 2, 3, 4, 0.2), jitter=0.2)
    events: list[dict] = []
    strategy = TrainOnly(2, staleness=Polynomial(), on_event=events.append)
    grid = InMemoryGrid(make_linear_app(), 5, duration=latency)
    result = strategy.start(grid, zeros, num_rounds=25)
    engine_events, arrays, now = run_on_a_busy_engine(3, wrap=True)
    assert (events, result.arrays["w"].data, grid.clock.monotonic()) == (
        engine_events,
        arrays,
        now,
    )


def test_a_reply_that_never_arrives_is_named(echo: ClientApp) -> None:
    engine = InMemoryGrid(echo, 1, faults=lambda i, k: "silent")
    grid = VirtualTimeGrid(engine, lambda i, k: 1.0, partitions={1000: 0}, patience=0.05)
    with pytest.raises(TimeoutError, match=r"has not answered message-1 in patience = 0.05 s"):
        grid.send_and_receive([query(0)])
