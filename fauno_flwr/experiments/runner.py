"""Cells in parallel through Ray, one file each; what is there is not computed again."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fauno_flwr.config.settings import ConfigError
from fauno_flwr.experiments.cells import fingerprint, run_cell
from fauno_flwr.experiments.design import Cell
from fauno_flwr.results.directory import RunDirectory

Outcome = tuple[Cell, dict[str, Any] | Exception]
Pool = Callable[[Sequence[Cell]], Iterator[Outcome]]
PACKAGES = ("fauno_flwr", "sim_env", "strategies")
LOCAL = "local"
KNOCK_SECONDS = 10.0


class CellsFailedError(RuntimeError):
    """Some cells failed; the text is one sentence."""


class Results:
    """The folder of an experiment, new or begun.

    Parameters
    ----------
    path : Path
        Absolute.

    Raises
    ------
    ConfigError
        If it cannot be written, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "cells").is_dir():
            RunDirectory.check(path)
        self.path = path
        for name in ("cells", "figures"):
            (path / name).mkdir(exist_ok=True)

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """What a cell has found, None if it has not been computed.

        Raises
        ------
        ConfigError
            If it was computed with other settings.
        """
        path = self._path(cell)
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        if found["settings"] != fingerprint(cell):
            raise ConfigError(
                f"out is {str(self.path)!r}: {path.name} was computed with other settings, "
                f"choose a new folder"
            )
        return found

    def write(self, cell: Cell, found: dict[str, Any]) -> None:
        """Keep what a cell has found, whole or not at all."""
        write_whole(self._path(cell), json.dumps(rounded(found)) + "\n")

    def _path(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.key}.json"


def write_whole(path: Path, text: str) -> None:
    """Write a file in one go: it is either there or not."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def compute(
    cells: Sequence[Cell], results: Results, pool: Pool, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """What all cells have found; those that are not there yet are computed.

    Parameters
    ----------
    cells : sequence of Cell
    results : Results
    pool : callable
        Computes cells, in any order: yields each with what it found, or its failure.
    say : callable
        Told about the progress.

    Raises
    ------
    CellsFailedError
        If some failed, after all others are done; the next call tries these again.
    """
    found = {cell.key: results.read(cell) for cell in cells}
    missing = [cell for cell in cells if found[cell.key] is None]
    failures: list[str] = []
    say(f"{len(cells) - len(missing)} of {len(cells)} cells are there")
    begin = time.monotonic()
    for done, (cell, outcome) in enumerate(pool(missing), start=1):
        if isinstance(outcome, Exception):
            failures.append(f"{cell.key}: {_first_line(outcome)}")
            continue
        results.write(cell, outcome)
        found[cell.key] = results.read(cell)
        left = (time.monotonic() - begin) / done * (len(missing) - done)
        there = len(cells) - len(missing) + done
        say(f"{there}/{len(cells)} cells, {_clock(left)} left; done: {cell.key}")
    if failures:
        raise CellsFailedError(
            f"{len(failures)} of {len(cells)} cells failed, the same command tries them again "
            f"(the first: {failures[0]})"
        )
    return [value for value in found.values() if value is not None]


def in_process(cells: Sequence[Cell]) -> Iterator[Outcome]:
    """One cell after another, here."""
    for cell in cells:
        try:
            yield cell, run_cell(cell)
        except Exception as error:
            yield cell, error


def through_ray(address: str | None) -> Pool:
    """Cells as Ray tasks, one core each.

    Parameters
    ----------
    address : str, optional
        Of a cluster, such as ``10.0.0.1:6379`` or ``ray://10.0.0.1:10001``; default: the variable
        ``RAY_ADDRESS``, or else the cores of this machine. A cluster gets this code with the
        tasks; its machines need the packages that the code imports.
    """

    def pool(cells: Sequence[Cell]) -> Iterator[Outcome]:
        if not cells:
            return
        import ray

        _connect(address or os.environ.get("RAY_ADDRESS") or LOCAL)
        try:
            task = ray.remote(num_cpus=1)(run_cell)
            waiting = {task.remote(cell): cell for cell in cells}
            while waiting:
                ready, _ = ray.wait(list(waiting), num_returns=1)
                for reference in ready:
                    cell = waiting.pop(reference)
                    try:
                        yield cell, ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        yield cell, Exception(_first_line(error.cause))
                    except ray.exceptions.RayError as error:
                        yield cell, error
        finally:
            ray.shutdown()

    return pool


def _connect(address: str) -> None:
    import ray

    # Cells use no accelerator; Ray warns of what it may do with them unless told.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == LOCAL:
            cores = len(os.sched_getaffinity(0))
            ray.init(LOCAL, num_cpus=cores, include_dashboard=False, **quiet)
        else:
            _knock(address)
            here = Path(__file__).parents[2]
            modules = [str(here / package) for package in PACKAGES]
            ray.init(address, runtime_env={"py_modules": modules}, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"address is {address!r}: must be that of a Ray cluster ({_first_line(error)})"
        ) from error


def _knock(address: str) -> None:
    """Raise ``OSError`` if nobody is there: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():  # else a name that only Ray understands, such as auto
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()


def rounded(value: Any) -> Any:
    """Six digits are plenty; what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if value - value == 0 else None
    return value


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
