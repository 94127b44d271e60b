"""A mod that logs the metrics of every training to TensorBoard."""

from pathlib import Path

from flwr.app import Context, Message, MetricRecord
from flwr.clientapp.typing import ClientAppCallable
from torch.utils.tensorboard import SummaryWriter


def tensorboard_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Log the metrics of a reply, at each node by itself.

    The step is the number of trainings of this node. The version that it helps to make,
    ``server-round``, is no step: a fast node may train twice for one, a slow one skips some.
    """
    reply = call_next(message, context)
    folder = str(context.run_config["log-dir"])
    if folder and reply.has_content():
        step = 1 + int(context.state.metric_records.get("logged", {"trainings": 0})["trainings"])
        name = f"node-{context.node_config['partition-id']}"
        with SummaryWriter(str(Path(folder) / name)) as writer:
            for metric, value in reply.content["metrics"].items():
                writer.add_scalar(f"train/{metric}", value, step)
            writer.add_scalar("train/version", message.content["config"]["server-round"], step)
        context.state["logged"] = MetricRecord({"trainings": step})
    return reply
