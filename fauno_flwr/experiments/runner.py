"""Cells in parallel through Ray, one file each; existing cells are not computed again."""

import contextlib
import importlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.cosim.links import compile_links
from fauno_flwr.deployment.processes import no_survivors
from fauno_flwr.experiments.cells import fingerprint, run_cell
from fauno_flwr.experiments.design import HEURISTICS, Cell, Experiment
from fauno_flwr.experiments.design import cells as cells_of
from fauno_flwr.experiments.estimate import TimeEstimate
from fauno_flwr.learning.kernels import compile_kernels
from fauno_flwr.results.directory import RunDirectory, write_atomically
from sim_env.plugins import is_import_path

Outcome = tuple[Cell, dict[str, Any] | Exception]
Pool = Callable[[Sequence[Cell]], Generator[Outcome, None, None]]
PACKAGES = ("fauno_flwr", "sim_env", "strategies")
LOCAL = "local"
CONNECT_TIMEOUT = 10.0  # seconds
STEPS = (3600, 300), (600, 60), (60, 10)  # durations from the first on are multiples of the second


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
            If it was computed with other settings, or its file is damaged.
        """
        path = self._path(cell)
        if not path.exists():
            return None
        found = _load(path)
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
        If there are no cells, if some are missing for the methods, seeds and further heuristics
        of the others, or if a file is damaged.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in (path / "cells").glob("*.json"):
        result = _load(file)
        found[result["key"]] = result
    if not found:
        raise ConfigError(f"out is {str(path)!r}: holds no cells")
    computed = {result["method"] for result in found.values()}
    methods = [name for name in experiment.methods if name in computed]
    seeds = max(result["seed"] or 0 for result in found.values())
    keys = [cell.key for cell in cells_of(experiment, quick, seeds, methods)]
    # Cells from before a further heuristic was added to the experiment are complete without it.
    keys = [key for key in keys if not _further(key) or _further(key) in map(_further, found)]
    missing = [key for key in keys if key not in found]
    if missing:
        raise ConfigError(
            f"out is {str(path)!r}: {len(missing)} of {len(keys)} cells are missing, such as "
            f"{missing[0]}"
        )
    return [found[key] for key in keys]


def _load(path: Path) -> dict[str, Any]:
    """Return the result in a file; raise ``ConfigError`` if it holds none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        if {"key", "method", "seed", "settings", "worlds", "seconds"} <= set(found):
            return found
    except (ValueError, TypeError):
        pass
    raise ConfigError(f"cell is {str(path)!r}: holds no result; remove it and compute it again")


def _further(key: str) -> str:
    """Return the end of the name of a cell of a further heuristic; empty for any other cell."""
    start = key.find(f".{HEURISTICS}-")
    return key[start:] if start >= 0 else ""


