"""A scenario: network, workload, physics, reward and observation, compiled into arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sim_env.engine.features import OBSERVATIONS
from sim_env.engine.net import Net, compile_net
from sim_env.engine.physics import PhysicsSpec
from sim_env.engine.reward import RewardSpec
from sim_env.errors import require_choice, require_kind
from sim_env.network.failures import DynamicsSpec, Outages
from sim_env.network.graph import Topology
from sim_env.network.topology import TopologySpec, build_topology
from sim_env.workload.jobs import JobTable
from sim_env.workload.workload import WorkloadSpec, build_jobs

__all__ = [
    "SCENARIOS",
    "Net",
    "PhysicsSpec",
    "Scenario",
    "ScenarioSpec",
    "as_scenario",
    "balanced",
    "ether2",
    "load_scenario",
]


@dataclass
class ScenarioSpec:
    """Everything that makes a world, as plain values.

    Parameters
    ----------
    topology, workload, physics, reward
    observation : str
        What agents see: a name of :data:`sim_env.engine.features.OBSERVATIONS`.
    """

    topology: TopologySpec = field(default_factory=TopologySpec)
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    physics: PhysicsSpec = field(default_factory=PhysicsSpec)
    reward: RewardSpec = field(default_factory=RewardSpec)
    observation: str = "full"
    dynamics: DynamicsSpec = field(default_factory=DynamicsSpec)

    def __post_init__(self) -> None:
        require_choice("observation", self.observation, OBSERVATIONS)


class Scenario:
    """A compiled scenario.

    Parameters
    ----------
    spec : ScenarioSpec
        Plain values.
    topology : Topology, optional
        Used instead of the one that ``spec.topology`` describes.
    jobs : JobTable, optional
        Used instead of the one that ``spec.workload`` describes.

    Attributes
    ----------
    net : Net
        What the kernel reads.
    encoding : Encoding
        Of what agents see.
    rho : float
        Offered load: instructions born per second / instructions executed per second when all
        nodes are busy; before the schedule of the workload.
    """

    def __init__(
        self, spec: ScenarioSpec, topology: Topology | None = None, jobs: JobTable | None = None
    ) -> None:
        self.spec = spec
        self.topology = topology or build_topology(spec.topology)
        self.jobs = jobs or build_jobs(spec.workload)
        self.net = compile_net(self.topology, self.jobs, spec.workload, spec.physics, spec.reward)
        self.encoding = OBSERVATIONS[spec.observation]
        self.observation_number = list(OBSERVATIONS).index(spec.observation)
        self.outages([])  # what cannot be is told here, and not in the first world
        self.rho = float(self.net.arrivals.sum() * self.net.mean_work / self.net.speed.sum())

    def outages(self, seeds: Sequence[int]) -> Outages:
        """Failures in worlds of these seeds."""
        return Outages(self.spec.dynamics, self.topology, self.spec.physics.tick, seeds)

    @property
    def agents(self) -> np.ndarray:
        """Indices of the nodes that decide, ascending."""
        return self.topology.agents

    @cached_property
    def agent_of_node(self) -> np.ndarray:
        """Agent of each node, int32 (N,); -1 for a node that does not decide."""
        agents = np.full(self.topology.num_nodes, -1, np.int32)
        agents[self.agents] = np.arange(len(self.agents))
        return agents


def ether2() -> ScenarioSpec:
    """The paper's regime: 2 Ether clusters, Alibaba-like jobs, wireless links, rho = 0.41."""
    return ScenarioSpec()


def balanced() -> ScenarioSpec:
    """The feasibility study's: light jobs, fast links, deadline 10 to 20 s, rho = 0.985."""
    return ScenarioSpec(
        topology=TopologySpec(memory_per_task=430e6),
        workload=WorkloadSpec(jobs="light", rate=7.39, deadline_min=10.0, deadline_max=20.0),
        physics=PhysicsSpec(link="fixed"),
        reward=RewardSpec(scale=2.0, overload_weight=0.0),
    )


SCENARIOS = {"ether2": ether2, "balanced": balanced}
"""The built-in scenarios by name, as functions that return a :class:`ScenarioSpec`."""


def load_scenario(name: str) -> Scenario:
    """Compile the scenario of that name; ``ValueError`` names the known ones."""
    require_choice("scenario", name, SCENARIOS)
    return Scenario(SCENARIOS[name]())


def as_scenario(scenario: Scenario | str) -> Scenario:
    """A compiled scenario as it is, or the one of that name."""
    if isinstance(scenario, str):
        return load_scenario(scenario)
    require_kind("scenario", scenario, Scenario, f"a Scenario or one of {', '.join(SCENARIOS)}")
    return scenario
