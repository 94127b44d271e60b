"""The client: what leaves it is clipped and has noise, whatever the strategy."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod
from flwr.clientapp.typing import ClientAppCallable

from private.task import load_partition, to_arrays, train

app = ClientApp()


def privacy_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Clip the update and add noise, as the settings say."""
    norm, epsilon, delta = (
        float(context.run_config[name]) for name in ("clipping-norm", "epsilon", "delta")
    )
    if epsilon == 0:
        return call_next(message, context)
    # Two updates of norm c are at most 2 c apart, whatever the data.
    return LocalDpMod(norm, 2 * norm, epsilon, delta)(message, context, call_next)


@app.train(mods=[privacy_mod])
def fit(message: Message, context: Context) -> Message:
    """Train on the data of this node."""
    partition = int(context.node_config["partition-id"])
    x, y = load_partition(partition, int(context.node_config["num-partitions"]))
    weights = train(message.content["arrays"]["weights"].numpy(), x, y)
    # No metric of the data but their number: noise protects the arrays alone.
    metrics = MetricRecord({"num-examples": len(x)})
    return Message(RecordDict({"arrays": to_arrays(weights), "metrics": metrics}), reply_to=message)
