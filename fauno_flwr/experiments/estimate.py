"""How long the missing cells of an experiment will take, from those that are measured."""

from collections.abc import Iterable

import numpy as np

from fauno_flwr.config.federation import GOSSIP
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.experiments.design import Cell
from sim_env.network.topology import TopologySpec, build_topology

# Wall seconds of a training on one core, measured over the 252 kinds of cells of `baseline`: they
# scatter around SECONDS * updates * sqrt(slots * rate) with a standard deviation of 0.41 in the
# logarithm, mostly by the method: whether its update is compiled.
SECONDS = 0.0055
# Standard deviations of the effects on the logarithm of the seconds: of the machine, of a
# condition, of a method, of a cell alone; and of the load of the machine from now on.
MACHINE, CONDITION, METHOD, CELL, LOAD = 0.7, 0.3, 0.4, 0.2, 0.15
DRAWS = 400
RANGE = (0.1, 0.9)  # quantiles


class TimeEstimate:
    """Estimate of the time that trainings take: a typical cost, corrected by what is measured.

    The logarithm of the seconds of a training is the typical one plus an effect of the machine, of
    the condition, and of the method, all normal around 0 (a Bayesian linear model). So a cell of a
    measured kind is expected to take as long as that one, and any other by the ratios of its
    condition and its method to the measured ones. Cells of heuristics are fast and not counted.

    Parameters
    ----------
    cells : iterable of Cell
        All cells of the experiment.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        trained = [cell for cell in cells if cell.training is not None]
        conditions = sorted({_condition(cell) for cell in trained})
        methods = sorted({cell.method for cell in trained})
        effects = {("machine", ""): MACHINE}
        effects |= {("condition", name): CONDITION for name in conditions}
        effects |= {("method", name): METHOD for name in methods}
        place = {effect: column for column, effect in enumerate(effects)}
        scale = np.array(list(effects.values()))
        self._rows: dict[str, np.ndarray] = {}
        self._typical: dict[str, float] = {}
        sizes: dict[str, tuple[int, float]] = {}
        for cell in trained:
            config = cell.training
            assert config is not None
            topology = repr(config.topology)
            if topology not in sizes:
                sizes[topology] = size_of(config.topology)
            row = np.zeros(len(scale))
            effects_of_cell = ("condition", _condition(cell)), ("method", cell.method)
            row[[0, *(place[effect] for effect in effects_of_cell)]] = 1.0
            self._rows[cell.key] = row
            self._typical[cell.key] = np.log(typical_seconds(config, *sizes[topology]))
        self._precision = np.diag(1 / scale**2)
        self._weighted = np.zeros(len(scale))

    def add(self, cell: Cell, seconds: float) -> None:
        """Take into account that a cell took so many wall seconds."""
        if cell.key in self._rows:
            row = self._rows[cell.key]
            self._precision += np.outer(row, row) / CELL**2
            self._weighted += row * (np.log(seconds) - self._typical[cell.key]) / CELL**2

    def left(self, missing: Iterable[Cell], workers: int) -> tuple[float, float]:
        """Return low and high seconds for these cells on so many cores, an interval of 80 %.

        Cores are taken as busy to the end, but no time is less than that of the longest cell.
        Without trainings it is (0, 0).
        """
        keys = [cell.key for cell in missing if cell.key in self._rows]
        if not keys:
            return 0.0, 0.0
        rows = np.array([self._rows[key] for key in keys])
        covariance = np.linalg.inv(self._precision)
        mean = rows @ covariance @ self._weighted + [self._typical[key] for key in keys]
        factor = rows @ np.linalg.cholesky(covariance)
        rng = np.random.default_rng(0)
        effects = factor @ rng.normal(size=(factor.shape[1], DRAWS))
        noise = rng.normal(0, CELL, size=(len(keys), DRAWS)) + rng.normal(0, LOAD, size=DRAWS)
        seconds = np.exp(mean[:, None] + effects + noise)
        total = np.maximum(seconds.sum(axis=0) / max(1, workers), seconds.max(axis=0))
        low, high = np.quantile(total, RANGE)
        return float(low), float(high)


def size_of(topology: TopologySpec) -> tuple[int, float]:
    """Return the number of nodes that learn, and the mean number of their slots."""
    built = build_topology(topology)
    slots = [1 + len(built.neighbours[node]) for node in built.agents]
    return len(slots), float(np.mean(slots))


def typical_seconds(config: RunConfig, agents: int, slots: float) -> float:
    """Return the seconds of a training on one core of a typical machine; at least 1.

    Parameters
    ----------
    config : RunConfig
    agents : int
        Nodes that learn.
    slots : float
        Their own node and their neighbours, on average.
    """
    size = config.federation.buffer_size
    each = size if isinstance(size, int) else size * agents
    if config.federation.merging == GOSSIP:
        each = agents
    updates = config.federation.versions * each
    return max(1.0, SECONDS * updates * float(np.sqrt(slots * config.workload.rate)))


def _condition(cell: Cell) -> str:
    """Return the condition that a cell is trained in: keys are condition.method.seed."""
    return cell.key.removesuffix(f".{cell.method}.{cell.seed}")
