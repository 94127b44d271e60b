"""The client app, with hostile behaviour on request of a node's ``--node-config``.

All SuperNodes of a run get the same app, so the node config tells hostile ones apart.
"""

import time
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from fauno_flwr.client_app import app as honest
from fauno_flwr.federation.protocol import ARRAYS
from strategies.arrays import to_arrays, to_record

app = ClientApp()


class Junk(ConfigRecord):
    """A record that cannot be decoded."""

    def deflate(self) -> bytes:
        """Bytes under the right name that are no record."""
        body = b"\xff" * 64
        return b"ConfigRecord %d\x00" % len(body) + body


def with_arrays(reply: Message, change: Any) -> Message:
    sent = to_arrays(reply.content.array_records[ARRAYS])
    reply.content[ARRAYS] = to_record({name: change(array) for name, array in sent.items()})
    return reply


@app.query()
def query(message: Message, context: Context) -> Message:
    return honest(message, context)


@app.query("actor")
def share_actor(message: Message, context: Context) -> Message:
    reply = honest(message, context)
    if context.node_config.get("rogue") == "actor":
        record = reply.content.array_records["actor"]
        reply.content["actor"] = ArrayRecord([array.numpy()[:1] for array in record.values()])
    return reply


@app.train()
def train(message: Message, context: Context) -> Any:
    rogue = str(context.node_config.get("rogue", ""))
    if rogue == "silent":
        time.sleep(100_000)
    if rogue == "no-message":
        return "a string"
    if rogue == "raises":
        raise RuntimeError("no train today")
    reply = honest(message, context)
    if rogue == "nan":
        return with_arrays(reply, lambda array: np.full_like(array, np.nan))
    if rogue == "shape":
        return with_arrays(reply, lambda array: array[..., :-1])
    if rogue == "junk":
        reply.content["junk"] = Junk()
    if rogue.startswith("huge"):
        mebibytes = int(rogue.partition("-")[2])
        values = np.random.default_rng().integers(0, 256, mebibytes * 2**20, np.uint8)
        reply.content[ARRAYS] = ArrayRecord([values])
    return reply
