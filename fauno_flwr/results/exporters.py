"""The metrics of a run for other tools: CSV, Parquet, TensorBoard, Weights & Biases."""

import csv
import importlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.results.directory import read_lines
from fauno_flwr.results.state import RUNNING, state_of
from fauno_flwr.results.status import read_events

METRICS = "metrics.jsonl"
VERSION, WALL = "version", "time/wall"
POLL = 1.0  # seconds until a run that goes on is asked for new rows
Row = Mapping[str, Any]


def read_rows(run: Path, *, follow: bool = False) -> Iterator[Row]:
    """Yield the rows of ``metrics.jsonl``; with `follow`, until the run has ended.

    Raises
    ------
    ConfigError
        If the folder holds no run.
    """
    events = read_events(run)
    count = 0
    while True:
        going_on = follow and state_of(run, events).name == RUNNING
        rows = read_lines(run / METRICS)
        yield from rows[count:]
        count = max(count, len(rows))
        if not going_on:
            return
        time.sleep(POLL)
        events = read_events(run)


def to_table(rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    """Return the columns of rows, in the order of their first appearance, and their cells."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, [[row.get(name) for name in columns] for row in rows]


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows as CSV; what a row does not have is an empty cell."""
    columns, cells = to_table(rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(cells)


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write rows as Parquet; what a row does not have is null."""
    pyarrow, parquet = _need("pyarrow", "parquet"), _need("pyarrow.parquet", "parquet")
    columns, cells = to_table(rows)
    by_column = zip(*cells, strict=True)
    arrays = {name: list(values) for name, values in zip(columns, by_column, strict=True)}
    parquet.write_table(pyarrow.table(arrays), path)


def write_tensorboard(rows: Iterator[Row], path: Path) -> None:
    """Write rows as an event file of TensorBoard, a scalar per metric and version."""
    writer = _need("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(path))
    began: float | None = None
    for row in rows:
        # The times of the versions, so that the axes "relative" and "wall" are the run's own.
        began = time.time() - row.get(WALL, 0.0) if began is None else began
        for name, value in _scalars(row):
            writer.add_scalar(name, value, row[VERSION], walltime=began + row.get(WALL, 0.0))
        writer.flush()
    writer.close()


def write_wandb(rows: Iterator[Row], path: Path, name: str, settings: Mapping[str, Any]) -> None:
    """Write rows as an offline run of Weights & Biases, which ``wandb sync`` sends.

    Parameters
    ----------
    rows : iterator of dict
    path : Path
        Folder for its files.
    name : str
        Of the run.
    settings : mapping
        Kept with it.
    """
    wandb = _need("wandb", "wandb")
    path.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project="fauno-flwr", name=name, dir=str(path), mode="offline", config=dict(settings)
    )
    for row in rows:
        run.log(dict(_scalars(row)), step=row[VERSION])
    run.finish()


def _scalars(row: Row) -> Iterator[tuple[str, float]]:
    """Yield the metrics of a row that are numbers."""
    for name, value in row.items():
        if name != VERSION and isinstance(value, int | float):
            yield name, float(value)


def _need(module: str, extra: str) -> Any:
    """Import an optional library.

    Raises
    ------
    ConfigError
        If it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"format is {extra!r}: needs a library that is missing ({error.name}), "
            f'pip install "fauno-flwr[{extra}]"'
        ) from error
