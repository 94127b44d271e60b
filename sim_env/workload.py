"""What arrives: a table of jobs to draw from, the rate of arrivals and the deadlines."""

from dataclasses import dataclass

import numpy as np

from sim_env.errors import require_choice, require_number

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


@dataclass(frozen=True)
class JobTable:
    """Jobs that are equally likely to arrive.

    Parameters
    ----------
    instructions : array of float, shape (J,)
    input_bits, output_bits : array of float, shape (J,)
        Size of what is sent with the task, and of what comes back.
    """

    instructions: np.ndarray
    input_bits: np.ndarray
    output_bits: np.ndarray

    def __post_init__(self) -> None:
        for name in ("instructions", "input_bits", "output_bits"):
            values = getattr(self, name)
            if values.ndim != 1 or len(values) != len(self.instructions) or len(values) == 0:
                raise ValueError(f"job table: {name} must be one row per job, at least one job")
            if not np.all(np.isfinite(values)) or values.min() < 0:
                raise ValueError(f"job table: {name} must be finite and not negative")


@dataclass
class WorkloadSpec:
    """What arrives at every source.

    Parameters
    ----------
    jobs : str
        ``alibaba``: heavy-tailed, fitted to the quantiles of the Alibaba trace.
        ``light``: 2, 4 or 8 x 1e7 instructions and 10, 30 or 60 MB, each with probability
        0.4, 0.4, 0.2. The output of a job is as large as its input.
    rate : float
        Tasks per second and source (true Poisson arrivals).
    deadline_min, deadline_max : float
        The deadline is drawn uniformly from [min, max) seconds after birth; both 0: none.
    """

    jobs: str = "alibaba"
    rate: float = 2.0
    deadline_min: float = 30.0
    deadline_max: float = 60.0

    def __post_init__(self) -> None:
        require_choice("workload.jobs", self.jobs, JOB_TABLES)
        require_number("workload.rate", self.rate, above=0)
        require_number("workload.deadline_min", self.deadline_min, at_least=0)
        require_number("workload.deadline_max", self.deadline_max, at_least=self.deadline_min)


def light_jobs() -> JobTable:
    """The feasibility study's mix: mean 4e7 instructions and 28 MB."""
    size = np.array([10.0, 10, 30, 30, 60]) * MEGABYTE
    work = np.array([2.0, 2, 4, 4, 8]) * 1e7
    return JobTable(np.repeat(work, 5), np.tile(size, 5), np.tile(size, 5))


def alibaba_jobs() -> JobTable:
    """Jobs with the marginal quantiles and rank correlation of the Alibaba trace."""
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
    """Quantiles `u`; the exponent of the Pareto tail is solved by bisection for the mean."""
    body = np.exp(np.interp(u, KNOTS, np.log(values)))
    tail = u > KNOTS[-1]
    excess = (1 - KNOTS[-1]) / (1 - u[tail])
    low, high = 0.0, 10.0
    for _ in range(60):
        exponent = (low + high) / 2
        body[tail] = np.minimum(values[-1] * excess**exponent, largest)
        low, high = (low, exponent) if body.mean() > mean else (exponent, high)
    return body


JOB_TABLES = {"alibaba": alibaba_jobs, "light": light_jobs}
