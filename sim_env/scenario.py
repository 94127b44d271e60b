"""A scenario: network, workload, physics, reward and observation, compiled into arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sim_env.dynamics import DynamicsSpec, Outages
from sim_env.errors import require_choice, require_kind, require_number, require_whole
from sim_env.features import OBSERVATIONS
from sim_env.links import received_power, shannon_rate
from sim_env.reward import Reward, RewardSpec, compile_reward
from sim_env.topology import Topology, TopologySpec, build_topology
from sim_env.workload import JobTable, WorkloadSpec, build_jobs, source_rates

NO_DEADLINE = 2**30
LONGEST_JOURNEY = 1e7  # ticks
PHYSICS_CHOICES = {
    "link": ("wireless", "fixed"),
    "queue_order": ("fifo", "lifo"),
    "keep_marks": ("undecided", "first"),
    "arrivals": ("poisson", "one_per_tick"),
    "latency_unit": ("tick", "second"),
    "noise_bandwidth": ("link", "message"),
    "publish": ("change", "arrival"),
    "late_results": ("lost", "finished"),
    "tick_order": ("fixed", "random"),
}


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
    queue_order : str
        ``fifo``, or ``lifo``: the newest task is served and decided first.
    keep_marks : str
        What a keep decision marks as decided: ``undecided``, the task it is about, or ``first``,
        the first one in the queue, decided or not.
    arrivals : str
        ``poisson``, or ``one_per_tick``: the next birth is at the rounded end of an exponential
        time, at most one per tick.
    serve_neighbours : bool
        Whether a client, in ticks without a task of its own, also gives birth to tasks for the
        neighbours that are sources, at their rate, and sends them there.
    latency_unit : str
        ``tick``: whole ticks, rounded up; ``second``: whole seconds, rounded to nearest. At least
        one tick either way.
    noise_bandwidth : str
        Bandwidth in the noise of a ``wireless`` link: the ``link``'s, or one that equals the bits
        of the ``message``.
    self_hop : int
        Ticks of a message from a node to itself: from client to worker, and back.
    intake_period : int
        Tasks from the client wait before the queue and enter it in every so many ticks, when it
        is empty, or when a task is sent away; 0: at once.
    publish : str
        What makes a node tell its queue length: any ``change``, or only an ``arrival`` (of a
        client's or an offloaded task, or one sent away) but no completion.
    home_shortcut : bool
        Whether the output goes straight to the client from the node that first received the task,
        be it served there or come back there, not along all of the way that the task has gone.
    cancel_on_arrival : bool
        Whether a task that reaches a node after its deadline is lost there and then.
    expiry_grace : int
        Ticks after its deadline at which a waiting task is cancelled.
    late_results : str
        Whether a result after the deadline is ``lost`` or counts as ``finished``.
    client_forgets : bool
        Whether a client no longer counts a result that comes later than the time of birth + the
        (absolute) deadline.
    tick_order : str
        ``fixed``: actions, deliveries, then node by node births and service. ``random``: all
        deliveries, clients, workers and the joint action of a tick in random order.
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
    queue_order: str = "fifo"
    keep_marks: str = "undecided"
    arrivals: str = "poisson"
    serve_neighbours: bool = False
    latency_unit: str = "tick"
    noise_bandwidth: str = "link"
    self_hop: int = 0
    intake_period: int = 0
    publish: str = "change"
    home_shortcut: bool = False
    cancel_on_arrival: bool = True
    expiry_grace: int = 0
    late_results: str = "lost"
    client_forgets: bool = False
    tick_order: str = "fixed"

    def __post_init__(self) -> None:
        for name, choices in PHYSICS_CHOICES.items():
            require_choice(f"physics.{name}", getattr(self, name), choices)
        if self.tick_order == "random" and self.information_delay == 0:
            raise ValueError(
                "physics.information_delay is 0: must be at least 1 with tick_order random"
            )
        for name in ("self_hop", "intake_period", "expiry_grace", "hop_cap", "information_delay"):
            require_whole(f"physics.{name}", getattr(self, name), at_least=0)
        for name in ("tick", "bandwidth", "frequency", "rate", "server_rate"):
            require_number(f"physics.{name}", getattr(self, name), above=0)
        require_number("physics.power", self.power)
        for name in ("latency", "server_latency"):
            require_number(f"physics.{name}", getattr(self, name), at_least=0)


PLAIN = PhysicsSpec()
# What the plain kernel does not know; see sim_env/events.py.
EVENT_OPTIONS = (
    "queue_order",
    "keep_marks",
    "arrivals",
    "serve_neighbours",
    "self_hop",
    "intake_period",
    "publish",
    "home_shortcut",
    "cancel_on_arrival",
    "expiry_grace",
    "late_results",
    "client_forgets",
    "tick_order",
)


@dataclass
class ScenarioSpec:
    """Everything that makes a world, as plain values.

    Parameters
    ----------
    topology, workload, physics, reward
    observation : str
        What agents see: a name of :data:`sim_env.features.OBSERVATIONS`.
    """

    topology: TopologySpec = field(default_factory=TopologySpec)
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    physics: PhysicsSpec = field(default_factory=PhysicsSpec)
    reward: RewardSpec = field(default_factory=RewardSpec)
    observation: str = "full"
    dynamics: DynamicsSpec = field(default_factory=DynamicsSpec)

    def __post_init__(self) -> None:
        require_choice("observation", self.observation, OBSERVATIONS)


class Net(NamedTuple):
    """The arrays and numbers that the kernel reads; times in ticks, sizes in bits.

    Slot 0 of a node is the node itself, slot k > 0 its k-th neighbour. Links are rows: slot k of
    node n is row ``first[n] + k`` of L = ``first[N]``. Of the G streams of births, a client has
    its own, or with ``serve_neighbours`` one per slot.
    """

    slots: np.ndarray  # int32 (N,): number of slots, the node itself included
    first: np.ndarray  # int64 (N + 1,): row of slot 0
    streams: np.ndarray  # int64 (N + 1,): first stream of births of a client
    neighbour: np.ndarray  # int32 (L,)
    rate: np.ndarray  # float64 (L,): bits per tick
    latency: np.ndarray  # float64 (L,): ticks
    speed: np.ndarray  # float64 (N,): instructions per tick
    capacity: np.ndarray  # int32 (N,)
    is_agent: np.ndarray  # bool (N,)
    arrivals: np.ndarray  # float64 (N,): tasks per tick
    births: float  # tasks per tick of all streams
    job_work: np.ndarray  # float64 (J,): instructions
    job_input: np.ndarray  # float64 (J,): bits
    job_output: np.ndarray  # float64 (J,): bits
    mean_work: float
    deadline_low: int  # ticks after birth
    deadline_high: int  # exclusive
    hop_cap: int
    information_delay: int
    cancel_in_service: bool
    events: bool  # whether any option below differs from the plain tick
    lifo: bool
    keep_marks_first: bool
    one_per_tick: bool
    serve_neighbours: bool
    whole_seconds: bool
    ticks_per_second: float
    message_noise: bool
    signal: np.ndarray  # float64 (L,): dBm that arrive
    bandwidth: float  # Hz
    self_hop: int
    intake_period: int
    publish_on_arrival: bool
    home_shortcut: bool
    cancel_on_arrival: bool
    expiry_grace: int
    late_counts: bool
    client_forgets: bool
    random_order: bool
    reward: Reward

    def destinations(self, node: int) -> np.ndarray:
        """Nodes in the slots of a node, itself first."""
        return self.neighbour[self.first[node] : self.first[node + 1]]


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
        self.net = _compile(spec, self.topology, self.jobs)
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


def _compile(spec: ScenarioSpec, topology: Topology, jobs: JobTable) -> Net:
    physics, workload, tick = spec.physics, spec.workload, spec.physics.tick
    slots = np.array([1 + len(row) for row in topology.neighbours], np.int32)
    first = np.concatenate([[0], np.cumsum(slots, dtype=np.int64)])
    own = np.repeat(np.arange(topology.num_nodes), slots)
    neighbour = np.array(
        [m for n, row in enumerate(topology.neighbours) for m in (n, *row)], np.int32
    )
    apart = np.linalg.norm(topology.position[own] - topology.position[neighbour], axis=1)
    signal = received_power(apart, physics.power, physics.frequency)
    if physics.link == "wireless":
        rate = shannon_rate(signal, physics.bandwidth)
        latency = np.zeros(rate.shape)
    else:
        server = np.array(topology.roles) == "server"
        touches = server[own] | server[neighbour]
        rate = np.where(touches, physics.server_rate, physics.rate)
        latency = np.where(touches, physics.server_latency, physics.latency)
    _require_live_links(topology, jobs, rate * tick, latency / tick, own)
    low = round(workload.deadline_min / tick)
    high = max(round(workload.deadline_max / tick), low + 1)
    if workload.deadline_max == 0:
        low, high = NO_DEADLINE, NO_DEADLINE + 1
    arrivals = source_rates(workload, topology) * tick
    births: np.ndarray = arrivals
    if physics.serve_neighbours:
        makes = arrivals[neighbour] * (arrivals[own] > 0)  # by the client of each slot's owner
        births = np.bincount(neighbour, makes, topology.num_nodes)
    return Net(
        slots=slots,
        first=first,
        streams=first if physics.serve_neighbours else np.arange(topology.num_nodes + 1),
        neighbour=neighbour,
        rate=rate * tick,
        latency=latency / tick,
        speed=np.asarray(topology.speed, float) * tick,
        capacity=np.asarray(topology.capacity, np.int32),
        is_agent=np.asarray(topology.is_agent, bool),
        arrivals=arrivals,
        births=float(births.sum()),
        job_work=np.asarray(jobs.instructions, float),
        job_input=np.asarray(jobs.input_bits, float),
        job_output=np.asarray(jobs.output_bits, float),
        mean_work=float(jobs.instructions.mean()),
        deadline_low=low,
        deadline_high=high,
        hop_cap=physics.hop_cap,
        information_delay=physics.information_delay,
        cancel_in_service=physics.cancel_in_service,
        events=any(getattr(physics, name) != getattr(PLAIN, name) for name in EVENT_OPTIONS),
        lifo=physics.queue_order == "lifo",
        keep_marks_first=physics.keep_marks == "first",
        one_per_tick=physics.arrivals == "one_per_tick",
        serve_neighbours=physics.serve_neighbours,
        whole_seconds=physics.latency_unit == "second",
        ticks_per_second=1 / tick,
        message_noise=physics.noise_bandwidth == "message" and physics.link == "wireless",
        signal=signal,
        bandwidth=physics.bandwidth,
        self_hop=physics.self_hop,
        intake_period=physics.intake_period,
        publish_on_arrival=physics.publish == "arrival",
        home_shortcut=physics.home_shortcut,
        cancel_on_arrival=physics.cancel_on_arrival,
        expiry_grace=physics.expiry_grace,
        late_counts=physics.late_results == "finished",
        client_forgets=physics.client_forgets,
        random_order=physics.tick_order == "random",
        reward=compile_reward(spec.reward, tick, float(jobs.input_bits.mean()), births),
    )


def _require_live_links(
    topology: Topology, jobs: JobTable, rate: np.ndarray, latency: np.ndarray, own: np.ndarray
) -> None:
    """Raise ``ValueError`` for a link on which the largest job would travel for ever."""
    largest = max(jobs.input_bits.max(), jobs.output_bits.max())
    with np.errstate(divide="ignore", over="ignore"):
        ticks = largest / rate + latency
    slowest = int(ticks.argmax())
    if not ticks[slowest] < LONGEST_JOURNEY:
        raise ValueError(
            f"a link of node {topology.names[own[slowest]]} takes {ticks[slowest]:.3g} ticks for "
            f"the largest job: must be below {LONGEST_JOURNEY:g}"
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


def as_scenario(scenario: Scenario | str) -> Scenario:
    """A compiled scenario as it is, or the one of that name."""
    if isinstance(scenario, str):
        return load_scenario(scenario)
    require_kind("scenario", scenario, Scenario, f"a Scenario or one of {', '.join(SCENARIOS)}")
    return scenario
