"""A scenario: network, workload, physics, reward and observation, compiled into arrays."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sim_env.errors import require_choice, require_number
from sim_env.links import wireless_rate
from sim_env.topology import Topology, TopologySpec, build_topology
from sim_env.workload import JobTable, WorkloadSpec, build_jobs, source_rates

NO_DEADLINE = 2**30


@dataclass
class PhysicsSpec:
    """How time passes, how messages travel and what becomes of late tasks.

    Parameters
    ----------
    tick : float
        Seconds of one tick.
    link : str
        ``wireless``: Shannon capacity under free-space path loss, by distance. ``fixed``: the
        same rate and latency for all links, others for those that touch a server.
    bandwidth, power, frequency : float
        Of ``wireless`` links: Hz, dBm, Hz.
    rate, latency : float
        Of ``fixed`` links: bits per second, seconds.
    server_rate, server_latency : float
        The same for ``fixed`` links that touch a server.
    hop_cap : int
        A task that has made this many hops may only be kept.
    information_delay : int
        Ticks after which neighbours know a queue length.
    cancel_in_service : bool
        Whether a task whose deadline passes is cancelled also while being served.
    """

    tick: float = 0.1
    link: str = "wireless"
    bandwidth: float = 2e6
    power: float = 20.0
    frequency: float = 2.4e9
    rate: float = 600e6
    latency: float = 0.0
    server_rate: float = 300e6
    server_latency: float = 0.2
    hop_cap: int = 8
    information_delay: int = 1
    cancel_in_service: bool = True

    def __post_init__(self) -> None:
        require_choice("physics.link", self.link, ("wireless", "fixed"))
        for name in ("tick", "bandwidth", "frequency", "rate", "server_rate"):
            require_number(f"physics.{name}", getattr(self, name), above=0)
        require_number("physics.power", self.power)
        for name in ("latency", "server_latency", "hop_cap", "information_delay"):
            require_number(f"physics.{name}", getattr(self, name), at_least=0)


@dataclass
class RewardSpec:
    """What a decision earns; see :mod:`sim_env.reward` for the formula.

    Parameters
    ----------
    kind : str
        ``delay``: utility minus expected delay minus the risk of an overload.
    utility : float
        Earned by every decision.
    scale : float
        Seconds of expected delay that cost 1.
    delay_cap : float
        Expected delays above this many seconds cost no more.
    overload_weight : float
        Weight of the overload term.
    """

    kind: str = "delay"
    utility: float = 1.0
    scale: float = 10.0
    delay_cap: float = 60.0
    overload_weight: float = 3.0

    def __post_init__(self) -> None:
        require_choice("reward.kind", self.kind, ("delay",))
        require_number("reward.utility", self.utility)
        require_number("reward.scale", self.scale, above=0)
        require_number("reward.delay_cap", self.delay_cap, above=0)
        require_number("reward.overload_weight", self.overload_weight, at_least=0)


@dataclass
class ScenarioSpec:
    """Everything that makes a world, as plain values."""

    topology: TopologySpec = field(default_factory=TopologySpec)
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    physics: PhysicsSpec = field(default_factory=PhysicsSpec)
    reward: RewardSpec = field(default_factory=RewardSpec)


class Net(NamedTuple):
    """The arrays and numbers that the kernel reads; times in ticks, sizes in bits.

    Slot 0 of a node is the node itself, slot k > 0 its k-th neighbour; K is the largest number
    of slots, missing ones are -1.
    """

    slots: np.ndarray  # int32 (N,): number of slots, the node itself included
    neighbour: np.ndarray  # int32 (N, K)
    rate: np.ndarray  # float64 (N, K): bits per tick
    latency: np.ndarray  # float64 (N, K): ticks
    speed: np.ndarray  # float64 (N,): instructions per tick
    capacity: np.ndarray  # int32 (N,)
    is_agent: np.ndarray  # bool (N,)
    arrivals: np.ndarray  # float64 (N,): tasks per tick
    job_work: np.ndarray  # float64 (J,): instructions
    job_input: np.ndarray  # float64 (J,): bits
    job_output: np.ndarray  # float64 (J,): bits
    mean_work: float
    deadline_low: int  # ticks after birth
    deadline_high: int  # exclusive
    hop_cap: int
    information_delay: int
    cancel_in_service: bool
    utility: float
    reward_scale: float  # ticks
    delay_cap: float  # ticks
    overload_weight: float


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
    rho : float
        Offered load: instructions born per second / instructions executed per second when all
        nodes are busy.
    """

    def __init__(
        self, spec: ScenarioSpec, topology: Topology | None = None, jobs: JobTable | None = None
    ) -> None:
        self.spec = spec
        self.topology = topology or build_topology(spec.topology)
        self.jobs = jobs or build_jobs(spec.workload)
        self.net = _compile(spec, self.topology, self.jobs)
        self.rho = float(self.net.arrivals.sum() * self.net.mean_work / self.net.speed.sum())

    @property
    def agents(self) -> np.ndarray:
        """Indices of the nodes that decide, ascending."""
        return self.topology.agents


def _compile(spec: ScenarioSpec, topology: Topology, jobs: JobTable) -> Net:
    physics, workload, tick = spec.physics, spec.workload, spec.physics.tick
    slots = np.array([1 + len(row) for row in topology.neighbours], np.int32)
    neighbour = np.full((topology.num_nodes, slots.max()), -1, np.int32)
    neighbour[:, 0] = np.arange(topology.num_nodes)
    for node, row in enumerate(topology.neighbours):
        neighbour[node, 1 : 1 + len(row)] = row
    if physics.link == "wireless":
        apart = np.linalg.norm(topology.position[:, None] - topology.position[neighbour], axis=2)
        rate = wireless_rate(apart, physics.bandwidth, physics.power, physics.frequency)
        latency = np.zeros(rate.shape)
    else:
        server = np.array(topology.roles) == "server"
        touches = server[:, None] | server[neighbour]
        rate = np.where(touches, physics.server_rate, physics.rate)
        latency = np.where(touches, physics.server_latency, physics.latency)
    low = math.floor(workload.deadline_min / tick)
    high = max(math.floor(workload.deadline_max / tick), low + 1)
    if workload.deadline_max == 0:
        low, high = NO_DEADLINE, NO_DEADLINE + 1
    return Net(
        slots=slots,
        neighbour=neighbour,
        rate=rate * tick,
        latency=latency / tick,
        speed=np.asarray(topology.speed, float) * tick,
        capacity=np.asarray(topology.capacity, np.int32),
        is_agent=np.asarray(topology.is_agent, bool),
        arrivals=source_rates(workload, topology) * tick,
        job_work=np.asarray(jobs.instructions, float),
        job_input=np.asarray(jobs.input_bits, float),
        job_output=np.asarray(jobs.output_bits, float),
        mean_work=float(jobs.instructions.mean()),
        deadline_low=low,
        deadline_high=high,
        hop_cap=physics.hop_cap,
        information_delay=physics.information_delay,
        cancel_in_service=physics.cancel_in_service,
        utility=spec.reward.utility,
        reward_scale=spec.reward.scale / tick,
        delay_cap=spec.reward.delay_cap / tick,
        overload_weight=spec.reward.overload_weight,
    )


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


def load_scenario(name: str) -> Scenario:
    """Compile the scenario of that name; ``ValueError`` names the known ones."""
    require_choice("scenario", name, SCENARIOS)
    return Scenario(SCENARIOS[name]())
