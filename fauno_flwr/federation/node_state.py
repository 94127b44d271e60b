"""The agent of a node in a file of its own: Flower forgets it when the SuperNode ends."""

import hashlib
import json
import os
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord
from flwr.common.logger import log

STATE_DIR = "state-dir"
FORMAT = "fauno_flwr.federation.node_state 2"
DIR_MODE, FILE_MODE = 0o700, 0o600
LARGEST = 2**28  # bytes; far more than an agent, far less than a node's memory


class NodeState:
    """One file per agent in the folder that its node's owner named, replaced after each message.

    A line of JSON, then the parameters and the residual. A file of another training is not gone on
    from, and replaced by the first message of the new one.

    Parameters
    ----------
    folder : str
        Absolute; made for its owner only if it is not there.
    agent : int
        Number of the agent; it is part of the file's name.
    training : str
        Name of the training: the same when the server resumes from its checkpoints.

    Raises
    ------
    ValueError
        If the folder is no absolute path, or cannot be made or written to.
    """

    def __init__(self, folder: Any, agent: int, training: str) -> None:
        if not isinstance(folder, str) or not Path(folder).is_absolute():
            raise ValueError(
                f"{STATE_DIR} in the node config is {folder!r}: must be an absolute path"
            )
        self.folder, self.agent, self.training = Path(folder), agent, training
        self.path = self.folder / f"agent-{agent}.state"
        try:
            self.folder.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{STATE_DIR} in the node config is {folder!r}: cannot be made ({error.strerror})"
            ) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise ValueError(f"{STATE_DIR} in the node config is {folder!r}: cannot be written to")

    def load(self) -> ConfigRecord | None:
        """What was saved last for this training; None, and a line in the log, if nothing usable."""
        if not self.path.exists():
            return None
        try:
            if self.path.stat().st_size > LARGEST:
                raise ValueError(f"it has more than {LARGEST} bytes")
            header, _, body = self.path.read_bytes().partition(b"\n")
            told = dict(json.loads(header))
            if told.get("format") != FORMAT or told.get("agent") != self.agent:
                raise ValueError(f"it is no {FORMAT} of agent {self.agent}")
            numbers = {name: told[name] for name in ("messages", "version", "split")}
            if told.get("sha256") != _checksum(self.training_of(told), numbers, body):
                raise ValueError("its checksum is wrong")
        except (OSError, ValueError, KeyError, TypeError) as error:
            log(WARNING, "%s is left alone, the agent begins anew: %s", self.path, error)
            return None
        if self.training_of(told) != self.training:
            log(INFO, "%s is of another training: the agent begins anew", self.path)
            return None
        log(INFO, "agent %s goes on after message %s", self.agent, numbers["messages"])
        split = numbers.pop("split")
        return ConfigRecord({"parameters": body[:split], "residual": body[split:], **numbers})

    @staticmethod
    def training_of(told: dict[str, Any]) -> str:
        """Training that a header names."""
        return str(told.get("training"))

    def save(self, record: ConfigRecord) -> None:
        """Replace the file; it is the old one or the new one whenever the power goes.

        A disk that is full costs the node its memory of a crash, not its part in the training: a
        line in the log, no error.
        """
        parameters, residual = record["parameters"], record["residual"]
        assert isinstance(parameters, bytes)
        assert isinstance(residual, bytes)
        body = parameters + residual
        numbers = {name: record[name] for name in ("messages", "version")}
        numbers["split"] = len(parameters)
        header = {
            "format": FORMAT,
            "agent": self.agent,
            "training": self.training,
            **numbers,
            "sha256": _checksum(self.training, numbers, body),
        }
        partial = self.path.with_suffix(".partial")
        try:
            partial.unlink(missing_ok=True)  # of a process that was killed; it may be anyone's
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(header).encode() + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except OSError as error:
            log(WARNING, "%s was not saved: %s", self.path, error)
            return
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, must survive a power cut
        finally:
            os.close(folder)


def _checksum(training: str, numbers: dict[str, Any], body: bytes) -> str:
    digest = hashlib.sha256(json.dumps([training, numbers], sort_keys=True).encode())
    digest.update(body)
    return digest.hexdigest()
