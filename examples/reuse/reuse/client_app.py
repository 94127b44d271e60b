"""The client: it does not depend on the strategy."""

import time

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from reuse.task import FEATURES, HIDDEN, make_data, test

app = ClientApp()


def train(net: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int) -> float:
    """Train by plain SGD; return the loss of the last epoch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.002)
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
    return total / len(x)


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train on the data of this node."""
    partition = int(context.node_config["partition-id"])
    settings = context.run_config
    started = time.perf_counter()
    torch.manual_seed(1000 * partition + int(message.content["config"]["server-round"]))
    net = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = map(torch.from_numpy, make_data(partition))
    loss = train(net, x, y, int(settings["local-epochs"]))
    least = settings["seconds"] * (settings["slow-down"] if partition == 0 else 1.0)
    time.sleep(max(0.0, least - (time.perf_counter() - started)))
    content = RecordDict(
        {
            "arrays": ArrayRecord(net.state_dict()),
            "metrics": MetricRecord({"loss": loss, "num-examples": len(x)}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test on the data of this node."""
    parameters = {name: each.numpy() for name, each in message.content["arrays"].items()}
    x, y = make_data(int(context.node_config["partition-id"]))
    metrics = MetricRecord({"loss": test(parameters, x, y), "num-examples": len(x)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
