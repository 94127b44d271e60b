"""What a user of Flower's strategies may rely on, from Flower's documentation of ``Strategy``.

Each test states a part of the contract that holds for ``FedAvg``. Where a version of the model is
something else than a round, the test says what holds instead; docs/strategies.md lists all of it.
"""

import itertools

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy

from strategies import BufferedAsync, FAuNO, FedAsync, FedBuff, InMemoryGrid, SyncBuffered
from tests.strategies.conftest import make_linear_app, steps, target

PRESETS = [BufferedAsync, FAuNO, FedBuff, FedAsync, SyncBuffered]


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


# ---- the number of a round ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [FedAvg, SyncBuffered])
def test_a_node_of_a_synchronous_training_gets_every_round_once(
    make: type[Strategy], zeros: ArrayRecord
) -> None:
    """From 1 on, in train and evaluate messages alike."""
    seen = Recorder()
    make(fraction_evaluate=1.0).start(InMemoryGrid(seen.app, 3), zeros, num_rounds=4)
    for i in range(3):
        assert seen.rounds("train", i) == [1, 2, 3, 4]
        assert seen.rounds("evaluate", i) == [1, 2, 3, 4]


def test_a_train_message_tells_the_version_to_make_and_the_one_that_it_holds(
    zeros: ArrayRecord,
) -> None:
    """The first is 1, as in Flower; a fast node sees numbers again, a slow one skips some."""
    seen = Recorder()
    grid = InMemoryGrid(seen.app, 3, duration=lambda i, k: (0.4, 1.0, 5.3)[i])
    BufferedAsync(2, fraction_evaluate=0.0).start(grid, zeros, num_rounds=12)
    for _, _, config in seen.sent:
        assert config["server-round"] == config["base-version"] + 1
    fast, slow = seen.rounds("train", 0), seen.rounds("train", 2)
    assert fast[0] == slow[0] == 1
    assert fast == sorted(fast)
    assert any(a == b for a, b in itertools.pairwise(fast))
    assert any(b > a + 1 for a, b in itertools.pairwise(slow))


def test_with_refill_by_version_no_node_gets_a_number_twice(zeros: ArrayRecord) -> None:
    """So that ``if server_round == 5`` runs once at most."""
    seen = Recorder()
    grid = InMemoryGrid(seen.app, 3, duration=lambda i, k: (0.4, 1.0, 5.3)[i])
    BufferedAsync(2, refill="version", fraction_evaluate=0.0).start(grid, zeros, num_rounds=12)
    for i in range(3):
        numbers = seen.rounds("train", i)
        assert len(set(numbers)) == len(numbers)
    assert seen.rounds("train", 0)[:3] == [1, 2, 3]


def test_the_config_of_the_caller_is_not_changed(zeros: ArrayRecord) -> None:
    config = ConfigRecord({"lr": 0.1})
    seen = Recorder()
    BufferedAsync(2).start(InMemoryGrid(seen.app, 2), zeros, num_rounds=2, train_config=config)
    assert dict(config) == {"lr": 0.1}
    assert all(c["lr"] == 0.1 for kind, _, c in seen.sent if kind == "train")
