"""Files from which training goes on after the server has died."""

import hashlib
import json
import os
from collections.abc import Mapping
from logging import ERROR, INFO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.common.logger import log
from safetensors import safe_open
from safetensors.numpy import save

from strategies.checks import require_number

FORMAT, SCHEMA_VERSION = "strategies.BufferedAsync", 3

State = dict[str, Any]
Tensors = dict[str, np.ndarray]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the text says why."""


class Checkpoints:
    """One safetensors file per kept version, written whole or not at all, with a checksum.

    A file holds the arrays, the snapshots that updates start from, the buffer, the flights, the
    optimiser, the counters of the guard, the random stream, the clock and the metrics so far.
    Nothing in it is pickled.

    Parameters
    ----------
    folder : Path or str
        Made if needed. One folder, one run.
    every : int, default 1
        Versions from one file to the next, at least: versions that are made at the same time
        share a file.
    keep : int, default 3
        Newest files to keep; at least 2, so that a damaged one has a predecessor.
    resume : bool, default False
        Go on from the newest usable file of the folder; begin anew if the folder has none. Without
        it, a folder with checkpoints is an error.
    """

    def __init__(
        self, folder: Path | str, *, every: int = 1, keep: int = 3, resume: bool = False
    ) -> None:
        require_number("every", every, at_least=1)
        require_number("keep", keep, at_least=2)
        self.folder, self.every, self.keep, self.resume = Path(folder), every, keep, resume

    def files(self) -> list[Path]:
        """Checkpoints in the folder, oldest first."""
        return sorted(self.folder.glob("version-*.safetensors"))

    def begin(self, schema: Mapping[str, str]) -> tuple[State, Tensors] | None:
        """What to go on from; None to begin anew.

        Parameters
        ----------
        schema : mapping of str to str
            Names and types of the arrays to train.

        Raises
        ------
        CheckpointError
            If there are files, but none that can be used.
        ValueError
            If there are files, and ``resume`` is off.
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
                log(ERROR, "%s; trying the one before", error)
                continue
            log(INFO, "going on from %s", path.name)
            return found
        if files:
            raise CheckpointError(f"none of the {len(files)} checkpoints can be used")
        return None

    def save(self, version: int, state: State, tensors: Tensors, schema: Mapping[str, str]) -> None:
        """Write the file of a version, and remove the oldest ones."""
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
            os.fsync(folder)  # the new name, too, must survive a power cut
        finally:
            os.close(folder)
        for old in self.files()[: -self.keep]:
            old.unlink()


def read_checkpoint(path: Path, schema: Mapping[str, str]) -> tuple[State, Tensors]:
    """State and tensors of one file.

    Raises
    ------
    CheckpointError
        If it is damaged, or of another program, version or model.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors' own, or the file system's
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
    """SHA-256 over the state and the tensors in the order of their names."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}{tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()
