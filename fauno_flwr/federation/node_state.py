"""The agent of a node in a file of its own: Flower forgets its state when the SuperNode ends."""

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
    """One file per agent in a folder set by the owner of the node, replaced after each message.

    The file has a line of JSON, the parameters and the residual. A file of another training is not
    used, and is replaced after the first message of the new one.

    Parameters
    ----------
    folder : str
        Absolute path; created, readable by its owner only, if it does not exist.
    agent : int
        Index of the agent; part of the file name.
    training : str
        Id of the training: the same when the server resumes from its checkpoints.

    Raises
    ------
    ValueError
        If the folder is not an absolute path, or cannot be created or written to.
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
        """Return what was last saved for this training; None, with a log line, if unusable."""
        if not self.path.exists():
            return None
        try:
            if self.path.stat().st_size > LARGEST:
                raise ValueError(f"it has more than {LARGEST} bytes")
            header, _, body = self.path.read_bytes().partition(b"\n")
            about = dict(json.loads(header))
            if about.get("format") != FORMAT or about.get("agent") != self.agent:
                raise ValueError(f"it is no {FORMAT} of agent {self.agent}")
            numbers = {name: about[name] for name in ("messages", "version", "split")}
            if about.get("sha256") != _checksum(str(about.get("training")), numbers, body):
                raise ValueError("its checksum is wrong")
        except (OSError, ValueError, KeyError, TypeError) as error:
            log(WARNING, "%s is not used, the agent starts anew: %s", self.path, error)
            return None
        if about.get("training") != self.training:
            log(INFO, "%s is of another training: the agent starts anew", self.path)
            return None
        log(INFO, "agent %s resumes after message %s", self.agent, numbers["messages"])
        split = numbers.pop("split")
        return ConfigRecord({"parameters": body[:split], "residual": body[split:], **numbers})

    def save(self, record: ConfigRecord) -> None:
        """Replace the file atomically.

        If that fails, as on a full disk, there is a log line and no error: the node goes on without
        being able to resume.
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
            partial.unlink(missing_ok=True)  # left by a killed process
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
            os.fsync(folder)  # so that the new name survives a power cut
        finally:
            os.close(folder)


def _checksum(training: str, numbers: dict[str, Any], body: bytes) -> str:
    digest = hashlib.sha256(json.dumps([training, numbers], sort_keys=True).encode())
    digest.update(body)
    return digest.hexdigest()
