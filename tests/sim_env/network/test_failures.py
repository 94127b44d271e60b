"""Nodes and links that fail, come back and join late."""

from dataclasses import replace

import numpy as np
import pytest

from sim_env.engine.state import CREATED, FAILURE
from sim_env.evaluation import run_policy
from sim_env.network.failures import DynamicsSpec, Outage, Outages
from sim_env.network.topology import TopologySpec
from sim_env.policies.heuristics import POLICIES, random
from sim_env.scenario import Scenario, ScenarioSpec
from sim_env.world import World


def network(**dynamics: object) -> Scenario:
    """Compile a ring of six nodes with these failures."""
    topology = TopologySpec(kind="ring", nodes=6)
    return Scenario(ScenarioSpec(topology=topology, dynamics=DynamicsSpec(**dynamics)))


def first_source(scenario: Scenario) -> tuple[int, str]:
    """Return the number and the name of a node with a client."""
    node = int(np.flatnonzero(scenario.topology.is_source)[0])
    return node, scenario.topology.names[node]


def changes(scenario: Scenario, until: int, seeds: tuple[int, ...] = (0,)) -> list[tuple]:
    """Return the changes up to a tick as (tick, world, kind, index, up)."""
    return [
        (each.tick, each.world, each.kind, each.index, each.up)
        for each in scenario.outages(seeds).due(until)
    ]


def test_outages_by_schedule_become_ticks() -> None:
    names = network().topology.names
    scenario = network(
        nodes={names[2]: [Outage(2, 6)], names[0]: [Outage(1.5)]},
        links={f"{names[1]}/{names[0]}": [Outage(3, 4)]},
    )
    assert changes(scenario, 100) == [
        (15, 0, "node", 0, False),
        (20, 0, "node", 2, False),
        (30, 0, "link", 0, False),
        (40, 0, "link", 0, True),
        (60, 0, "node", 2, True),
    ]
    assert scenario.outages([0]).links[0].tolist() == [0, 1]


def test_overlapping_outages_count_as_one() -> None:
    name = network().topology.names[1]
    scenario = network(nodes={name: [Outage(1, 3), Outage(2, 5), Outage(5, 6)]})
    # One ends in the tick in which another begins: the node may come back for an instant.
    net = [(tick, up) for tick, _, _, _, up in changes(scenario, 100) if tick != 50]
    assert net == [(10, False), (60, True)]


def test_a_node_that_joins_late_makes_no_tasks_before() -> None:
    node, name = first_source(network())
    late, always = network(nodes={name: [Outage(0, 30)]}), network()
    worlds = [World(scenario, [1, 2]) for scenario in (late, always)]
    for world in worlds:
        world.run(POLICIES["sed"], 300, np.random.default_rng(0))
    assert worlds[0].state.born_at[:, node].tolist() == [0, 0]
    assert worlds[1].state.born_at[:, node].min() > 0
    others = np.arange(6) != node
    assert np.array_equal(worlds[0].state.born_at[:, others], worlds[1].state.born_at[:, others])
    worlds[0].run(POLICIES["sed"], 600, np.random.default_rng(0))
    assert worlds[0].state.born_at[:, node].min() > 0


def test_a_failing_node_loses_what_it_holds_and_what_reaches_it() -> None:
    node, name = first_source(network())
    outages = {name: [Outage(20, 40)]}
    failing, still = World(network(nodes=outages), range(16)), World(network(), range(16))
    for world in (failing, still):
        world.run(POLICIES["random"], 200, np.random.default_rng(0))
    st = still.state
    held = st.num_ready[:, node] + st.num_pending[:, node] + (st.service[:, node] >= 0)
    assert held.sum() > 8
    st = failing.state
    assert np.array_equal(st.total[:, FAILURE], held)
    assert not (st.num_ready[:, node] + st.num_pending[:, node]).any()
    assert np.all(st.service[:, node] < 0)
    assert all(failing.audit().values()), failing.audit()
    failing.run(POLICIES["local"], 150, np.random.default_rng(0))
    assert failing.state.total[:, FAILURE].sum() > held.sum()  # those on the way there


def test_sending_over_a_lost_link_or_to_a_node_that_is_down_is_illegal() -> None:
    names = network().topology.names
    span = [Outage(5, 20)]
    scenario = network(nodes={names[3]: span}, links={f"{names[0]}/{names[1]}": span})
    world = World(scenario, range(8))
    seen_masked = 0
    for _ in range(300):
        seen = world.observe()
        for row in range(len(seen)):
            node = int(seen.node[row])
            for slot, other in enumerate(scenario.net.destinations(node).tolist()):
                cut = 3 in (node, other) or {node, other} == {0, 1}
                if slot and cut:
                    assert seen.mask[row, slot] == (not 50 <= world.now < 200)
                    seen_masked += not seen.mask[row, slot]
                else:
                    assert seen.mask[row, slot]
        world.step(np.zeros((8, 6), np.int32))
    assert seen_masked > 0


