"""A scenario: network, workload, physics, reward and observation, compiled into arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sim_env.engine.decision_reward import find_reward
from sim_env.engine.features import find_encoding, number_of, require_observation
from sim_env.engine.net import Net, compile_net
from sim_env.engine.physics import PhysicsSpec, Quirks
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
    "Quirks",
    "Scenario",
    "ScenarioSpec",
    "as_scenario",
    "balanced",
    "ether2",
    "load_scenario",
]


@dataclass
class ScenarioSpec:
    """Everything that defines a world, as plain values.

    Parameters
    ----------
    topology : TopologySpec
    workload : WorkloadSpec
    physics : PhysicsSpec
    reward : RewardSpec
    observation : str
        Features of the agents: a name of :data:`sim_env.engine.features.OBSERVATIONS`, the import
        path of an :class:`sim_env.engine.features.Encoding`, or an entry point of
        ``fauno.observations``.
    dynamics : DynamicsSpec
    """

    topology: TopologySpec = field(default_factory=TopologySpec)
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    physics: PhysicsSpec = field(default_factory=PhysicsSpec)
    reward: RewardSpec = field(default_factory=RewardSpec)
    observation: str = "full"
    dynamics: DynamicsSpec = field(default_factory=DynamicsSpec)

    def __post_init__(self) -> None:
        require_observation(self.observation)


class Scenario:
    """A compiled scenario.

    Parameters
    ----------
    spec : ScenarioSpec
    topology : Topology, optional
        Replaces the one that ``spec.topology`` describes.
    jobs : JobTable, optional
        Replaces the one that ``spec.workload`` describes.

    Attributes
    ----------
    net : Net
        Arrays and numbers of the kernel.
    encoding : Encoding
        Features of the agents.
    observation_number : int
        Number of the encoding in compiled code; -1 if it has none.
    decision_reward : DecisionReward or None
        The reward, if it is a Python function.
    rho : float
        Offered load: instructions born per second / instructions executed per second when all
        nodes are busy; before the schedule of the workload.

    Raises
    ------
    ValueError
        One sentence with the setting that is not possible, or cannot be imported.
    """

    def __init__(
        self, spec: ScenarioSpec, topology: Topology | None = None, jobs: JobTable | None = None
    ) -> None:
        self.spec = spec
        self.topology = topology or build_topology(spec.topology)
        self.jobs = jobs or build_jobs(spec.workload)
        self.net = compile_net(self.topology, self.jobs, spec.workload, spec.physics, spec.reward)
        self.encoding = find_encoding(spec.observation)
        self.observation_number = number_of(self.encoding)
        self.decision_reward = find_reward(spec.reward.kind)
        self.outages([])  # raises here what the first world would raise
        self.rho = float(self.net.arrivals.sum() * self.net.mean_work / self.net.speed.sum())

    def outages(self, seeds: Sequence[int]) -> Outages:
        """Return the failures in worlds of these seeds."""
        return Outages(self.spec.dynamics, self.topology, self.spec.physics.tick, seeds)

    @property
    def is_compiled(self) -> bool:
        """Whether compiled code computes observation and reward, not Python functions."""
        return self.observation_number >= 0 and self.decision_reward is None

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
    """Return the paper's regime: 2 Ether clusters, Alibaba-like jobs, wireless links, rho 0.41."""
    return ScenarioSpec()


def balanced() -> ScenarioSpec:
    """Return the feasibility study's: light jobs, fast links, deadline 10 to 20 s, rho 0.985."""
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
    """Return a compiled scenario as it is, or compile the one of that name."""
    if isinstance(scenario, str):
        return load_scenario(scenario)
    require_kind("scenario", scenario, Scenario, f"a Scenario or one of {', '.join(SCENARIOS)}")
    return scenario
