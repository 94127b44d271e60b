"""The client: the body comes from the server, the head from its own state."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from personal.task import BODY, HEAD, load_partition, make_net, part_of, test, train

app = ClientApp()


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train body and head on the data of this node; send the body, keep the head."""
    partition = int(context.node_config["partition-id"])
    data, held_out = load_partition(partition, int(context.node_config["num-partitions"]))
    net = make_net()
    own = context.state.array_records.get("head", ArrayRecord(part_of(net, HEAD)))
    shared = message.content["arrays"].to_torch_state_dict()
    net.load_state_dict({**shared, **own.to_torch_state_dict()})
    settings = context.run_config
    torch.manual_seed(1000 * partition + int(message.content["config"]["server-round"]))
    train(net, *data, int(settings["local-epochs"]), float(settings["learning-rate"]))
    metrics = {"accuracy": test(net, *held_out), "num-examples": len(data[1])}
    content = RecordDict(
        {"arrays": ArrayRecord(part_of(net, BODY)), "metrics": MetricRecord(metrics)}
    )
    reply = Message(content, reply_to=message)
    context.state["head"] = ArrayRecord(part_of(net, HEAD))
    return reply
