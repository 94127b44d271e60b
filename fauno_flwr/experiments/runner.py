"""Cells in parallel through Ray, one file each; existing cells are not computed again."""

import importlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.experiments.cells import fingerprint, run_cell
from fauno_flwr.experiments.design import Cell, Experiment
from fauno_flwr.experiments.design import cells as cells_of
from fauno_flwr.results.directory import RunDirectory, write_atomically
from sim_env.plugins import is_import_path

Outcome = tuple[Cell, dict[str, Any] | Exception]
Pool = Callable[[Sequence[Cell]], Iterator[Outcome]]
PACKAGES = ("fauno_flwr", "sim_env", "strategies")
LOCAL = "local"
CONNECT_TIMEOUT = 10.0  # seconds


class CellsFailedError(RuntimeError):
    """Some cells failed; the text is one sentence."""


class Results:
    """The folder of an experiment: new, or with the cells computed so far.

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
        """Return the result of a cell, None if it has not been computed.

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
        """Write the result of a cell atomically."""
        write_atomically(self._path(cell), json.dumps(rounded(found)) + "\n")

    def _path(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.key}.json"


def stored(path: Path, experiment: Experiment, quick: bool) -> list[dict[str, Any]]:
    """Read all cells in a folder, whatever the settings they were computed with.

    Parameters
    ----------
    path : Path
        Has a folder ``cells``.
    experiment : Experiment
    quick : bool

    Returns
    -------
    list of dict
        In the order of :func:`fauno_flwr.experiments.design.cells`.

    Raises
    ------
    ConfigError
        If there are no cells, or if some are missing for the methods and seeds of the others.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in (path / "cells").glob("*.json"):
        result = json.loads(file.read_text())
        found[result["key"]] = result
    if not found:
        raise ConfigError(f"out is {str(path)!r}: holds no cells")
    computed = {result["method"] for result in found.values()}
    methods = [name for name in experiment.methods if name in computed]
    seeds = max(result["seed"] or 0 for result in found.values())
    keys = [cell.key for cell in cells_of(experiment, quick, seeds, methods)]
    missing = [key for key in keys if key not in found]
    if missing:
        raise ConfigError(
            f"out is {str(path)!r}: {len(missing)} of {len(keys)} cells are missing, such as "
            f"{missing[0]}"
        )
    return [found[key] for key in keys]


def compute(
    cells: Sequence[Cell], results: Results, pool: Pool, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return the results of all cells, computing those that are missing.

    Parameters
    ----------
    cells : sequence of Cell
    results : Results
    pool : callable
        Computes cells, in any order: yields each with its result, or its failure.
    report : callable
        Called with a line about the progress.

    Raises
    ------
    CellsFailedError
        If some failed, after all others are done; the next call tries these again.
    """
    found = {cell.key: results.read(cell) for cell in cells}
    missing = [cell for cell in cells if found[cell.key] is None]
    failed: list[str] = []
    report(f"{len(cells) - len(missing)} of {len(cells)} cells are there")
    begin = time.monotonic()
    for done, (cell, outcome) in enumerate(pool(missing), start=1):
        if isinstance(outcome, Exception):
            failed.append(f"{cell.key}: {_first_line(outcome)}")
            continue
        results.write(cell, outcome)
        found[cell.key] = results.read(cell)
        left = (time.monotonic() - begin) / done * (len(missing) - done)
        complete = len(cells) - len(missing) + done
        report(f"{complete}/{len(cells)} cells, {_clock(left)} left; done: {cell.key}")
    if failed:
        raise CellsFailedError(
            f"{len(failed)} of {len(cells)} cells failed, the same command tries them again "
            f"(the first: {failed[0]})"
        )
    return [value for value in found.values() if value is not None]


def in_process(cells: Sequence[Cell]) -> Iterator[Outcome]:
    """Compute one cell after another in this process."""
    for cell in cells:
        try:
            yield cell, run_cell(cell)
        except Exception as error:
            yield cell, error


def through_ray(address: str | None) -> Pool:
    """Make a pool that computes cells as Ray tasks, one core each.

    Parameters
    ----------
    address : str, optional
        Of a cluster, such as ``10.0.0.1:6379`` or ``ray://10.0.0.1:10001``; default: the variable
        ``RAY_ADDRESS``, or else the cores of this machine. This code, and modules of heuristics
        given by import path, travel to the cluster with the tasks; its machines need the packages
        that they import.
    """

    def pool(cells: Sequence[Cell]) -> Iterator[Outcome]:
        if not cells:
            return
        import ray

        handler = signal.getsignal(signal.SIGTERM)
        try:
            _connect(address or os.environ.get("RAY_ADDRESS") or LOCAL, _modules(cells))
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray has replaced it
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


def _modules(cells: Sequence[Cell]) -> list[Any]:
    """Return this code and the modules of heuristics, as ``py_modules`` of a Ray cluster."""
    here = Path(__file__).parents[2]
    names = {name for cell in cells for name in cell.policies if is_import_path(name)}
    roots = sorted({name.partition(":")[0].partition(".")[0] for name in names})
    own = [importlib.import_module(root) for root in roots]
    return [*(str(here / package) for package in PACKAGES), *own]


def _connect(address: str, modules: list[Any]) -> None:
    import ray

    # Without this Ray warns about accelerators, which cells do not use.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == LOCAL:
            cores = len(os.sched_getaffinity(0))
            ray.init(LOCAL, num_cpus=cores, include_dashboard=False, **quiet)
        else:
            _require_listener(address)
            ray.init(address, runtime_env={"py_modules": modules}, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"address is {address!r}: must be that of a Ray cluster ({_first_line(error)})"
        ) from error


def _require_listener(address: str) -> None:
    """Raise ``OSError`` if nothing listens there: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():  # else a name that only Ray understands, such as auto
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()


def rounded(value: Any) -> Any:
    """Round numbers to six digits; one that is not finite becomes None."""
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
