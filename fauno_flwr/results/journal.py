"""The events of a run beside its checkpoints: a resumed run has those of its predecessors."""

import fcntl
import os
import time
from pathlib import Path

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.results.directory import RunDirectory, append_line, read_lines

EVENTS, LOCK = "events.jsonl", "lock"
PATIENCE, PAUSE = 10.0, 0.2  # seconds for the processes of a killed run to end; between two tries


class Journal:
    """Copy of the events of a run, which its checkpoints refer to by its length.

    Parameters
    ----------
    folder : str or Path
        Folder of the checkpoints; made if needed.
    out : RunDirectory
        Folder of this run.
    resumes : bool, default True
        Whether the folder holds a checkpoint to resume from; if not, the events of a run that ended
        before its first one are deleted.

    Raises
    ------
    ConfigError
        If another run uses the folder.
    """

    def __init__(self, folder: str | Path, out: RunDirectory, resumes: bool = True) -> None:
        self.folder, self.out = Path(folder), out
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        if not resumes:
            (self.folder / EVENTS).unlink(missing_ok=True)
        self.names_with_replies = {
            str(event["name"])
            for event in read_lines(self.folder / EVENTS)
            if event["event"] == "reply"
        }

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

    def append(self, line: str) -> None:
        """Append a line."""
        append_line(self.folder / EVENTS, line)

    def state(self) -> int:
        """Return the length in bytes."""
        return (self.folder / EVENTS).stat().st_size

    def load(self, state: int) -> None:
        """Cut the copy to that length, and add its lines to the events of this run.

        The stages of a run are its own: those of its predecessors are left out.
        """
        os.truncate(self.folder / EVENTS, state)
        for event in read_lines(self.folder / EVENTS):
            if event["event"] != "stage":
                self.out.append(EVENTS, event)
