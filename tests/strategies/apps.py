"""Client apps for the tests of what users of Flower's strategies rely on."""

from collections.abc import Callable, Sequence

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from strategies.arrays import to_record
from tests.strategies.conftest import make_linear_app, steps, target


class Recorder:
    """A client app that keeps what each node was sent, and evaluates too."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, ConfigRecord]] = []  # kind, partition, config
        self.app, healthy = ClientApp(), make_linear_app()

        @self.app.train()
        def train(message: Message, context: Context) -> Message:
            self._keep("train", message, context)
            return healthy(message, context)

        @self.app.evaluate()
        def evaluate(message: Message, context: Context) -> Message:
            self._keep("evaluate", message, context)
            i = int(context.node_config["partition-id"])
            error = float(((message.content["arrays"]["w"].numpy() - target(i)) ** 2).sum())
            metrics = MetricRecord({"num-examples": steps(i), "error": error})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)

    def _keep(self, kind: str, message: Message, context: Context) -> None:
        partition = int(context.node_config["partition-id"])
        self.sent.append((kind, partition, message.content["config"]))

    def rounds(self, kind: str, partition: int) -> list[int]:
        """Return the ``server-round`` of each message to a node."""
        return [int(c["server-round"]) for k, i, c in self.sent if (k, i) == (kind, partition)]


def replying(
    weights: Sequence[float],
    arrays: Callable[[int], dict[str, np.ndarray]] | None = None,
    name: str = "arrays",
) -> ClientApp:
    """Return an app whose node i sends ``i + 1`` everywhere, with its weight."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        sent = arrays(i) if arrays else {"w": np.full(2, i + 1.0)}
        metrics = MetricRecord({"num-examples": weights[i], "loss": float(i)})
        return Message(RecordDict({name: to_record(sent), "metrics": metrics}), reply_to=message)

    return app