def test_failures_at_random_take_their_share_of_the_time() -> None:
    """Check that nodes are down for mttr / (mttf + mttr) of the time, up to 5 standard errors."""
    fail, repair, seconds, worlds = 1 / 20, 1 / 10, 2000, 20
    scenario = network(node_mttf=1 / fail, node_mttr=1 / repair)
    since: dict[tuple[int, int], int] = {}
    down = 0
    for tick, world, _, node, up in changes(scenario, 10 * seconds, tuple(range(worlds))):
        if up:
            down += tick - since.pop((world, node))
        else:
            since[world, node] = tick
    down += sum(10 * seconds - start for start in since.values())
    share = down / (10 * seconds * worlds * 6)
    # Variance of the time in one state of an alternating renewal process, per second.
    variance = 2 * fail * repair / (fail + repair) ** 3
    error = np.sqrt(variance / (seconds * worlds * 6))
    assert abs(share - fail / (fail + repair)) < 5 * error


def test_random_failures_depend_on_the_seed_of_their_world_only() -> None:
    scenario = network(node_mttf=20.0, link_mttf=30.0)
    together = [(t, *rest) for t, world, *rest in changes(scenario, 5000, (3, 4, 5)) if world == 1]
    alone = [(t, *rest) for t, _, *rest in changes(scenario, 5000, (4,))]
    assert together == alone
    assert {kind for _, kind, *_ in alone} == {"node", "link"}


@pytest.mark.parametrize(
    "topology", [TopologySpec(kind="ring", nodes=6), TopologySpec()], ids=["ring", "ether"]
)
def test_arrivals_are_the_same_under_failures_whatever_the_policy(
    topology: TopologySpec,
) -> None:
    spec = ScenarioSpec(
        topology=topology,
        dynamics=DynamicsSpec(node_mttf=60.0, node_mttr=10.0, link_mttf=60.0),
    )
    scenario = Scenario(spec)
    runs = [
        run_policy(scenario, policy, [1, 2], warmup=50, window=500)
        for policy in (*POLICIES.values(), lambda seen, rng: random(seen, rng))
    ]
    for metrics in runs[1:]:
        assert np.array_equal(metrics.born_at, runs[0].born_at)
    assert all(metrics.failure.sum() > 0 for metrics in runs)
    for metrics in runs:  # nothing is lost twice or forgotten
        ends = metrics.finished + metrics.overflow + metrics.deadline + metrics.client
        assert np.array_equal(metrics.created, ends + metrics.failure + metrics.inside)


def test_outages_after_the_end_change_nothing() -> None:
    name = network().topology.names[0]
    still, later = World(network(), [1]), World(network(nodes={name: [Outage(60)]}), [1])
    for world in (still, later):
        world.run(POLICIES["sed"], 600, np.random.default_rng(0))
    assert still.state.total[0, CREATED] > 0
    assert np.array_equal(still.state.total[:, :FAILURE], later.state.total[:, :FAILURE])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": "rpi_0 5-9"}, "dynamics.nodes is 'rpi_0 5-9': must be a mapping of names"),
        (
            {"nodes": {"rpi_0": Outage(1)}},
            "must be a list of outages, such as [{down",
        ),
        ({"nodes": {3: []}}, "key of dynamics.nodes is 3: must be a name, such as rpi_3"),
        ({"links": {"a/b": ["1-2"]}}, "outage in dynamics.links.a/b is '1-2': must be an Outage"),
        ({"nodes": {"rpi_0": [Outage(5, 2)]}}, "dynamics.nodes.rpi_0: up is 2: must be a finite"),
        ({"nodes": {"rpi_0": [Outage(np.nan)]}}, "dynamics.nodes.rpi_0: down is nan: must be"),
        ({"nodes": {"rpi_0": [Outage(-1.0)]}}, "dynamics.nodes.rpi_0: down is -1.0: must be"),
        ({"nodes": {"moon_1": [Outage(1)]}}, "dynamics.nodes: node is 'moon_1': must be one of"),
        ({"links": {"rpi_0": [Outage(1)]}}, "link is 'rpi_0': must be two linked nodes"),
        ({"links": {"rpi_0/moon_1": []}}, "link is 'rpi_0/moon_1': must be two linked nodes"),
        ({"links": {"nuc_0/nuc_0": []}}, "link is 'nuc_0/nuc_0': must be two linked nodes"),
        ({"node_mttf": -1.0}, "dynamics.node_mttf is -1.0: must be"),
        ({"link_mttr": 0.0}, "dynamics.link_mttr is 0.0: must be"),
        ({"node_mttr": float("nan")}, "dynamics.node_mttr is nan"),
    ],
)
def test_impossible_dynamics_get_one_sentence(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match="dynamics") as raised:
        network(**settings)
    assert message in str(raised.value)


def test_the_outages_of_a_network_know_every_slot() -> None:
    scenario = network()
    outages = Outages(replace(DynamicsSpec()), scenario.topology, 0.1, [])
    row = 0
    for node in range(6):
        for other in scenario.net.destinations(node).tolist():
            link = int(outages.link_of[row])
            ends = [node] if link == len(outages.links) else sorted(outages.links[link].tolist())
            assert ends == sorted({node, other})
            row += 1
