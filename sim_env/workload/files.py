"""Job tables from files: CSV with named columns, or Alibaba's ``batch_task.csv``.

A wrong cell of a CSV file is an error. Bad rows of the trace are skipped and counted; the first few
are reported with line and reason.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sim_env.errors import require_path, shown
from sim_env.tables import read_table
from sim_env.workload.jobs import (
    LARGEST_JOB,
    LARGEST_WEIGHTED_TABLE,
    MEGABYTE,
    JobTable,
    rows_by_weight,
)

INSTRUCTIONS, INPUT, OUTPUT, SIZE, WEIGHT = COLUMNS = (
    "instructions",
    "input_mb",
    "output_mb",
    "size_mb",
    "weight",
)
TRACE_COLUMNS = 9  # of batch_task.csv in cluster-trace-v2018, which has no header
DONE = "Terminated"
INSTRUCTIONS_PER_SECOND = 2.4e9 / 1000  # of a core, as in the original simulator
MEGABYTES_PER_MEMORY = 100.0
MEMORY_MAX = 100.0  # plan_mem is normalised
NAMED = 5


@dataclass
class ReadReport:
    """Counts of the good, skipped and bad rows of a file.

    Attributes
    ----------
    path : str
        The file.
    rows : int
        Rows read, without the header and blank lines.
    skipped : int
        Good rows that are not wanted: tasks that did not end well.
    bad : int
        Rows that could not be used.
    reasons : list of str
        Line and reason of the first five of them.
    cut : bool
        Whether the file ends in the middle of a row.
    """

    path: str
    rows: int = 0
    skipped: int = 0
    bad: int = 0
    reasons: list[str] = field(default_factory=list)
    cut: bool = False

    def add_bad(self, line: int, reason: str) -> None:
        """Count a bad row, and keep its reason if it is one of the first."""
        self.bad += 1
        if len(self.reasons) < NAMED:
            self.reasons.append(f"line {line}: {reason}")

    def __str__(self) -> str:
        more = f", and {self.bad - len(self.reasons)} more" if self.bad > len(self.reasons) else ""
        bad = f" ({'; '.join(self.reasons)}{more})" if self.bad else ""
        return (
            f"jobs file {self.path!r}: {self.bad} of {self.rows} rows are bad{bad}, "
            f"{self.skipped} are of tasks that did not end well"
        )


def read_jobs(path: str | Path) -> tuple[JobTable, ReadReport]:
    """Read a table of jobs; the first line determines the kind of file.

    Parameters
    ----------
    path : str or Path
        Either a CSV file with one job per row and these columns, in any order:

        - ``instructions``
        - ``input_mb``: megabytes that a task sends; or ``size_mb``, for input and output.
        - ``output_mb`` (optional): megabytes of the result; ``input_mb`` where it is empty.
        - ``weight`` (optional): a task is this job with probability weight / sum of the weights; 1
          where it is empty.

        Or ``batch_task.csv`` of Alibaba's cluster-trace-v2018 (nine columns, no header), of which
        the tasks with the status ``Terminated`` make one job for each job name, as in
        the original simulator: ``max(plan_cpu) / 100 * sum(end - start) / 1000 * 2.4e9``
        instructions and ``max(plan_mem) * 100`` megabytes, the output as large as the input.

    Returns
    -------
    table : JobTable
    report : ReadReport
        What was left out of the trace. A cut last row is a bad row, and sets ``cut``.

    Raises
    ------
    ValueError
        If the file cannot be read, is of neither kind or holds no job; for CSV also a column that
        is unknown or missing, and the first wrong cell, with line, column and value.
    """
    file_path = require_path("path of the jobs", path)
    report = ReadReport(str(path))
    try:
        with open(file_path, encoding="utf-8", errors="replace") as file:
            if len(_columns(file.readline())) != TRACE_COLUMNS:
                return _read_table(path, report), report
            file.seek(0)
            work, size = _read_trace(_rows(file, 1, report), report)
    except OSError as error:
        raise ValueError(
            f"jobs file {report.path!r} cannot be read ({error.strerror}): must be a CSV file"
        ) from error
    if not len(work):
        raise ValueError(f"{report}: must hold at least one job")
    return JobTable(work, size * MEGABYTE, size * MEGABYTE), report


def _read_table(path: str | Path, report: ReadReport) -> JobTable:
    """Read a CSV file with named columns."""
    table = read_table("jobs file", path)
    if INSTRUCTIONS not in table.columns and not set(table.columns) & set(COLUMNS):
        raise ValueError(
            f"{table.name} begins with {shown(','.join(table.columns))}: must be a CSV file with "
            f"the columns {', '.join(COLUMNS)}, or batch_task.csv of cluster-trace-v2018 with "
            f"{TRACE_COLUMNS} columns and no header"
        )
    both = SIZE in table.columns
    required = [INSTRUCTIONS, SIZE if both else INPUT]
    table.require_columns(required, [WEIGHT] if both else [OUTPUT, WEIGHT])
    rows = list(table.rows())
    report.rows = len(rows)
    if not rows:
        raise ValueError(f"{table.name} has no row below its header: must hold at least one job")

    work = [row.number(INSTRUCTIONS, at_least=0, at_most=LARGEST_JOB) for row in rows]
    size = {"at_least": 0.0, "at_most": LARGEST_JOB / MEGABYTE}
    sent = [row.number(required[1], **size) for row in rows]
    back = [row.number(OUTPUT if OUTPUT in row.cells else required[1], **size) for row in rows]
    weight = np.array(
        [
            row.number(WEIGHT, above=0, at_most=LARGEST_JOB) if WEIGHT in row.cells else 1.0
            for row in rows
        ]
    )
    times = rows_by_weight(weight)
    for index in np.flatnonzero(times == 0)[:1]:
        raise ValueError(
            f"{rows[index].where}: column {WEIGHT} is {float(weight[index])!r}: must be at least "
            f"{weight.sum() / LARGEST_WEIGHTED_TABLE:g}, a millionth of all weights"
        )
    return JobTable(
        np.repeat(work, times), np.repeat(sent, times) * MEGABYTE, np.repeat(back, times) * MEGABYTE
    )


def _columns(line: str) -> list[str]:
    return [column.strip() for column in line.split(",")]


def _rows(
    lines: Iterable[str], first: int, report: ReadReport
) -> Iterator[tuple[int, list[str], bool]]:
    """Yield line number, columns and whether the line is complete, for each row."""
    for number, line in enumerate(lines, first):
        if line.strip():
            report.rows += 1
            yield number, _columns(line), line.endswith("\n")


def _read_trace(
    rows: Iterable[tuple[int, list[str], bool]], report: ReadReport
) -> tuple[np.ndarray, np.ndarray]:
    """Read instructions and megabytes of each job, in order of first appearance."""
    jobs: dict[str, tuple[float, float, float]] = {}
    for line, columns, whole in rows:
        try:
            _require_columns(columns, TRACE_COLUMNS)
            _, _, job, _, status, start, end, cpu, memory = columns
            if status != DONE:
                report.skipped += 1
                continue
            task = _seconds(start, end), _number("plan_cpu", cpu), _memory(memory)
        except ValueError as reason:
            report.add_bad(line, str(reason))
            report.cut |= not whole
            continue
        seconds, most_cpu, most_memory = jobs.get(job, (0.0, 0.0, 0.0))
        jobs[job] = seconds + task[0], max(most_cpu, task[1]), max(most_memory, task[2])
    table = np.array([*jobs.values()]).reshape(-1, 3)
    work = table[:, 1] / 100 * table[:, 0] * INSTRUCTIONS_PER_SECOND
    return work, table[:, 2] * MEGABYTES_PER_MEMORY


def _require_columns(columns: list[str], wanted: int) -> None:
    if len(columns) != wanted:
        raise ValueError(f"{len(columns)} columns instead of {wanted}")


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} is {shown(text)}, not a number") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is {shown(text)[1:-1]}, not a finite number at least 0")
    return value


def _memory(text: str) -> float:
    value = _number("plan_mem", text)
    if value > MEMORY_MAX:
        raise ValueError(f"plan_mem is {text}, not between 0 and {MEMORY_MAX:g}")
    return value


def _seconds(start: str, end: str) -> float:
    """Compute the duration of a task; time 0 stands for a time outside the trace."""
    first, last = _number("start_time", start), _number("end_time", end)
    if first == 0 or last < first:
        raise ValueError(f"start_time is {start} and end_time {end}, not one after the other")
    return last - first
