"""Small worlds for the tests, drawn by hypothesis."""

import signal

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sim_env.engine.reward import REWARDS, RewardSpec
from sim_env.network.failures import DynamicsSpec, Outage
from sim_env.network.topology import Topology
from sim_env.scenario import PhysicsSpec, Quirks, Scenario, ScenarioSpec
from sim_env.workload.schedule import Step
from sim_env.workload.workload import JobTable, Schedule, WorkloadSpec

settings.register_profile(
    "project",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("project")

# A shell starts its background jobs with SIGINT ignored, and so would be the commands that are
# interrupted here.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


STEPS = [Step(0, 1.5), Step(3, 1), Step(0.5, 9)]
# The first node is a source and decides, and its role is not that of the last one.
FACTORS = st.dictionaries(st.sampled_from(["*", "rpi", "node_0"]), st.sampled_from([0.3, 1.0, 2.5]))


@st.composite
def small_scenarios(draw: st.DrawFn, options: st.SearchStrategy | None = None) -> Scenario:
    """Draw a connected network of 2 to 6 nodes under stress: small queues and short deadlines.

    `options` draws further settings of the physics and its quirks.
    """
    further = {} if options is None else draw(options)
    quirks = {name: further.pop(name) for name in list(further) if hasattr(Quirks, name)}
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes = draw(st.integers(2, 6))
    edges = {(i, int(rng.integers(i))) for i in range(1, nodes)}
    edges |= {(i, j) for i in range(nodes) for j in range(i) if rng.random() < 0.3}
    neighbours = [
        sorted([b for a, b in edges if a == n] + [a for a, b in edges if b == n])
        for n in range(nodes)
    ]
    is_agent = rng.random(nodes) < 0.8
    is_source = rng.random(nodes) < 0.7
    is_agent[0] = is_source[0] = True
    topology = Topology(
        names=[f"node_{n}" for n in range(nodes)],
        roles=["server" if n == nodes - 1 else "rpi" for n in range(nodes)],
        speed=rng.uniform(1e6, 2e7, nodes),
        capacity=rng.integers(1, 8, nodes),
        position=rng.uniform(0, 100, (nodes, 2)),
        neighbours=neighbours,
        is_agent=is_agent,
        is_source=is_source,
    )
    count = draw(st.integers(1, 5))
    jobs = JobTable(
        instructions=rng.choice([0.0, 1e5, 1e6, 5e6, 4e7], count),
        input_bits=rng.uniform(0, 4e7, count),
        output_bits=rng.uniform(0, 4e7, count),
    )
    low = draw(st.sampled_from([0.0, 0.1, 0.5, 3.0]))
    high = draw(st.sampled_from([low, low + 0.2, low + 10.0]))
    link = draw(st.sampled_from(["wireless", "fixed"]))
    latency = draw(st.sampled_from([0.0, 0.2, 150.0]))
    fixed = {"rate": 1e8, "server_latency": latency} if link == "fixed" else {}
    if link == "fixed":
        further.pop("noise_bandwidth", None)
    kind = draw(st.sampled_from(REWARDS))
    weight = draw(st.sampled_from([0.0, 3.0]))
    by_ends = kind in ("sparse", "outcome")
    terms = {} if by_ends else {"overload_weight": weight, "delay_factors": draw(FACTORS)}
    if by_ends or weight:
        terms["loss_factors"] = draw(FACTORS)
    spec = ScenarioSpec(
        workload=WorkloadSpec(
            rate=draw(st.sampled_from([0.5, 3.0, 20.0])),
            deadline_min=low,
            deadline_max=high,
            deadline_factors=draw(FACTORS) if high else {},
            schedule=draw(st.sampled_from([Schedule(), Schedule("steps", steps=STEPS)])),
        ),
        physics=PhysicsSpec(
            link=link,
            **fixed,
            hop_cap=draw(st.sampled_from([0, 1, 8])),
            information_delay=draw(st.sampled_from([0, 1, 4] if options is None else [1, 3])),
            stated_speed_factors=draw(FACTORS),
            cancel_in_service=draw(st.booleans()),
            quirks=Quirks(**quirks),
            **further,
        ),
        reward=RewardSpec(
            kind=kind,
            utility=draw(st.sampled_from([1.0, 10.0])),
            **terms,
        ),
        dynamics=draw(
            st.sampled_from(
                [
                    DynamicsSpec(),
                    DynamicsSpec(
                        nodes={
                            "node_0": [Outage(0, 1.1), Outage(0.5, 2.5)],
                            "node_1": [Outage(1, 2)],
                        }
                    ),
                    DynamicsSpec(links={"node_1/node_0": [Outage(0.7, 3)]}),
                    DynamicsSpec(node_mttf=3.0, node_mttr=0.5, link_mttf=2.0, link_mttr=1.0),
                ]
            )
        ),
    )
    return Scenario(spec, topology=topology, jobs=jobs)
