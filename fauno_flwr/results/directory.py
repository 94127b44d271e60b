"""The folder of a run: settings, events, metrics, summary, checkpoints, figures."""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from logging import ERROR, INFO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.common.logger import log
from safetensors.numpy import save_file

from fauno_flwr.config.errors import ConfigError

SCHEMA_VERSION = 1
REPLAY = "replay.npz"  # one world of the evaluation, recorded


class RunDirectory:
    """An absolute folder that is new or empty, made when the run begins.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ConfigError
        If it is not absolute, cannot be written, or holds the results of another run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = self.check(path)
        self._unwritten: set[str] = set()
        for name in ("checkpoints", "figures"):
            (self.path / name).mkdir(exist_ok=True)
        (self.path / "events.jsonl").touch()

    @staticmethod
    def check(path: str | Path) -> Path:
        """Make the folder and check that it can be written; raise as the class does."""
        folder = Path(path).expanduser()
        if not folder.is_absolute():
            raise ConfigError(f"out is {str(path)!r}: must be an absolute path")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise ConfigError(f"out is {str(path)!r}: is not empty, choose a new folder")
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ConfigError(
                f"out is {str(path)!r}: cannot be written ({error.strerror})"
            ) from error
        return folder

    def write_text(self, name: str, text: str) -> Path:
        """Write a file atomically."""
        return write_atomically(self.path / name, text)

    def write_json(self, name: str, values: Mapping[str, Any]) -> Path:
        """Write a JSON file; a number that is not finite becomes null."""
        return self.write_text(name, to_json(values))

    def append(self, name: str, values: Mapping[str, Any]) -> str:
        """Append one line to a JSON Lines file, and return it; on a full disk it is left out."""
        line = json.dumps(_plain(values), allow_nan=False) + "\n"
        with self.tolerating(name):
            append_line(self.path / name, line)
        return line

    def write_lines(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write a JSON Lines file atomically; on a full disk it stays as it is."""
        text = (json.dumps(_plain(line), allow_nan=False) + "\n" for line in lines)
        with self.tolerating(name):
            self.write_text(name, "".join(text))

    @contextmanager
    def tolerating(self, name: str) -> Iterator[None]:
        """Suppress that a file cannot be written, as on a full disk, and say so once.

        For what a training writes on the way: it goes on without.
        """
        try:
            yield
        except OSError as error:
            if name not in self._unwritten:
                log(ERROR, "%s cannot be written (%s); the run goes on", name, error.strerror)
            self._unwritten.add(name)
        else:
            if name in self._unwritten:
                log(INFO, "%s can be written again; what came in between is missing", name)
            self._unwritten.discard(name)

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> Path:
        """Write named arrays as safetensors."""
        path = self.path / "checkpoints" / name
        path.parent.mkdir(exist_ok=True)
        save_file(dict(arrays), path)
        return path


def to_json(values: Mapping[str, Any]) -> str:
    """Return values as JSON; a number that is not finite becomes null."""
    return json.dumps(_plain(values), indent=2, allow_nan=False) + "\n"


def require_folder(setting: str, path: str) -> None:
    """Make the folder of a setting, if it is set; ``ConfigError`` if it cannot be written."""
    if not path:
        return
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise ConfigError(
            f"{setting} is {path!r}: cannot be written ({error.strerror}), must be a folder that "
            f"can be written to"
        ) from error


def write_atomically(path: Path, text: str) -> Path:
    """Write a file in one step: readers see all of it or none."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return path


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, or nothing of it: half a line would spoil the next one."""
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            left = line.encode()
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(end)
            raise


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of a JSON Lines file; without a file there are none."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
