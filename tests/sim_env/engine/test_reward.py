"""Rewards against numbers computed by hand and against the counters of the world."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_env.engine.features import QUEUE, SPEED
from sim_env.engine.observation import Observation
from sim_env.engine.reward import DECIDED_FINISHED, DECIDED_LOST, REWARDS, RewardSpec
from sim_env.engine.state import CLIENT, DEADLINE, DECIDERS, FINISHED, FREE, OVERFLOW
from sim_env.envs.parallel import EdgeParallelEnv
from sim_env.envs.single import EdgeEnv
from sim_env.envs.vector import EdgeVectorEnv
from sim_env.network.topology import Topology
from sim_env.reference.world import ReferenceWorld
from sim_env.scenario import PhysicsSpec, Scenario, ScenarioSpec, balanced
from sim_env.workload.workload import JobTable, WorkloadSpec
from sim_env.world import World
from tests.conftest import small_scenarios


def chain(
    reward: RewardSpec,
    rate: float = 5.0,
    deadline: float = 20.0,
    latency: float = 0.05,
    hop_cap: int = 8,
    speed: tuple[float, ...] = (2e6, 4e6, 8e6),
) -> Scenario:
    """Compile three nodes in a row; tasks are born at the first."""
    topology = Topology(
        names=["a", "b", "c"],
        roles=["rpi"] * 3,
        speed=np.array(speed),
        capacity=np.array([4, 5, 10]),
        position=np.zeros((3, 2)),
        neighbours=[[1], [0, 2], [1]],
        is_agent=np.ones(3, bool),
        is_source=np.array([True, False, False]),
    )
    jobs = JobTable(np.array([4e5, 8e5]), np.array([1e6, 3e6]), np.array([1e6, 1e6]))
    spec = ScenarioSpec(
        workload=WorkloadSpec(rate=rate, deadline_min=deadline, deadline_max=deadline),
        physics=PhysicsSpec(link="fixed", rate=1e7, latency=latency, hop_cap=hop_cap),
        reward=reward,
    )
    return Scenario(spec, topology=topology, jobs=jobs)


def decision(scenario: Scenario, queue: int = 3) -> Observation:
    """Return the first decision with `queue` tasks at the node; the world keeps everything."""
    world = World(scenario, [0])
    while not (len(seen := world.observe()) and seen.destination[0, 0, QUEUE] == queue):
        world.step(np.zeros((1, 3), np.int32))
    return seen


def test_peersimgym_dense_by_hand() -> None:
    """A mean job has 6e5 instructions and 2e6 bits: 3 ticks here, 1.5 there, 0.25 s on the link."""
    reward = RewardSpec("peersimgym_dense", utility=10.0, overload_weight=2.0)
    seen = decision(chain(reward), queue=3)
    assert seen.node.tolist() == [0]
    # Here two tasks go before, 5 births per second come and 1/3 of a job is served in a tick.
    keep = 2 * 3.0
    assert seen.reward[0, 0] == pytest.approx(10 - keep + 2 * math.log10(1 - (3 + 0.5 - 1 / 3) / 4))
    # The neighbour is empty and serves 2/3 of a job in a tick.
    send = 2 * 3.0 + 0.25 - 1.5
    assert seen.reward[0, 1] == pytest.approx(10 - send + 2 * math.log10(1 - (1 - 2 / 3) / 5))


@pytest.mark.parametrize(
    ("cap", "keep", "send"),
    [("queue_cap", 6.0, 6.0), ("exec_cap", 0.0, -1.5), ("comm_cap", 0.0, 0.25)],
)
def test_a_cap_limits_one_delay_of_peersimgym_dense(cap: str, keep: float, send: float) -> None:
    """With one cap open and the others 0 that delay is all that a decision costs."""
    caps = {"queue_cap": 0.0, "exec_cap": 0.0, "comm_cap": 0.0}
    for limit in (100.0, 0.1, 0.0):
        spec = RewardSpec("peersimgym_dense", 2.0, overload_weight=0.0, **{**caps, cap: limit})
        seen = decision(chain(spec))
        cost = [min(max(each, -2 * limit), 2 * limit) for each in (keep, send)]
        np.testing.assert_allclose(2.0 - seen.reward[0, :2], cost, atol=1e-12)


def test_births_that_neighbours_make_for_a_node_count_in_peersimgym_dense() -> None:
    spec = RewardSpec("peersimgym_dense")
    assert chain(spec).net.reward.births.tolist() == [0.5, 0, 0]
    both = balanced()
    both.physics.quirks.serve_neighbours = True
    both.topology.kind = "full"
    scenario = Scenario(both)
    sources = scenario.net.arrivals > 0
    assert np.all(scenario.net.reward.births[~sources] == 0)
    np.testing.assert_allclose(
        scenario.net.reward.births[sources], scenario.net.arrivals[sources] * sources.sum()
    )


@settings(max_examples=60)
@given(small_scenarios(st.just({})), st.integers(0, 2**32 - 1))
def test_sparse_rewards_add_up_to_the_counters(scenario: Scenario, seed: int) -> None:
    """All nodes together earn U (finished - f (overflow + deadline)) under any policy."""
    spec = scenario.spec
    spec.reward = RewardSpec("sparse", utility=2.5, loss_factors={"*": 3.0})
    scenario.topology.is_agent[:] = True
    world = World(Scenario(spec, scenario.topology, scenario.jobs), [seed])
    rng, total = np.random.default_rng(seed), 0.0
    for _ in range(60):
        world.step(rng.integers(-1, 4, (1, world.num_nodes)).astype(np.int32))
        total += world.collect().sum()
    count = world.state.total[0]
    assert total == 2.5 * (count[FINISHED] - 3 * (count[OVERFLOW] + count[DEADLINE]))
    assert not world.collect().any()


@pytest.mark.parametrize(("latency", "deadline", "pay"), [(0.05, 20.0, 3.0), (2.0, 1.0, -3.0)])
def test_every_decision_earns_when_its_task_ends(
    latency: float, deadline: float, pay: float
) -> None:
    """A sends to b, b to c, c keeps. All finish; or all that are sent miss their deadline.

    A loss costs a twice as much as the others, a gain is the same for all.
    """
    slower = (2e6, 1.5e6, 1e6)
    spec = RewardSpec("outcome", utility=3.0, loss_factors={"a": 2.0})
    pays = pay * np.array([2.0 if pay < 0 else 1.0, 1.0, 1.0])
    world = World(chain(spec, 3.0, deadline, latency, speed=slower), [4])
    state, deciders, longest = world.state, {}, 0
    for _ in range(600):
        actions = np.zeros((1, 3), np.int32)
        for n in world.observe().node:
            actions[0, n] = (1, 2, 0)[n]
            serial = int(state.serial[0, state.pending_head[0, n]])
            deciders.setdefault(serial, []).append(int(n))
        world.step(actions)
        alive = set(state.serial[0, state.kind[0] != FREE].tolist())
        expected = np.zeros(3)
        for serial in [serial for serial in deciders if serial not in alive]:
            ended = deciders.pop(serial)
            longest = max(longest, len(ended))
            np.add.at(expected, ended, pays[ended])
        assert world.collect()[0].tolist() == expected.tolist()
    lost = state.total[0, [OVERFLOW, DEADLINE, CLIENT]].sum()
    assert state.total[0, FINISHED] > 100
    assert lost > 20 if pay < 0 else lost == 0
    assert longest == (3 if pay > 0 else 1)


def test_of_a_long_journey_only_the_newest_decisions_earn() -> None:
    """Nodes too slow to finish anything send each other every task until its deadline."""
    scenario = chain(RewardSpec("outcome"), 1.0, hop_cap=100, speed=(10.0, 10.0, 10.0))
    world, reference = World(scenario, [2]), ReferenceWorld(scenario, 2)
    hops = 0
    for _ in range(500):
        actions = np.array([[1, 1, 1]], np.int32)
        hops = max(hops, int(world.state.hops[0, world.state.kind[0] != FREE].max(initial=0)))
        world.step(actions)
        reference.step(actions[0].tolist())
        assert world.state.ends[0, :, [DECIDED_FINISHED, DECIDED_LOST]].T.tolist() == [
            [node.decided_finished, node.decided_lost] for node in reference.nodes
        ]
    lost = world.state.total[0, [OVERFLOW, DEADLINE]].sum()
    assert hops > 2 * DECIDERS
    assert lost > 20
    assert not world.state.ends[0, :, DECIDED_FINISHED].any()
    assert 0 < world.state.ends[0, :, DECIDED_LOST].sum() <= DECIDERS * lost


def reward_of(kind: str, **options: float) -> Scenario:
    """Compile the balanced scenario with another reward."""
    spec = balanced()
    spec.reward = RewardSpec(kind, **options)
    return Scenario(spec)


def test_the_environments_return_what_was_earned_in_the_step() -> None:
    """Sparse, everything kept: each agent is paid for its own tasks alone."""
    env = EdgeParallelEnv(reward_of("sparse"), horizon=400)
    env.reset(seed=3)
    assert env.world is not None
    earned = dict.fromkeys(env.agents, 0.0)
    while env.agents:
        for name, reward in env.step({})[1].items():
            earned[name] += reward
    count = env.world.state.total[0]
    assert sum(earned.values()) == count[FINISHED] - count[OVERFLOW] - count[DEADLINE]
    finished = env.world.state.finished_at[0]
    names = env.scenario.topology.names
    assert all(earned[names[n]] <= finished[n] for n in env.scenario.agents)
    assert count[DEADLINE] > 0


def test_what_was_earned_in_the_warmup_is_not_of_the_episode() -> None:
    env = EdgeVectorEnv(reward_of("sparse"), 0, num_envs=2, peers="local", warmup=300, horizon=1)
    env.reset(seed=1)
    reward = env.step(np.zeros(2, int))[1]
    assert np.abs(reward).max() <= 5
    assert env.world is not None
    assert env.world.state.finished_at[:, 0].min() > 50


@pytest.mark.parametrize("kind", REWARDS)
def test_a_tick_without_a_decision_earns_no_op(kind: str) -> None:
    with_it, without = (EdgeEnv(reward_of(kind, no_op=value), 6) for value in (0.25, 0.0))
    view, _ = with_it.reset(seed=2)
    without.reset(seed=2)
    idle = 0
    for _ in range(80):
        bonus = 0.0 if view["local"][0] else 0.25
        idle += bonus > 0
        view, reward, *_ = with_it.step(0)
        assert reward == without.step(0)[1] + bonus
    assert 0 < idle < 80


@pytest.mark.parametrize("kind", ["sparse", "outcome"])
def test_a_decision_announces_nothing_where_ends_earn(kind: str) -> None:
    seen = decision(chain(RewardSpec(kind)))
    assert not seen.reward.any()
    assert seen.destination[0, 1, SPEED] > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "dense"}, "reward.kind is 'dense': must be one of delay, peersimgym_dense"),
        ({"no_op": math.nan}, "reward.no_op is nan"),
        ({"comm_cap": -1.0}, "reward.comm_cap is -1.0: must be a finite number at least 0"),
        ({"scale": 0.0}, "reward.scale is 0.0"),
        ({"loss_factors": {"rpi": -1.0}}, "reward.loss_factors.rpi is -1.0: must be a finite"),
        ({"delay_factors": 2.0}, "reward.delay_factors is 2.0: must be a mapping"),
        (
            {"kind": "sparse", "delay_factors": {"rpi": 2.0}},
            "reward.delay_factors is {'rpi': 2.0}: has no effect with reward.kind=sparse",
        ),
        (
            {"kind": "my:own", "loss_factors": {"rpi": 2.0}},
            "reward.loss_factors is {'rpi': 2.0}: has no effect with reward.kind=my:own",
        ),
        (
            {"overload_weight": 0.0, "loss_factors": {"rpi": 2.0}},
            "loss_factors is {'rpi': 2.0}: has no effect with reward.overload_weight=0.0",
        ),
    ],
)
def test_bad_rewards_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        RewardSpec(**options)
