"""Arrivals: the table of jobs that tasks are drawn from, arrival rates and deadlines."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from sim_env import plugins
from sim_env.errors import (
    Use,
    require_effect,
    require_kind,
    require_number,
    require_path,
    shown,
    without_kind,
)
from sim_env.network.graph import Topology
from sim_env.network.patterns import by_node, require_numbers
from sim_env.network.plain import require_node
from sim_env.tables import read_table
from sim_env.workload.files import ReadReport, read_jobs
from sim_env.workload.jobs import JobTable, TaskType, alibaba_jobs, light_jobs
from sim_env.workload.schedule import Schedule, multipliers

__all__ = [
    "JOB_TABLES",
    "JobTable",
    "ReadReport",
    "Schedule",
    "TaskType",
    "WorkloadSpec",
    "build_jobs",
    "multipliers",
    "rates_per_tick",
    "read_jobs",
    "source_rates",
]


LARGEST_RATE = 1e5  # tasks per second and source: more is a typing error, and fills the memory
LONGEST_DEADLINE = 1e7  # seconds, four months; 0 means none
GROUP = "fauno.workloads"  # of entry points


@dataclass
class WorkloadSpec:
    """Settings of the arrivals at the sources.

    Parameters
    ----------
    jobs : str
        ``alibaba``: heavy-tailed, fitted to the quantiles of the Alibaba trace.
        ``light``: 2, 4 or 8 x 1e7 instructions and 10, 30 or 60 MB, each with probability
        0.4, 0.4, 0.2. ``types``: those of `types`. ``file``: those of the file `path`. The output
        of a job is as large as its input, unless its type says otherwise. Or an import path such
        as ``my_module:jobs``, or an entry point of ``fauno.workloads``: a function of this
        WorkloadSpec that returns a :class:`JobTable`.
    path : str
        Path of a ``file``, see :func:`sim_env.workload.files.read_jobs`; absolute if several
        processes read it.
    types : list of TaskType
        Task types of ``types``.
    work_scale : float
        The instructions of every job are multiplied by this. (The paper's Alibaba jobs have a
        tenth of the trace's; ``alibaba`` is fitted to those.)
    rate : float
        Tasks per second and source (true Poisson arrivals). At most 100,000, also with the
        highest multiplier of the schedule; the same holds for `source_rates`.
    source_rates : dict of str to float
        Other rates for some sources: a key is a name, a role or a pattern of them (``rpi_1*``),
        and the last key that matches a source applies.
    sources : str
        Path of a CSV file with the columns ``node`` and ``rate`` (tasks per second; `rate` where it
        is empty or there is no such column). Tasks are born at these nodes and no others, whatever
        the network states. Excludes `source_rates`; absolute if several processes read it.
    schedule : Schedule
        Change of all rates with time.
    deadline_min, deadline_max : float
        The deadline is drawn uniformly from [min, max) seconds after birth, at most 1e7; both 0:
        none.
    deadline_factors : dict of str to float
        Factor on the time to the deadline of the tasks that are born at some sources; keys as of
        `source_rates`.
    """

    uses: ClassVar[dict[str, Use]] = {
        "deadline_factors": Use("deadline_max", lambda longest: longest > 0),
        "path": without_kind("jobs", "alibaba", "light", "types"),
        "types": without_kind("jobs", "alibaba", "light", "file"),
    }

    jobs: str = "alibaba"
    path: str = ""
    types: list[TaskType] = field(default_factory=list)
    work_scale: float = 1.0
    rate: float = 2.0
    source_rates: dict[str, float] = field(default_factory=dict)
    sources: str = ""
    schedule: Schedule = field(default_factory=Schedule)
    deadline_min: float = 30.0
    deadline_max: float = 60.0
    deadline_factors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plugins.require_name("workload.jobs", self.jobs, JOB_TABLES, GROUP)
        if self.path or self.jobs == "file":
            require_path("workload.path", self.path)
        require_kind("workload.types", self.types, Sequence, "a list of task types")
        if self.jobs == "types" and not self.types:
            raise ValueError(
                "workload.types is []: must have at least one type when workload.jobs is 'types'"
            )
        if self.sources and self.source_rates:
            raise ValueError(
                f"workload.source_rates is {shown(dict(self.source_rates))}: must be left out with "
                f"workload.sources, whose file holds the rates"
            )
        if self.sources:
            require_path("workload.sources", self.sources)
        require_number("workload.work_scale", self.work_scale, above=0)
        require_kind("workload.schedule", self.schedule, Schedule, "a Schedule")
        require_number("workload.rate", self.rate, above=0, at_most=LARGEST_RATE)
        require_numbers(
            "workload.source_rates", self.source_rates, at_least=0, at_most=LARGEST_RATE
        )
        require_number(
            "largest rate of workload times the highest multiplier of its schedule",
            max(self.rate, *self.source_rates.values(), 0.0) * self.schedule.highest,
            at_most=LARGEST_RATE,
        )
        require_number(
            "workload.deadline_min", self.deadline_min, at_least=0, at_most=LONGEST_DEADLINE
        )
        require_number(
            "workload.deadline_max",
            self.deadline_max,
            at_least=self.deadline_min,
            at_most=LONGEST_DEADLINE,
        )
        require_numbers("workload.deadline_factors", self.deadline_factors, above=0)
        require_number(
            "workload.deadline_max times the largest of workload.deadline_factors",
            self.deadline_max * max([1.0, *self.deadline_factors.values()]),
            at_most=LONGEST_DEADLINE,
        )
        require_effect("workload.", self, self.uses)


def build_jobs(spec: WorkloadSpec) -> JobTable:
    """Build the table of jobs that `spec` describes.

    Warns
    -----
    UserWarning
        About the bad rows of a file.

    Raises
    ------
    ValueError
        For a file that cannot be read, holds no job or ends in the middle of a row, or a function
        that cannot be imported or does not return a :class:`JobTable`.
    """
    table = JOB_TABLES[spec.jobs](spec) if spec.jobs in JOB_TABLES else _own_jobs(spec)
    return table if spec.work_scale == 1 else table.scaled(spec.work_scale)


def source_rates(spec: WorkloadSpec, topology: Topology) -> np.ndarray:
    """Compute the arrival rate of each node, before the schedule.

    Returns
    -------
    array of float, shape (N,)
        Tasks per second; 0 at nodes that are not sources.

    Raises
    ------
    ValueError
        For a key of ``spec.source_rates`` that matches no source, a file ``spec.sources`` that is
        wrong, or if no source has a rate above 0.
    """
    if spec.sources:
        return _named_rates(spec, topology)
    rates = by_node(
        "workload.source_rates",
        spec.source_rates,
        topology,
        default=np.where(topology.is_source, spec.rate, 0.0),
        among=topology.is_source,
        what="a source",
    )
    if not rates.any():
        raise ValueError("workload.source_rates are all 0: must have a source with a rate above 0")
    return rates


def _named_rates(spec: WorkloadSpec, topology: Topology) -> np.ndarray:
    """Read the rates of the file ``spec.sources``; shape (N,)."""
    table = read_table("sources file", spec.sources)
    table.require_columns(["node"], ["rate"])
    index = {name: node for node, name in enumerate(topology.names)}
    rates, named = np.zeros(topology.num_nodes), set()
    rows = list(table.rows())
    for row in rows:
        name = row.text("node")
        require_node(f"{row.where}: column node", name, index)
        if name in named:
            raise ValueError(f"{row.where}: column node is {name!r} again: must be there once")
        named.add(name)
        stated = "rate" in row.cells
        most = LARGEST_RATE / spec.schedule.highest
        rates[index[name]] = row.number("rate", at_least=0, at_most=most) if stated else spec.rate
    if not rates.any():
        raise ValueError(f"{table.name}: must have a node with a rate above 0")
    if all("rate" in row.cells for row in rows) and spec.rate != WorkloadSpec.rate:
        raise ValueError(
            f"workload.rate is {spec.rate!r}: must be {WorkloadSpec.rate!r}, the default, with "
            f"{table.name}, which states the rate of every source (work_scale and schedule change "
            f"the load of all)"
        )
    return rates


def rates_per_tick(spec: WorkloadSpec, ticks: int, tick_seconds: float) -> np.ndarray:
    """Compute the expected arrivals in each tick, at a source of rate ``spec.rate``.

    Parameters
    ----------
    spec : WorkloadSpec
    ticks : int
        Number of ticks, from 0 on.
    tick_seconds : float
        Seconds of a tick.

    Returns
    -------
    array of float, shape (ticks,)
        Tasks. A source n with a rate of its own has ``source_rates(spec, topology)[n] /
        spec.rate`` times as many.
    """
    return spec.rate * tick_seconds * multipliers(spec.schedule, ticks, tick_seconds)


def _own_jobs(spec: WorkloadSpec) -> JobTable:
    """Build the table of a function that is not built in."""
    jobs = plugins.find("workload.jobs", spec.jobs, {}, GROUP)
    table = plugins.call("workload.jobs", spec.jobs, jobs, spec)
    if not isinstance(table, JobTable):
        raise ValueError(
            f"workload.jobs is {spec.jobs!r}: must return a JobTable, not {shown(table)}"
        )
    return table


def _file_jobs(spec: WorkloadSpec) -> JobTable:
    """Read the jobs of a file, which must be complete."""
    table, report = read_jobs(spec.path)
    if report.cut:
        raise ValueError(f"{report}: must not end in the middle of a row")
    if report.bad:
        warnings.warn(str(report), stacklevel=2)
    return table


JOB_TABLES: dict[str, Callable[[WorkloadSpec], JobTable]] = {
    "alibaba": lambda spec: alibaba_jobs(),
    "light": lambda spec: light_jobs(),
    "types": lambda spec: JobTable.from_types(spec.types),
    "file": _file_jobs,
}