def compute(
    cells: Sequence[Cell],
    results: Results,
    pool: Pool,
    report: Callable[[str], None],
    workers: Callable[[], int] = lambda: 1,
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
    workers : callable, optional
        Returns how many cells the pool computes at once, 0 if it is not known yet; default: one.

    Raises
    ------
    CellsFailedError
        If some failed, after all others are done; the next call tries these again.
    """
    found = {cell.key: results.read(cell) for cell in cells}
    missing = {cell.key: cell for cell in cells if found[cell.key] is None}
    failed: list[str] = []
    kept = len(cells) - len(missing)
    estimate = TimeEstimate(cells)
    for cell in cells:
        if result := found[cell.key]:
            estimate.add(cell, result["seconds"]["wall"])
    report(
        f"{len(cells)} cells: {kept} kept, {len(missing)} to compute"
        + _time_left(estimate, missing.values(), workers())
    )
    with contextlib.closing(pool(list(missing.values()))) as outcomes:
        for done, (cell, outcome) in enumerate(outcomes, start=1):
            del missing[cell.key]
            if isinstance(outcome, Exception):
                failed.append(f"{cell.key}: {_first_line(outcome)}")
                continue
            results.write(cell, outcome)
            found[cell.key] = results.read(cell)
            estimate.add(cell, outcome["seconds"]["wall"])
            left = _time_left(estimate, missing.values(), workers())
            report(f"{kept + done}/{len(cells)} cells{left}; done: {cell.key}")
    if failed:
        raise CellsFailedError(
            f"{len(failed)} of {len(cells)} cells failed, the same command tries them again "
            f"(the first: {failed[0]})"
        )
    return [value for value in found.values() if value is not None]


def in_process(cells: Sequence[Cell]) -> Generator[Outcome, None, None]:
    """Compute one cell after another in this process."""
    for cell in cells:
        try:
            yield cell, run_cell(cell)
        except Exception as error:
            yield cell, error


class RayPool:
    """Pool that computes cells as Ray tasks, one core each.

    Parameters
    ----------
    address : str, optional
        Of a cluster, such as ``10.0.0.1:6379`` or ``ray://10.0.0.1:10001``; default: the variable
        ``RAY_ADDRESS``, or else the cores of this machine. This code, and modules of heuristics
        given by import path, travel to the cluster with the tasks; its machines need the packages
        that they import.
    report : callable, optional
        Called with a line about what is being started.

    Attributes
    ----------
    workers : int
        Cores; 0 for a cluster that is not connected yet.
    """

    def __init__(
        self, address: str | None, report: Callable[[str], None] = lambda line: None
    ) -> None:
        self.address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        self.workers = len(os.sched_getaffinity(0)) if self.address == LOCAL else 0
        self._report = report

    def __call__(self, cells: Sequence[Cell]) -> Generator[Outcome, None, None]:
        """Compute cells; yield each as it is done."""
        if not cells:
            return
        if self.address == LOCAL:
            # Here, or each worker would compile the same.
            config = cells[-1].training or next(iter(cells[-1].worlds.values()))
            compile_kernels(config, config.build_scenario())
            compile_links()
            self._report(f"starting Ray on {self.workers} cores")
        else:
            self._report(f"connecting to Ray on {self.address}")
        import ray

        handler = signal.getsignal(signal.SIGTERM)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(no_survivors()) if self.address == LOCAL else None
            stack.callback(ray.shutdown)
            _connect(self.address, folder, _modules(cells))
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray has replaced it
            resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
            self.workers = int(resources.get("CPU", 1))
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


def _modules(cells: Sequence[Cell]) -> list[Any]:
    """Return this code and the modules of heuristics, as ``py_modules`` of a Ray cluster."""
    here = Path(__file__).parents[2]
    names = {name for cell in cells for name in cell.policies if is_import_path(name)}
    roots = sorted({name.partition(":")[0].partition(".")[0] for name in names})
    own = [importlib.import_module(root) for root in roots]
    return [*(str(here / package) for package in PACKAGES), *own]


def _connect(address: str, folder: Path | None, modules: list[Any]) -> None:
    import ray

    # Without this Ray warns about accelerators, which cells do not use.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == LOCAL:
            cores = len(os.sched_getaffinity(0))
            ray.init(
                LOCAL,
                num_cpus=cores,
                include_dashboard=False,
                _temp_dir=None if folder is None else str(folder),
                **quiet,
            )
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


def _time_left(estimate: TimeEstimate, missing: Iterable[Cell], workers: int) -> str:
    """Return the estimate as a part of a sentence; empty if nothing is left, or it is unknown."""
    low, high = (_clock(seconds) for seconds in estimate.left(missing, workers))
    if not workers or high == _clock(0):
        return ""
    return f", {low} left" if low == high else f", {low} to {high} left"


def _clock(seconds: float) -> str:
    """Return a duration as h:mm or m:ss, to two significant figures or so."""
    step = next((step for limit, step in STEPS if seconds >= limit), 1)
    minutes, rest = divmod(round(seconds / step) * step, 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes}:{rest:02d}"
