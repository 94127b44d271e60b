"""The lines of a run beside its checkpoints: a resumed run has the lines of its predecessors."""

import fcntl
import os
import time
from pathlib import Path
from typing import Any

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.results.directory import RunDirectory, read_lines

EVENTS, LOCK = "events.jsonl", "lock"
PATIENCE, PAUSE = 10.0, 0.2  # seconds for the processes of a killed run to end; between two tries


class Journal:
    """Copy of the JSON Lines files of a run, which its checkpoints refer to by their lengths.

    Parameters
    ----------
    folder : str or Path
        Folder of the checkpoints; made if needed.
    out : RunDirectory
        Folder of this run, whose lines are copied from now on.

    Raises
    ------
    ConfigError
        If another run uses the folder.
    """

    def __init__(self, folder: str | Path, out: RunDirectory) -> None:
        self.folder, self.out = Path(folder), out
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        self.names_with_replies = {
            str(event["name"])
            for event in read_lines(self.folder / EVENTS)
            if event["event"] == "reply"
        }
        out.copy_lines_to(self.append)

    def _lock(self) -> None:
        """Keep other processes from the folder until this one ends."""
        # Never closed: that would release the lock.
        descriptor = os.open(self.folder / LOCK, os.O_WRONLY | os.O_CREAT, 0o600)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > end:
                    os.close(descriptor)
                    raise ConfigError(
                        f"federation.checkpoints is {str(self.folder)!r}: is in use by another run"
                    ) from None
                time.sleep(PAUSE)
            else:
                return

    def append(self, name: str, line: str) -> None:
        """Append a line to the copy of a file."""
        with (self.folder / name).open("a") as file:
            file.write(line)

    def state(self) -> dict[str, int]:
        """Return the length of each file in bytes."""
        return {path.name: path.stat().st_size for path in self.folder.glob("*.jsonl")}

    def load(self, state: dict[str, Any]) -> None:
        """Cut the files to these lengths, and write their lines into the folder of this run.

        The stages of a run are its own: those of its predecessors are left out.
        """
        for path in self.folder.glob("*.jsonl"):
            with path.open("r+b") as file:
                file.truncate(state.get(path.name, 0))
        for name in state:
            for line in read_lines(self.folder / name):
                if line.get("event") != "stage":
                    self.out.append(name, line, copied=False)
