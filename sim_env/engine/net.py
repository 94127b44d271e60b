"""The arrays and numbers that the kernel reads, and how they are compiled."""

from typing import NamedTuple

import numpy as np

from sim_env.engine.physics import PhysicsSpec, Quirks
from sim_env.engine.reward import Reward, RewardSpec, compile_reward
from sim_env.network.graph import Topology
from sim_env.network.links import received_power, shannon_rate
from sim_env.network.patterns import by_node
from sim_env.workload.jobs import JobTable
from sim_env.workload.workload import WorkloadSpec, source_rates

NO_DEADLINE = 2**30
LONGEST_JOURNEY = 1e7  # ticks


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
    stated: np.ndarray  # float64 (N,): speed that observations state / speed
    capacity: np.ndarray  # int32 (N,)
    is_agent: np.ndarray  # bool (N,)
    arrivals: np.ndarray  # float64 (N,): tasks per tick
    births: float  # tasks per tick of all streams
    job_work: np.ndarray  # float64 (J,): instructions
    job_input: np.ndarray  # float64 (J,): bits
    job_output: np.ndarray  # float64 (J,): bits
    mean_work: float
    deadline_low: np.ndarray  # int64 (N,): ticks after the birth of a task at this node
    deadline_high: np.ndarray  # int64 (N,): exclusive
    hop_cap: int
    information_delay: int
    cancel_in_service: bool
    events: bool  # whether any quirk differs from the plain tick
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
        """Return the nodes in the slots of a node, itself first."""
        return self.neighbour[self.first[node] : self.first[node + 1]]


def compile_net(
    topology: Topology,
    jobs: JobTable,
    workload: WorkloadSpec,
    physics: PhysicsSpec,
    reward: RewardSpec,
) -> Net:
    """Compile a network, its workload and its physics into arrays.

    Raises
    ------
    ValueError
        If a link would take longer than 1e7 ticks for the largest job, or states a rate that
        the physics do not use; or for a key of a setting that matches none of its nodes.
    """
    tick, quirks = physics.tick, physics.quirks
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
        rate = np.where(touches, float(physics.server_rate), float(physics.rate))
        latency = np.where(touches, float(physics.server_latency), float(physics.latency))
    _set_stated(topology, physics, rate, latency, own == neighbour)
    _require_live_links(topology, jobs, rate * tick, latency / tick, own)
    arrivals = source_rates(workload, topology) * tick
    low, high = _deadlines(topology, workload, tick, arrivals > 0)
    births: np.ndarray = arrivals
    if quirks.serve_neighbours:
        makes = arrivals[neighbour] * (arrivals[own] > 0)  # by the client of each slot's owner
        births = np.bincount(neighbour, makes, topology.num_nodes)
    return Net(
        slots=slots,
        first=first,
        streams=first if quirks.serve_neighbours else np.arange(topology.num_nodes + 1),
        neighbour=neighbour,
        rate=rate * tick,
        latency=latency / tick,
        speed=np.asarray(topology.speed, float) * tick,
        stated=by_node(
            "physics.stated_speed_factors",
            physics.stated_speed_factors,
            topology,
            default=1.0,
            among=np.ones(topology.num_nodes, bool),
        ),
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
        events=quirks != Quirks(),
        lifo=quirks.queue_order == "lifo",
        keep_marks_first=quirks.keep_marks == "first",
        one_per_tick=quirks.arrivals == "one_per_tick",
        serve_neighbours=quirks.serve_neighbours,
        whole_seconds=physics.latency_unit == "second",
        ticks_per_second=1 / tick,
        message_noise=physics.noise_bandwidth == "message" and physics.link == "wireless",
        signal=signal,
        bandwidth=physics.bandwidth,
        self_hop=quirks.self_hop,
        intake_period=quirks.intake_period,
        publish_on_arrival=quirks.publish == "arrival",
        home_shortcut=quirks.home_shortcut,
        cancel_on_arrival=quirks.cancel_on_arrival,
        expiry_grace=quirks.expiry_grace,
        late_counts=quirks.late_results == "finished",
        client_forgets=quirks.client_forgets,
        random_order=quirks.tick_order == "random",
        reward=compile_reward(reward, tick, float(jobs.input_bits.mean()), births, topology),
    )


def _deadlines(
    topology: Topology, workload: WorkloadSpec, tick: float, is_source: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the least time to a deadline of each origin, and the least one beyond, in ticks."""
    factors = by_node(
        "workload.deadline_factors",
        workload.deadline_factors,
        topology,
        default=1.0,
        among=is_source,
        what="a source",
    )
    low = np.rint(workload.deadline_min * factors / tick).astype(np.int64)
    high = np.rint(workload.deadline_max * factors / tick).astype(np.int64)
    if workload.deadline_max == 0:
        low = high = np.full(topology.num_nodes, NO_DEADLINE)
    return low, np.maximum(high, low + 1)


def _set_stated(
    topology: Topology,
    physics: PhysicsSpec,
    rate: np.ndarray,
    latency: np.ndarray,
    own: np.ndarray,
) -> None:
    """Set rate and latency of the links (rows that are not `own`) where the topology states them.

    Raises
    ------
    ValueError
        For a stated rate if the rate depends on the message.
    """
    if topology.link_rate is not None:
        if physics.noise_bandwidth == "message" and physics.link == "wireless":
            raise ValueError(
                "physics.noise_bandwidth is 'message': must be 'link' with a topology whose links "
                "have rates of their own"
            )
        rate[~own] = np.where(np.isnan(topology.rates), rate[~own], topology.rates)
    if topology.link_latency is not None:
        latency[~own] = np.where(np.isnan(topology.latencies), latency[~own], topology.latencies)


def _require_live_links(
    topology: Topology, jobs: JobTable, rate: np.ndarray, latency: np.ndarray, own: np.ndarray
) -> None:
    """Raise ``ValueError`` for a link on which the largest job would practically never arrive."""
    largest = max(jobs.input_bits.max(), jobs.output_bits.max())
    with np.errstate(divide="ignore", over="ignore"):
        ticks = largest / rate + latency
    slowest = int(ticks.argmax())
    if not ticks[slowest] < LONGEST_JOURNEY:
        raise ValueError(
            f"a link of node {topology.names[own[slowest]]} takes {ticks[slowest]:.3g} ticks for "
            f"the largest job: must be below {LONGEST_JOURNEY:g}"
        )
