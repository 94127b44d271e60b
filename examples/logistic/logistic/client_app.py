"""The client: it does not depend on the strategy."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from logistic.task import load_partition, to_arrays, train

app = ClientApp()


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train on the data of this node."""
    partition = int(context.node_config["partition-id"])
    x, y = load_partition(partition, int(context.node_config["num-partitions"]))
    seed = 1000 * partition + int(message.content["config"]["server-round"])
    model = train(message.content["arrays"], x, y, seed)
    content = RecordDict(
        {
            "arrays": to_arrays(model),
            "metrics": MetricRecord({"accuracy": float(model.score(x, y)), "num-examples": len(x)}),
        }
    )
    return Message(content, reply_to=message)
