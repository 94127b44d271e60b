"""Find and stop all processes that an engine has started.

Run as ``python processes.py <mark> <folder>`` with a pipe from the starter of an engine as standard
input, it waits until the starter has ended, for whatever reason, and stops the processes that are
left. It imports little because it runs beside every engine.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "FAUNO_RUN_MARK"
PATIENCE = 5.0
LONGEST_TEMPDIR = 30


def make_folder() -> Path:
    """Make a temporary folder for Ray, which creates sockets in it: their paths must be short."""
    short = len(tempfile.gettempdir()) <= LONGEST_TEMPDIR
    return Path(tempfile.mkdtemp(prefix="fauno-", dir=None if short else "/tmp"))


@contextlib.contextmanager
def no_survivors() -> Iterator[Path]:
    """Stop the processes that were started within a context, at its end; yields a folder for them.

    Ray's own shutdown leaves some of its agents running for a while, or for good if it is
    interrupted while it starts.
    """
    folder, mark, before = make_folder(), uuid.uuid4().hex, os.environ.get(MARK)
    os.environ[MARK] = mark
    try:
        yield folder
    finally:
        stop(mark, folder, PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)
        if before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = before


def is_zombie(process: psutil.Process) -> bool:
    """Return whether a process has ended but not been waited for."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True


def _writes_to(process: psutil.Process, folder: Path) -> bool:
    inside = f"{folder}{os.sep}"
    return process.name().startswith("ray") and any(
        file.path.startswith(inside) for file in process.open_files()
    )


def find(mark: str, folder: Path) -> list[psutil.Process]:
    """Return processes with a mark, their descendants, and those of Ray that write to a folder.

    Some agents of Ray overwrite their environment with a process title and are re-parented when
    their parent ends; they are found by their open log files.

    Parameters
    ----------
    mark : str
        Value of ``FAUNO_RUN_MARK`` in the environment.
    folder : Path
        Of the engine.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(MARK) == mark or _writes_to(process, folder):
                found |= {process, *process.children(recursive=True)}
        except (psutil.Error, OSError):
            continue
    return [process for process in found if process.is_running() and not is_zombie(process)]


def stop(mark: str, folder: Path, patience: float) -> None:
    """Terminate, then kill, all processes that :func:`find` finds.

    Parameters
    ----------
    mark : str
    folder : Path
    patience : float
        Seconds between the two.
    """
    end = time.monotonic() + patience
    terminated: set[int] = set()
    while processes := find(mark, folder):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if time.monotonic() > end:
                    process.kill()
                elif process.pid not in terminated:
                    terminated.add(process.pid)
                    process.terminate()
        psutil.wait_procs(processes, timeout=0.2)


def main(mark: str, folder: Path) -> None:
    """Wait until the starter has ended, then stop its processes and remove its folder."""
    sys.stdin.read()
    stop(mark, folder, PATIENCE)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
