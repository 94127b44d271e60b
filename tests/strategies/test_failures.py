"""A training in which no node succeeds ends with the reason; one that may succeed continues."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from strategies import BufferedAsync, InMemoryGrid, Latency, TrainingFailedError, VirtualTimeGrid
from strategies.arrays import to_record
from strategies.failures import readable
from strategies.grid_protocols import clock_of
from tests.strategies.conftest import TrainOnly, make_linear_app

START = {"w": np.zeros(2)}


def failing_app() -> ClientApp:
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 0:
            raise RuntimeError("sensor 7 is unplugged")
        return Message(RecordDict(), reply_to=message)  # rejected by the guard

    return app


def train(grid: Any, versions: int = 5, **settings: Any) -> BufferedAsync:
    strategy = TrainOnly(2, **settings)
    strategy.start(grid, to_record(START), num_rounds=versions, timeout=3600)
    return strategy


def test_a_training_in_which_no_node_succeeds_ends_with_the_reason_of_each() -> None:
    """In virtual time: after the third failure of the slowest node, long before the timeout."""
    events: list[dict] = []
    engine = InMemoryGrid(failing_app(), 3, duration=0.0)
    grid = VirtualTimeGrid(engine, Latency(), partitions={1000 + i: i for i in range(3)})
    with pytest.raises(TrainingFailedError, match="all 3 nodes have failed 3 messages") as raised:
        train(grid, on_event=events.append)
    reasons = raised.value.reasons
    assert reasons[1000] == "RuntimeError: sensor 7 is unplugged"
    assert reasons[1001].startswith("metric 'num-examples' is None")
    failed = [each for each in events if each["event"] in ("error", "reject")]
    assert all(sum(each["node"] == node for each in failed) >= 3 for node in reasons)
    assert clock_of(grid).monotonic() < 60


def test_one_node_that_succeeds_is_enough() -> None:
    grid = InMemoryGrid(make_linear_app(), 3, faults=lambda i, k: "raise" if i else None)
    strategy = train(grid, flush_after=1.0)
    assert strategy.version == 5


@pytest.mark.parametrize(("patience", "survives"), [(600.0, True), (5.0, False)])
def test_after_a_success_an_outage_of_all_nodes_is_borne(patience: float, survives: bool) -> None:
    """Each node fails four messages in a row, which takes 14 s of pauses alone."""
    outage = range(2, 6)
    grid = InMemoryGrid(make_linear_app(), 2, faults=lambda i, k: "raise" if k in outage else None)
    if survives:
        assert train(grid, patience=patience).version == 5
    else:
        with pytest.raises(TrainingFailedError, match="scripted fault"):
            train(grid, patience=patience)


def test_before_the_first_success_two_failures_of_each_are_borne() -> None:
    grid = InMemoryGrid(make_linear_app(), 2, faults=lambda i, k: "raise" if k < 2 else None)
    assert train(grid).version == 5
    grid = InMemoryGrid(make_linear_app(), 2, faults=lambda i, k: "raise" if k < 3 else None)
    with pytest.raises(TrainingFailedError):
        train(grid)


RAY = (
    "<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'\x1b[36mray::ClientAppActor.run()"
    '\x1b[39m (pid=7, ip=1.2.3.4)\n  File "app.py", line 7, in run\n'
    "flwr.clientapp.client_app.ClientAppException: sensor 7 is unplugged'>"
)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (RAY, "sensor 7 is unplugged"),
        ("<class 'builtins.KeyError'>:<''x''>", "KeyError: 'x'"),
        ("<class 'a.b.OwnError'>:<'two\nlines'>", "OwnError: two lines"),
        ("time-to-live is over", "time-to-live is over"),
        ("a < b: <'c'>", "a < b: <'c'>"),
        ("x" * 9999, "x" * 500),
    ],
)
def test_a_reason_becomes_one_line_without_the_wrapping(reason: str, line: str) -> None:
    assert readable(reason) == line
