"""The client: it does not depend on the strategy."""

import time

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from reuse.task import make_data, make_net, test, train

app = ClientApp()


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train on the data of this node."""
    partition = int(context.node_config["partition-id"])
    settings = context.run_config
    started = time.perf_counter()
    torch.manual_seed(1000 * partition + int(message.content["config"]["server-round"]))
    net = make_net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = make_data(partition)
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
    net = make_net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = make_data(int(context.node_config["partition-id"]))
    metrics = MetricRecord({"loss": test(net, x, y), "num-examples": len(x)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
