"""Checkpoints: files from which a training resumes after its server has died."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from logging import ERROR, INFO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.common.logger import log
from safetensors import safe_open
from safetensors.numpy import save

from strategies.checks import require_number
from strategies.flower_internals import message_from_bytes, message_to_bytes

FORMAT, SCHEMA_VERSION = "strategies.BufferedAsync", 3

State = dict[str, Any]
Tensors = dict[str, np.ndarray]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the text says why."""


class Checkpoints:
    """One safetensors file per checkpointed version, written atomically, with a checksum.

    A file holds the versions that updates start from, the buffer, the messages in flight, the
    state of the optimiser, the counters of the guard, the random generator, the clock and the
    metrics so far. Nothing is pickled.

    Parameters
    ----------
    folder : Path or str
        Created if needed. One folder holds one run.
    every : int, default 1
        Versions between two files, at least: versions made at the same time share a file.
    keep : int, default 3
        Number of newest files to keep; at least 2, so that a damaged one has a predecessor.
    resume : bool, default False
        Resume from the newest usable file of the folder, or start afresh if it has none. Without
        it, a folder with checkpoints is an error.
    """

    def __init__(
        self, folder: Path | str, *, every: int = 1, keep: int = 3, resume: bool = False
    ) -> None:
        require_number("every", every, at_least=1)
        require_number("keep", keep, at_least=2)
        self.folder, self.every, self.keep, self.resume = Path(folder), every, keep, resume

    def files(self) -> list[Path]:
        """List the checkpoints in the folder, oldest first."""
        return sorted(self.folder.glob("version-*.safetensors"))

    def begin(self, schema: Mapping[str, str]) -> tuple[State, Tensors] | None:
        """Return the state and tensors to resume from; None to start afresh.

        Parameters
        ----------
        schema : mapping of str to str
            Names and types of the arrays to train.

        Raises
        ------
        CheckpointError
            If there are files, but none can be used.
        ValueError
            If there are files, but ``resume`` is off.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files = self.files()
        if files and not self.resume:
            raise ValueError(
                f"the folder {str(self.folder)!r} holds checkpoints of another run: "
                f"must be empty, or resume=True"
            )
        for path in reversed(files):
            try:
                found = read_checkpoint(path, schema)
            except CheckpointError as error:
                log(ERROR, "%s; trying its predecessor", error)
                continue
            log(INFO, "resuming from %s", path.name)
            return found
        if files:
            raise CheckpointError(f"none of the {len(files)} checkpoints can be used")
        return None

    def save(self, version: int, state: State, tensors: Tensors, schema: Mapping[str, str]) -> None:
        """Write the file of a version, and delete the oldest files."""
        text = json.dumps(state)
        metadata = {
            "format": FORMAT,
            "schema_version": str(SCHEMA_VERSION),
            "schema": json.dumps(dict(schema)),
            "state": text,
            "checksum": checksum(text, tensors),
        }
        path = self.folder / f"version-{version:09d}.safetensors"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(save(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the new name survives a power cut, too
        finally:
            os.close(folder)
        for old in self.files()[: -self.keep]:
            old.unlink()


def read_checkpoint(path: Path, schema: Mapping[str, str]) -> tuple[State, Tensors]:
    """Read state and tensors from one file.

    Raises
    ------
    CheckpointError
        If it is damaged, or belongs to another program, version or model.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # of safetensors or the file system
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path.name} was not written by {FORMAT}")
    if metadata.get("schema_version") != str(SCHEMA_VERSION):
        raise CheckpointError(
            f"{path.name} has schema version {metadata.get('schema_version')}: must be "
            f"{SCHEMA_VERSION}"
        )
    if metadata.get("checksum") != checksum(metadata.get("state", ""), tensors):
        raise CheckpointError(f"{path.name} is damaged: its checksum is wrong")
    held = json.loads(metadata["schema"])
    if held != dict(schema):
        odd = sorted({*held.items()} ^ {*schema.items()})[:4]
        raise CheckpointError(f"{path.name} is of another model: {odd} are in only one of the two")
    return json.loads(metadata["state"]), tensors


def checksum(text: str, tensors: Tensors) -> str:
    """Compute the SHA-256 over the state, then the tensors in the order of their names."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}{tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def inside(folder: str, tensors: Mapping[str, np.ndarray]) -> Tensors:
    """Prefix the names of tensors with `folder` and a slash."""
    return {f"{folder}/{name}": tensor for name, tensor in tensors.items()}


def under(folder: str, tensors: Mapping[str, np.ndarray]) -> Tensors:
    """Return the tensors that :func:`inside` has prefixed, by their own names."""
    start = f"{folder}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def as_tensor(data: bytes) -> np.ndarray:
    """Return bytes as an array of uint8."""
    return np.frombuffer(data, np.uint8)


def pack(folder: str, messages: Sequence[Message]) -> Tensors:
    """Serialise messages into tensors inside `folder`."""
    return {f"{folder}/{i}": as_tensor(message_to_bytes(m)) for i, m in enumerate(messages)}


def unpack(folder: str, tensors: Mapping[str, np.ndarray]) -> list[Message]:
    """Return the messages that :func:`pack` has serialised."""
    count = len(under(folder, tensors))
    return [message_from_bytes(tensors[f"{folder}/{i}"].tobytes()) for i in range(count)]
