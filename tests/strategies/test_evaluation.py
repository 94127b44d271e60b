"""Nodes evaluate in parallel with training, which does not wait for them."""

import itertools

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from strategies import SyncBuffered
from strategies.grids import InMemoryGrid
from tests.strategies.conftest import TrainOnly, make_linear_app, steps, target


def evaluating_app() -> ClientApp:
    app = make_linear_app()

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        theta = message.content["arrays"]["w"].numpy()
        loss = float(((theta - target(i)) ** 2).sum())
        sent = float(message.content["config"].get("sent", 0.0))
        metrics = MetricRecord({"num-examples": steps(i), "loss": loss, "sent": sent})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def test_all_nodes_and_all_versions_is_fedavg(zeros: ArrayRecord) -> None:
    config = ConfigRecord({"sent": 7.0})
    ours = SyncBuffered(fraction_evaluate=1.0).start(
        InMemoryGrid(evaluating_app(), 4), zeros, num_rounds=10, evaluate_config=config
    )
    theirs = FedAvg().start(
        InMemoryGrid(evaluating_app(), 4), zeros, num_rounds=10, evaluate_config=config
    )
    assert list(ours.evaluate_metrics_clientapp) == list(theirs.evaluate_metrics_clientapp)
    for version, metrics in theirs.evaluate_metrics_clientapp.items():
        evaluated = ours.evaluate_metrics_clientapp[version]
        assert evaluated["loss"] == pytest.approx(metrics["loss"], rel=1e-12)
        assert evaluated["sent"] == 7.0


def test_training_does_not_wait_for_a_slow_evaluation(zeros: ArrayRecord) -> None:
    """Node 0 takes 50 s per message; versions are made meanwhile, at their usual pace."""
    events: list[dict] = []
    grid = InMemoryGrid(evaluating_app(), 5, duration=lambda i, k: 50.0 if i == 0 else 1.0)
    strategy = TrainOnly(2, fraction_evaluate=1.0, on_event=events.append)
    result = strategy.start(grid, zeros, num_rounds=60)
    flushes = [e["t"] for e in events if e["event"] == "flush"]
    assert flushes[-1] < 50
    assert max(b - a for a, b in itertools.pairwise(flushes)) <= 2.0
    # The last version is always evaluated, by all nodes.
    assert 60 in result.evaluate_metrics_clientapp
    done = [e for e in events if e["event"] == "evaluated"]
    assert done[-1]["version"] == 60
    assert done[-1]["nodes"] == 5


def test_a_node_never_has_two_messages(zeros: ArrayRecord) -> None:
    events: list[dict] = []
    grid = InMemoryGrid(evaluating_app(), 4, duration=lambda i, k: 0.3 + i)
    TrainOnly(2, fraction_evaluate=0.5, on_event=events.append).start(grid, zeros, num_rounds=20)
    flying: set[int] = set()
    for event in events:
        if event["event"] == "dispatch":
            assert event["node"] not in flying
            flying.add(event["node"])
        elif event["event"] in ("reply", "evaluation"):
            flying.remove(event["node"])
    assert {e["kind"] for e in events if e["event"] == "dispatch"} == {"train", "evaluate"}


@pytest.mark.parametrize("fault", ["no handler", "silent", "drop"])
def test_a_failed_evaluation_costs_no_pause_and_ends(zeros: ArrayRecord, fault: str) -> None:
    events: list[dict] = []
    app = make_linear_app() if fault == "no handler" else evaluating_app()
    broken = None if fault == "no handler" else fault
    grid = InMemoryGrid(app, 3, faults=lambda i, k: broken if i == 0 and k % 2 else None)
    strategy = TrainOnly(2, ttl=5.0, fraction_evaluate=1.0, on_event=events.append)
    result = strategy.start(grid, zeros, num_rounds=20, timeout=500)
    assert strategy.version == 20
    failed = [e for e in events if e["event"] == "error" and e["kind"] == "evaluate"]
    assert failed
    assert {e["pause"] for e in failed} == {0.0}
    assert (20 in result.evaluate_metrics_clientapp) == (fault != "no handler")


def test_evaluating_does_not_reset_the_back_off_of_training(
    zeros: ArrayRecord,
) -> None:
    healthy, app, events = evaluating_app(), ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 0:
            raise RuntimeError("no data here")
        return healthy(message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return healthy(message, context)

    grid = InMemoryGrid(app, 3)
    TrainOnly(2, fraction_evaluate=1.0, on_event=events.append).start(grid, zeros, 40)
    pauses = [e["pause"] for e in events if e["event"] == "error" and e["node"] == 1000]
    assert pauses[:4] == [2.0, 4.0, 8.0, 16.0]
    assert any(e["event"] == "evaluation" and e["node"] == 1000 for e in events)
