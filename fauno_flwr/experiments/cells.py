"""The work of one cell: train in co-simulation, evaluate on worlds never used in training."""

import hashlib
import inspect
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.experiments.design import BASELINES, Cell
from fauno_flwr.federation.logs import quiet_flower
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.agents import Arrays
from fauno_flwr.results.directory import RunDirectory, read_lines
from fauno_flwr.tasks.edge import EdgeTask
from fauno_flwr.tasks.heuristics import find_heuristic, find_heuristics
from fauno_flwr.tasks.transfer import make_trained, transfer
from sim_env.engine.state import FINISHED, LOSSES, RESPONSE
from sim_env.evaluation import run_policy
from sim_env.policies.heuristics import POLICIES, Policy
from sim_env.scenario import Scenario
from sim_env.world import Metrics

SCHEMA_VERSION = 1
GREEDY, SAMPLED = "greedy", "sampled"
CURVE_POINTS = 60


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Parameters
    ----------
    actors : list of dict of str to array
        By agent.
    curve : dict of str to list of float
        Of all tasks that ended in the network between two moments of virtual time: ``seconds``
        (the later moment), ``finished`` (ratio) and ``response`` (s).
    staleness : float
        Mean over the merged updates, in versions.
    versions : int
    seconds : float
        Virtual.
    """

    actors: list[Arrays]
    curve: dict[str, list[float]]
    staleness: float
    versions: int
    seconds: float


class WatchedGrid(CosimGrid):
    """A co-simulation that counts, whenever it stops, the tasks that have ended by outcome."""

    def __init__(self, config: RunConfig, scenario: Scenario) -> None:
        super().__init__(config, scenario)
        self.moments: list[int] = []
        self.totals: list[np.ndarray] = []
        self._count()

    def run_until(self, end: int) -> None:
        """Run as the co-simulation does."""
        super().run_until(end)
        self._count()

    def _count(self) -> None:
        total = self.world.state.total.sum(axis=0)
        lost = sum(total[column] for column in LOSSES.values())
        self.moments.append(self.world.now)
        self.totals.append(np.array([total[FINISHED], lost, total[RESPONSE]], float))

    def curve(self) -> dict[str, list[float]]:
        """Return the curve of :class:`Trained`; NaN where no task has ended."""
        edges = np.linspace(self.moments[0], self.moments[-1], CURVE_POINTS + 1)
        totals = np.array(self.totals)
        finished, lost, response = (
            np.diff(np.interp(edges, self.moments, column)) for column in totals.T
        )
        with np.errstate(invalid="ignore"):
            return {
                "seconds": (edges[1:] * self.tick).tolist(),
                "finished": (finished / (finished + lost)).tolist(),
                "response": (response * self.tick / finished).tolist(),
            }


def train(config: RunConfig) -> Trained:
    """Train one federation in co-simulation, as ``fauno train`` does."""
    scenario = config.build_scenario()
    grid = WatchedGrid(config, scenario)
    with tempfile.TemporaryDirectory() as folder:
        Run(grid, config, EdgeTask(config, scenario), RunDirectory(folder)).execute()
        events = read_lines(Path(folder) / "events.jsonl")
    flushes = [event for event in events if event["event"] == "flush"]
    return Trained(
        [grid.population.get_actor(agent) for agent in range(grid.population.agents)],
        grid.curve(),
        float(np.mean([tau for flush in flushes for tau in flush["staleness"]])),
        len(flushes),
        float(flushes[-1]["t"]),
    )


def trained_policies(
    training: RunConfig, trained: Trained, scenario: Scenario
) -> dict[str, Policy]:
    """Make policies of trained actors, greedy and sampled, for a world.

    In the network of the training every node has its own actor. In another one, every node gets
    that of a random trained node of its role.
    """
    source = training.build_scenario()
    names, roles = source.topology.names, source.topology.roles
    agents = zip(source.agents, trained.actors, strict=True)
    actors = {names[node]: actor for node, actor in agents}
    role_of = dict(zip(names, roles, strict=True))
    same = names == scenario.topology.names
    found = transfer(actors, role_of, scenario, training.seed, keep_own=same)
    population = make_trained(found, training, scenario)
    return {
        GREEDY: population.policy(scenario.agent_of_node, greedy=True),
        SAMPLED: population.policy(scenario.agent_of_node, greedy=False),
    }


def evaluate(config: RunConfig, policies: Mapping[str, Policy]) -> dict[str, Any]:
    """Evaluate policies on the same worlds; numbers by world, so that they can be paired."""
    scenario, evaluation = config.build_scenario(), config.evaluation
    return {
        name: _plain(
            run_policy(
                scenario,
                policy,
                evaluation.seeds,
                warmup=evaluation.warmup,
                window=evaluation.window,
            )
        )
        for name, policy in policies.items()
    }


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train and evaluate, or evaluate heuristics; return plain values for JSON."""
    torch.set_num_threads(1)
    begin, cpu = time.monotonic(), time.process_time()
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "key": cell.key,
        "method": cell.method,
        "seed": cell.seed,
        "settings": fingerprint(cell),
        "worlds": {},
    }
    with quiet_flower(logging.ERROR):
        trained = train(cell.training) if cell.training else None
    if trained:
        found["training"] = {
            "versions": trained.versions,
            "virtual_seconds": trained.seconds,
            "staleness": trained.staleness,
            "curve": trained.curve,
        }
    policies = find_heuristics("heuristics", cell.policies)
    for name, world in cell.worlds.items():
        # The agents observe as they did in training; the arrivals are the same for all.
        observation = (cell.training or world).observation
        config = replace(world, observation=observation)
        scenario = config.build_scenario()
        if trained and cell.training:
            policies = trained_policies(cell.training, trained, scenario)
        found["worlds"][name] = {
            "rho": scenario.rho,
            "agents": len(scenario.agents),
            "seeds": list(config.evaluation.seeds),
            "policies": evaluate(config, policies),
        }
    spent = {"wall": time.monotonic() - begin, "cpu": time.process_time() - cpu}
    return {**found, "seconds": spent}


def fingerprint(cell: Cell) -> str:
    """Compute a digest of whatever a cell depends on: its settings, and heuristics of one's own."""
    configs = [*filter(None, [cell.training]), *cell.worlds.values()]
    parts = [config.to_yaml() for config in configs]
    for name in cell.policies:
        if name not in BASELINES:
            parts += [name, _source(name)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _source(name: str) -> str:
    """Return the source of the module of a heuristic; empty if built in or compiled."""
    if name in POLICIES:
        return ""
    policy = find_heuristic("heuristics", name)
    try:
        module = inspect.getmodule(policy) or inspect.getmodule(type(policy))
        return inspect.getsource(module) if module else ""
    except (OSError, TypeError):
        return ""


def _plain(metrics: Metrics) -> dict[str, Any]:
    return {
        "created": metrics.created.tolist(),
        "finished_ratio": metrics.finished_ratio.tolist(),
        "response_mean": metrics.mean_response.tolist(),
        "response_p95": metrics.response_quantile(0.95),
        "lost": {kind: getattr(metrics, kind).tolist() for kind in LOSSES},
    }
