"""Replies of nodes, as serialised records: the model must stay finite and of its schema."""

import math
from pathlib import Path

import numpy as np
from flwr.app import Message, RecordDict

from strategies import Guard
from strategies.arrays import Layout
from strategies.buffer import Buffer
from strategies.flights import Flight
from strategies.flower_internals import records_from_bytes, records_to_bytes, set_identity
from strategies.guard import RejectedError
from strategies.merge import Mean, merge_weights
from tests.fuzz import require_sentence
from tests.strategies.test_fuzz import START, random_reply

MEMBERS, K = 20, 4


class Fuzzer:
    """A guard and a buffer that make versions of whatever is accepted."""

    def __init__(self, folder: Path) -> None:
        set_identity(run_id=1, node_id=1, task_id=1)
        self.layout, self.guard, self.buffer = Layout(START), Guard(max_norm=1e6), Buffer()
        self.guard.begin(self.layout, "arrays", "num-examples")
        self.theta = self.layout.flatten(START)
        self.count = self.version = 0

    def make(self, rng: np.random.Generator) -> bytes:
        """Return the records of a reply with random arrays and metrics."""
        return records_to_bytes(random_reply(rng))

    def handle(self, data: bytes) -> str:
        """Check a reply, and make a version with it if K members have sent one."""
        try:
            content = records_from_bytes(data)
        except Exception:  # Flower's own: such a message does not reach a server app
            return "no records"
        message = Message(RecordDict(), dst_node_id=1, message_type="train")
        message.content = content
        member = self.count % MEMBERS
        self.count += 1
        flight = Flight(str(self.count), member, member, self.version, 0.0, 60.0)
        try:
            update = self.guard.check(message, flight, self.theta, 0.0)
        except RejectedError as error:
            require_sentence(error, 2000)
            return f"rejected: {error.check}"
        self.buffer.put(update)
        if len(self.buffer) == K:
            self.make_version()
        return "accepted"

    def make_version(self) -> None:
        """Merge the buffer as a session does, with a start from the first version every time."""
        self.buffer.bound(3.0, self.guard.most_norm)
        updates = self.buffer.in_order()
        weights = merge_weights([update.steps for update in updates], [1.0] * K)
        deltas = [np.empty(self.layout.size) for _ in updates]
        for update, delta in zip(updates, deltas, strict=True):
            update.write(self.layout.whole, delta)
        delta = Mean()(deltas, weights)
        assert np.isfinite(delta).all(), "a poisoned version"
        assert math.isfinite(float(np.linalg.norm(delta)))
        assert np.linalg.norm(delta) <= 1e6
        arrays = self.layout.unflatten(self.theta + delta)
        assert set(arrays) == set(START)
        self.buffer.clear()
        self.version += 1
