"""Tables of jobs to draw arrivals from: by types, by measured quantiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from sim_env.errors import require_kind, require_number

MEGABYTE = 8e6  # bits

# Alibaba cluster-trace-v2018 jobs, instructions scaled by 0.1 (facts D2): quantiles of the
# instructions and of the megabytes. Between two knots the logarithm is linear in the quantile;
# above the last one a Pareto tail up to the largest job gives the mean.
KNOTS = (0.0, 0.05, 0.25, 0.50, 0.75, 0.95, 0.99)
ALIBABA_INSTRUCTIONS = (4e4, 2.4e5, 1.2e6, 4.8e6, 2.45e7, 1.44e8, 5.42e8)
ALIBABA_INSTRUCTIONS_MEAN, ALIBABA_INSTRUCTIONS_MAX = 6.16e7, 7.9e10
ALIBABA_MEGABYTES = (2.0, 19.0, 20.0, 39.0, 49.0, 59.0, 82.0)
ALIBABA_MEGABYTES_MEAN, ALIBABA_MEGABYTES_MAX = 37.9, 517.0
ALIBABA_RANK_CORRELATION = 0.456
ALIBABA_JOBS = 16_384
LARGEST_TYPE_TABLE, LARGEST_WEIGHTED_TABLE = 10_000, 1_000_000
MOST_TYPES = 1000
LARGEST_JOB = 1e30  # instructions or bits: sums and products of them stay finite


@dataclass
class TaskType:
    """A kind of task.

    Parameters
    ----------
    instructions : float
        Work of one task.
    megabytes : float
        Size of the input.
    output_megabytes : float, optional
        Size of the output; that of the input by default.
    weight : float
        A task is of this type with probability weight / sum of the weights.
    """

    instructions: float = 4e7
    megabytes: float = 38.0
    output_megabytes: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        require_number("instructions of a task type", self.instructions, at_least=0)
        require_number("megabytes of a task type", self.megabytes, at_least=0)
        if self.output_megabytes is not None:
            require_number("output_megabytes of a task type", self.output_megabytes, at_least=0)
        require_number("weight of a task type", self.weight, above=0, at_most=LARGEST_JOB)


@dataclass(frozen=True)
class JobTable:
    """Jobs that are equally likely to arrive.

    Parameters
    ----------
    instructions : array of float, shape (J,)
    input_bits, output_bits : array of float, shape (J,)
        Sizes of input and output.

    Raises
    ------
    ValueError
        For a table without jobs, or with a number that is negative or above 1e30.
    """

    instructions: np.ndarray
    input_bits: np.ndarray
    output_bits: np.ndarray

    def __post_init__(self) -> None:
        for name in ("instructions", "input_bits", "output_bits"):
            values = np.asarray(getattr(self, name))
            if not np.can_cast(values.dtype, float, "same_kind"):
                raise ValueError(f"job table: {name} is of {values.dtype}: must be numbers")
            object.__setattr__(self, name, values.astype(float))
            if values.ndim != 1 or values.shape != self.instructions.shape or not len(values):
                raise ValueError(
                    f"job table: {name} has the shape {values.shape}: must be one entry for each "
                    f"of the {np.size(self.instructions)} jobs, at least one"
                )
            for job in np.flatnonzero(~((values >= 0) & (values <= LARGEST_JOB)))[:1]:
                require_number(
                    f"job table: {name} of job {job}",
                    float(values[job]),
                    at_least=0,
                    at_most=LARGEST_JOB,
                )

    @classmethod
    def from_types(cls, types: Sequence[TaskType]) -> Self:
        """Build a table with rows of each type in proportion to its weight.

        Parameters
        ----------
        types : sequence of TaskType
            1 to 1,000.

        Returns
        -------
        JobTable
            The smallest table of up to 10,000 rows with exactly these shares; if there is none,
            one of 10,000 rows in which a share is off by at most 1e-4.

        Raises
        ------
        ValueError
            For no types or too many, or a weight so small that its type would have no row.
        """
        require_kind("task types", types, Sequence, "a list of TaskType")
        if not 1 <= len(types) <= MOST_TYPES:
            raise ValueError(
                f"task types are {len(types)}: must be at least one and at most {MOST_TYPES:,} "
                f"(a file may hold more jobs)"
            )
        for number, kind in enumerate(types):
            require_kind(f"task type {number}", kind, TaskType, "a TaskType")
        weights = np.array([kind.weight for kind in types])
        rows = _rows_by_share(weights / weights.sum())
        for index in np.flatnonzero(rows == 0)[:1]:
            raise ValueError(
                f"weight of task type {index} is {float(weights[index])!r}: must be at least "
                f"{weights.sum() / LARGEST_TYPE_TABLE:g}, a ten-thousandth of all weights"
            )
        sent = [kind.megabytes for kind in types]
        back = [
            kind.megabytes if kind.output_megabytes is None else kind.output_megabytes
            for kind in types
        ]
        return cls(
            np.repeat([float(kind.instructions) for kind in types], rows),
            np.repeat(sent, rows) * MEGABYTE,
            np.repeat(back, rows) * MEGABYTE,
        )

    def scaled(self, factor: float) -> "JobTable":
        """Return the same jobs with `factor` times the instructions."""
        return JobTable(self.instructions * factor, self.input_bits, self.output_bits)


def _rows_by_share(share: np.ndarray) -> np.ndarray:
    """Compute the rows of each share: exact in the smallest possible table, else rounded."""
    exact = _exact_rows(share)
    return _nearest_rows(share, LARGEST_TYPE_TABLE) if exact is None else exact


def _exact_rows(share: np.ndarray) -> np.ndarray | None:
    """Compute the rows of each share in the smallest table with exactly these shares, if any."""
    tables = np.arange(1, LARGEST_TYPE_TABLE + 1)[:, None]
    exact = np.all(np.abs(tables * share - np.round(tables * share)) < 1e-9 * tables, axis=1)
    return np.round(share * (1 + np.argmax(exact))).astype(int) if exact.any() else None


def _nearest_rows(share: np.ndarray, table: int) -> np.ndarray:
    """Compute the rows of each share in a table of that many rows."""
    rows = np.floor(share * table).astype(int)
    missing = table - int(rows.sum())
    rows[np.argsort(rows - share * table, kind="stable")[:missing]] += 1
    return rows


def rows_by_weight(weights: np.ndarray) -> np.ndarray:
    """Compute how often each job stands in a table whose rows are equally likely.

    Exact if all weights are equal, are multiples of the smallest one, or make an exact table of
    10,000 rows for at most 1,000 jobs. Else the table has a million rows, a share is off by at most
    1e-6, and a job with less than a millionth of all weights may have none.

    Parameters
    ----------
    weights : array of float, shape (J,)
        Above 0.

    Returns
    -------
    array of int, shape (J,)
    """
    multiples = weights / weights.min()
    whole = np.round(multiples)
    fits = (whole == 1).all() or whole.sum() <= LARGEST_WEIGHTED_TABLE
    if fits and np.allclose(multiples, whole, rtol=1e-12, atol=0):
        return whole.astype(int)
    share = weights / weights.sum()
    if len(weights) <= MOST_TYPES and (rows := _exact_rows(share)) is not None:
        return rows
    return _nearest_rows(share, LARGEST_WEIGHTED_TABLE)


def light_jobs() -> JobTable:
    """Build the feasibility study's mix: mean 4e7 instructions and 28 MB."""
    size = np.array([10.0, 10, 30, 30, 60]) * MEGABYTE
    work = np.array([2.0, 2, 4, 4, 8]) * 1e7
    return JobTable(np.repeat(work, 5), np.tile(size, 5), np.tile(size, 5))


