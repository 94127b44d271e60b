"""Files of checkpoints: each is what was saved, or refused with a reason."""

import json
from pathlib import Path

import numpy as np

from strategies.checkpoint import CheckpointError, Checkpoints, read_checkpoint
from tests.fuzz import mutate

SCHEMA = {"w": "float64(3,)"}
STATE = {"version": 3, "time": 1.5, "buffer": [], "result": {"a": {"1": {"loss": 0.5}}}}
TENSORS = {"base/3": np.arange(3.0), "reply/0": np.arange(9, dtype=np.uint8)}


class Fuzzer:
    """The reader of checkpoints; inputs are damaged files."""

    def __init__(self, folder: Path) -> None:
        Checkpoints(folder).save(3, STATE, TENSORS, SCHEMA)
        (self.path,) = folder.glob("*.safetensors")
        self.whole = self.path.read_bytes()

    def make(self, rng: np.random.Generator) -> bytes:
        """Return a file whose header, body, or length has been changed."""
        length = 8 + int.from_bytes(self.whole[:8], "little")
        head, body = self.whole[8:length], self.whole[length:]
        if rng.random() < 0.5:
            head = mutate(rng, head)
            size = len(head) if rng.random() < 0.8 else int(rng.integers(2**63))
            return size.to_bytes(8, "little") + head + body
        return self.whole[:length] + mutate(rng, body)

    def handle(self, data: bytes) -> str:
        """Read a file."""
        self.path.write_bytes(data)
        try:
            state, tensors = read_checkpoint(self.path, SCHEMA)
        except CheckpointError as error:
            text = str(error)
            assert len(text) < 1000
            words = ("cannot be read", "was not written", "schema version", "is damaged", "another")
            return next((word for word in words if word in text), "other")
        assert json.dumps(state) == json.dumps(STATE), "another state"
        assert all(np.array_equal(tensors[name], each) for name, each in TENSORS.items())
        assert set(tensors) == set(TENSORS)
        return "read"
