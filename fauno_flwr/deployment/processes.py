"""Finding and stopping all that an engine has started; as a script, once its starter has ended.

Run as ``python processes.py <mark> <folder>`` with a pipe to its starter as standard input, it
waits until the starter has ended, in whatever way, and stops what is left. It imports little: it
starts with every engine.
"""

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

import psutil

MARK = "FAUNO_RUN_MARK"
PATIENCE = 5.0


def is_zombie(process: psutil.Process) -> bool:
    """Whether a process has ended but not been waited for."""
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
    """What carries a mark or descends from what does, and what of Ray's writes to a folder.

    Some of Ray's agents hide their environment behind a title of their own and are adopted when
    their parent ends; their logs betray them.

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
    """Ask, then kill, all that :func:`find` finds.

    Parameters
    ----------
    mark : str
    folder : Path
    patience : float
        Seconds between the two.
    """
    end = time.monotonic() + patience
    asked: set[int] = set()
    while processes := find(mark, folder):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if time.monotonic() > end:
                    process.kill()
                elif process.pid not in asked:
                    asked.add(process.pid)
                    process.terminate()
        psutil.wait_procs(processes, timeout=0.2)


def main(mark: str, folder: Path) -> None:
    """Wait for the end of the starter, then clear up; there is little to do after a proper end."""
    sys.stdin.read()
    stop(mark, folder, PATIENCE)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
