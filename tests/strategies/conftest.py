"""A client app whose results can be computed by hand."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from strategies import BufferedAsync


class TrainOnly(BufferedAsync):
    """BufferedAsync for apps that do not evaluate, from the first node on."""

    def __init__(self, buffer_size: float = 0.5, **settings: Any) -> None:
        alone = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
        super().__init__(buffer_size, **{**alone, **settings})


def target(partition_id: int) -> np.ndarray:
    """Return the target of node i."""
    return np.array([partition_id + 1.0, -2.0 * partition_id])


def steps(partition_id: int) -> int:
    """Return the training steps of node i."""
    return 1 + partition_id


def make_linear_app() -> ClientApp:
    """Return an app that moves the arrays half way to the node's target with each message."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        theta = message.content["arrays"]["w"].numpy()
        moved = theta + 0.5 * (target(i) - theta)
        context.state["seen"] = MetricRecord(
            {"messages": int(context.state.get("seen", {"messages": 0})["messages"]) + 1}
        )
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(moved)}),
                "metrics": MetricRecord({"num-examples": steps(i), "loss": float(i)}),
            }
        )
        return Message(content, reply_to=message)

    return app


@pytest.fixture
def linear_app() -> ClientApp:
    """Return the app of :func:`make_linear_app`."""
    return make_linear_app()


@pytest.fixture
def zeros() -> ArrayRecord:
    """Return version 0."""
    return ArrayRecord({"w": Array(np.zeros(2))})
