"""The work of one cell: train in co-simulation, evaluate on worlds that training never saw."""

import hashlib
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.experiments.design import BASELINES, Cell
from fauno_flwr.federation.quiet import quiet_flower
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.agents import Arrays
from fauno_flwr.learning.registry import make_population
from fauno_flwr.results.directory import RunDirectory, read_lines
from fauno_flwr.tasks.edge import EdgeTask
from sim_env.engine.state import FINISHED, RESPONSE
from sim_env.evaluation import run_policy
from sim_env.policies.heuristics import POLICIES, Policy
from sim_env.scenario import Scenario
from sim_env.world import OUTCOMES, Metrics

SCHEMA_VERSION = 1
GREEDY, SAMPLED = "greedy", "sampled"
CURVE_POINTS = 60


@dataclass(frozen=True)
class Trained:
    """What a training leaves.

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
    """A co-simulation that notes, whenever it stops, how many tasks have ended, and how."""

    def __init__(self, config: RunConfig, scenario: Scenario) -> None:
        super().__init__(config, scenario)
        self.moments: list[int] = []
        self.totals: list[np.ndarray] = []
        self._note()

    def run_until(self, end: int) -> None:
        """As in the co-simulation."""
        super().run_until(end)
        self._note()

    def _note(self) -> None:
        total = self.world.state.total.sum(axis=0)
        lost = sum(total[column] for column in OUTCOMES.values())
        self.moments.append(self.world.now)
        self.totals.append(np.array([total[FINISHED], lost, total[RESPONSE]], float))

    def curve(self) -> dict[str, list[float]]:
        """The curve of :class:`Trained`; what cannot be told (no task ended) is NaN."""
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
    """Train one federation in co-simulation, by the same run as ``fauno simulate``."""
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


def by_role(
    actors: Sequence[Arrays], source: Scenario, target: Scenario, seed: int
) -> list[Arrays]:
    """An actor for each agent of the target: of a random agent of the source with its role.

    Raises
    ------
    ValueError
        If no agent of the source has a role of the target.
    """
    rng = np.random.default_rng(seed)
    found = []
    for node in target.agents:
        role = target.topology.roles[node]
        same = [i for i, n in enumerate(source.agents) if source.topology.roles[n] == role]
        if not same:
            raise ValueError(f"role is {role!r}: must be one of the network of the training")
        found.append(actors[int(rng.choice(same))])
    return found


def evaluate(config: RunConfig, policies: Mapping[str, Policy]) -> dict[str, Any]:
    """Each policy on the same worlds; per world, so that differences can be paired."""
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
    """Train and evaluate, or evaluate the heuristics; plain values for JSON."""
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
    for name, config in cell.worlds.items():
        scenario = config.build_scenario()
        policies: dict[str, Policy] = {policy: POLICIES[policy] for policy in BASELINES}
        if trained and cell.training:
            policies = learned(cell.training, trained, scenario)
        found["worlds"][name] = {
            "rho": scenario.rho,
            "agents": len(scenario.agents),
            "seeds": list(config.evaluation.seeds),
            "policies": evaluate(config, policies),
        }
    spent = {"wall": time.monotonic() - begin, "cpu": time.process_time() - cpu}
    return {**found, "seconds": spent}


def learned(training: RunConfig, trained: Trained, scenario: Scenario) -> dict[str, Policy]:
    """The actors as policies of a world, their own or another: greedy and sampled."""
    actors, source = trained.actors, training.build_scenario()
    if source.topology.names != scenario.topology.names:
        actors = by_role(actors, source, scenario, training.seed)
    population = make_population(len(actors), training, scenario)
    for agent, actor in enumerate(actors):
        population.set_actor(actor, agent)
    return {
        GREEDY: population.policy(scenario.agent_of_node, greedy=True),
        SAMPLED: population.policy(scenario.agent_of_node, greedy=False),
    }


def fingerprint(cell: Cell) -> str:
    """Of all settings that a cell depends on: one that is recomputed has the same."""
    configs = [*filter(None, [cell.training]), *cell.worlds.values()]
    plain = [config.to_yaml() for config in configs]
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()[:16]


def _plain(metrics: Metrics) -> dict[str, Any]:
    return {
        "created": metrics.created.tolist(),
        "finished_ratio": metrics.finished_ratio.tolist(),
        "response_mean": metrics.mean_response.tolist(),
        "response_p95": metrics.response_quantile(0.95),
        "lost": {kind: getattr(metrics, kind).tolist() for kind in OUTCOMES},
    }
