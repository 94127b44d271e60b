"""The client: it does not depend on the strategy."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from quickstart.task import load_partition, make_net, train

app = ClientApp()


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train on the data of this node."""
    partition = int(context.node_config["partition-id"])
    x, y = load_partition(partition, int(context.node_config["num-partitions"]))
    net = make_net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    torch.manual_seed(1000 * partition + int(message.content["config"]["server-round"]))
    settings = context.run_config
    loss = train(net, x, y, int(settings["local-epochs"]), float(settings["learning-rate"]))
    content = RecordDict(
        {
            "arrays": ArrayRecord(net.state_dict()),
            "metrics": MetricRecord({"loss": loss, "num-examples": len(x)}),
        }
    )
    return Message(content, reply_to=message)
