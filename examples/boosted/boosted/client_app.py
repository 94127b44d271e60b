"""The client: it does not depend on the strategy."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from boosted.task import add_tree, load_partition

app = ClientApp()


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Add trees that fit the data of this node, in the places of this version."""
    partition = int(context.node_config["partition-id"])
    x, y = load_partition(partition, int(context.node_config["num-partitions"]))
    settings = context.run_config
    leaves = message.content["arrays"]["leaves"].numpy()
    first = int(message.content["config"]["server-round"]) * int(settings["trees-per-version"])
    for i in range(int(settings["trees-per-version"])):
        leaves = add_tree(leaves, (first + i) % len(leaves), x, y, float(settings["shrinkage"]))
    content = RecordDict(
        {
            "arrays": ArrayRecord({"leaves": Array(leaves)}),
            "metrics": MetricRecord({"num-examples": len(x)}),
        }
    )
    return Message(content, reply_to=message)