def alibaba_jobs() -> JobTable:
    """Generate jobs with the marginal quantiles and rank correlation of the Alibaba trace."""
    u = (np.arange(ALIBABA_JOBS) + 0.5) / ALIBABA_JOBS
    work = _inverse_cdf(
        u, ALIBABA_INSTRUCTIONS, ALIBABA_INSTRUCTIONS_MEAN, ALIBABA_INSTRUCTIONS_MAX
    )
    size = _inverse_cdf(u, ALIBABA_MEGABYTES, ALIBABA_MEGABYTES_MEAN, ALIBABA_MEGABYTES_MAX)
    # Gaussian copula: Pearson correlation of the normals that gives the rank correlation.
    rho = 2 * np.sin(np.pi * ALIBABA_RANK_CORRELATION / 6)
    normal = np.random.default_rng(2018).standard_normal((2, ALIBABA_JOBS))
    other = rho * normal[0] + np.sqrt(1 - rho**2) * normal[1]
    work, size = work[_ranks(normal[0])], size[_ranks(other)] * MEGABYTE
    return JobTable(work, size, size)


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values))


def _inverse_cdf(
    u: np.ndarray, values: tuple[float, ...], mean: float, largest: float
) -> np.ndarray:
    """Compute quantiles `u`; bisection solves for the exponent of the Pareto tail, by the mean."""
    body = np.exp(np.interp(u, KNOTS, np.log(values)))
    tail = u > KNOTS[-1]
    excess = (1 - KNOTS[-1]) / (1 - u[tail])
    low, high = 0.0, 10.0
    for _ in range(60):
        exponent = (low + high) / 2
        body[tail] = np.minimum(values[-1] * excess**exponent, largest)
        low, high = (low, exponent) if body.mean() > mean else (exponent, high)
    return body
