"""Checkpoints: files from which a training resumes after its server has died."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from logging import ERROR, INFO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flwr.app import Message
from flwr.common.logger import log
from safetensors import safe_open
from safetensors.numpy import save

from strategies.checks import require_number, shown
from strategies.flower_internals import message_from_bytes, message_to_bytes

FORMAT, SCHEMA_VERSION = "strategies.BufferedAsync", 6
STATE = "state"  # the tensor that holds the state as JSON; the header of a file is limited
ABOUT, NOTE = "about.json", "spent.json"
MOST_DIFFERENCES = 5  # that an error names

State = dict[str, Any]
Tensors = dict[str, np.ndarray]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the text says why."""


class Part(Protocol):
    """An object outside the strategy whose state belongs in the checkpoints, too."""

    def state(self) -> Any:
        """Return the state, as JSON can hold it."""

    def load(self, state: Any) -> None:
        """Restore what :meth:`state` has returned."""


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
    about : mapping, optional
        Settings that the run depends on, by name, as JSON can hold them. They are written to
        ``about.json`` in the folder; a run with others is refused. Default: no such check.
    parts : mapping of str to Part, optional
        Objects of yours whose state is saved and restored with the training, by name.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        every: int = 1,
        keep: int = 3,
        resume: bool = False,
        about: Mapping[str, Any] | None = None,
        parts: Mapping[str, Part] | None = None,
    ) -> None:
        require_number("every", every, at_least=1)
        require_number("keep", keep, at_least=2)
        self.folder, self.every, self.keep, self.resume = Path(folder), every, keep, resume
        self.about: Mapping[str, Any] = json.loads(json.dumps(about or {}))
        self.parts: Mapping[str, Part] = parts or {}

    def files(self) -> list[Path]:
        """List the checkpoints in the folder, oldest first."""
        return sorted(self.folder.glob("version-*.safetensors"))

    def check(self) -> None:
        """Check that the folder is of a run with these settings, or claim it if it is new.

        Raises
        ------
        ValueError
            If it is of a run with other settings.
        """
        if not self.about:
            return
        path = self.folder / ABOUT
        if not path.exists() and not self.files():
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(self.about, indent=2) + "\n")
            partial.replace(path)
            return
        try:
            held = json.loads(path.read_text()) if path.exists() else {}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{str(path)!r} is damaged: {shown(str(error))}") from error
        if not isinstance(held, dict):
            raise ValueError(f"{str(path)!r} is damaged: it holds {shown(held)}")
        names = sorted({*held, *self.about})
        unequal = [n for n in names if held.get(n) != self.about.get(n)]
        if unequal:
            named = [
                f"{n} is {self.about.get(n)!r} here, {held.get(n)!r} there"
                for n in unequal[:MOST_DIFFERENCES]
            ]
            more = len(unequal) - len(named)
            raise ValueError(
                f"the checkpoints in {str(self.folder)!r} are of a run with other settings: "
                + "; ".join(named)
                + (f"; and {more} more" if more else "")
            )

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
            If there are files, but ``resume`` is off, or they are of other settings.
        """
        self.check()
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
        """Write the file of a version, and delete the oldest files; ``OSError`` if it cannot."""
        described = json.dumps(dict(schema))
        held = {**tensors, STATE: as_tensor(json.dumps(state).encode())}
        metadata = {
            "format": FORMAT,
            "schema_version": str(SCHEMA_VERSION),
            "schema": described,
            "checksum": checksum(described, held),
        }
        write(self.folder / f"version-{version:09d}.safetensors", save(held, metadata))
        for old in self.files()[: -self.keep]:
            old.unlink()

    def note(self, state: State) -> None:
        """Write what must be known before the next checkpoint; ``OSError`` if it cannot."""
        write(self.folder / NOTE, json.dumps(state).encode())

    def noted(self) -> State | None:
        """Return the last :meth:`note` of the run to resume; None if there is none.

        Raises
        ------
        CheckpointError
            If it is damaged.
        ValueError
            If there is one, but ``resume`` is off.
        """
        path = self.folder / NOTE
        if not path.exists():
            return None
        if not self.resume:
            raise ValueError(
                f"the folder {str(self.folder)!r} holds {NOTE} of another run: must be empty, or "
                f"resume=True"
            )
        try:
            return dict(json.loads(path.read_text()))
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{NOTE} is damaged: {shown(str(error))}") from error


def write(path: Path, data: bytes) -> None:
    """Write a file that is complete, or as before, and survives a power cut."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)  # on a full disk, half a file takes what others need
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # so that the new name survives a power cut, too
    finally:
        os.close(folder)


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
        raise CheckpointError(f"{path.name} cannot be read: {shown(str(error), 200)}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path.name} was not written by {FORMAT}")
    if metadata.get("schema_version") != str(SCHEMA_VERSION):
        raise CheckpointError(
            f"{path.name} has schema version {metadata.get('schema_version')}: must be "
            f"{SCHEMA_VERSION}"
        )
    if metadata.get("checksum") != checksum(metadata.get("schema", ""), tensors):
        raise CheckpointError(f"{path.name} is damaged: its checksum is wrong")
    try:
        held, state = json.loads(metadata["schema"]), json.loads(tensors.pop(STATE).tobytes())
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} holds no state: {shown(str(error))}") from error
    if held != dict(schema):
        odd = sorted({*held.items()} ^ {*schema.items()})[:4]
        raise CheckpointError(f"{path.name} is of another model: {odd} are in only one of the two")
    return state, tensors


def checksum(text: str, tensors: Tensors) -> str:
    """Compute the SHA-256 over the schema, then the tensors in the order of their names."""
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
