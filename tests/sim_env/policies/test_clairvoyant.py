"""The clairvoyant: against plain Python, against decisions computed by hand, and as a bound."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_env.engine.state import DEADLINE, FINISHED, MASKED, OFFLOADED, OVERFLOW, RESPONSE
from sim_env.evaluation import run_policy
from sim_env.network.topology import Topology
from sim_env.peersimgym import results as peersimgym
from sim_env.policies.clairvoyant import Clairvoyant, prices
from sim_env.policies.heuristics import BUILT_IN, POLICIES, get_policy
from sim_env.reference.clairvoyant import decide
from sim_env.reference.world import ReferenceWorld, Task
from sim_env.scenario import PhysicsSpec, Scenario, ScenarioSpec
from sim_env.workload.jobs import JobTable
from sim_env.workload.workload import WorkloadSpec
from sim_env.world import World
from tests.conftest import small_scenarios

CLAIRVOYANT = BUILT_IN["clairvoyant"]
# Where the compiled world counts what the plain one has under this name.
COLUMNS = {
    "finished": FINISHED,
    "overflow": OVERFLOW,
    "deadline": DEADLINE,
    "response": RESPONSE,
    "masked": MASKED,
    "offloaded": OFFLOADED,
}


def run(scenario: Scenario, name: str, seeds: list[int], ticks: int) -> World:
    """Run worlds under a policy and audit them."""
    world = World(scenario, seeds)
    world.run(BUILT_IN[name], ticks, np.random.default_rng(0))
    assert all(world.audit().values()), world.audit()
    return world


@settings(max_examples=60)
@given(small_scenarios(), st.integers(0, 2**63))
def test_it_equals_the_plain_one_tick_by_tick(scenario: Scenario, seed: int) -> None:
    compiled, plain = World(scenario, [seed]), ReferenceWorld(scenario, seed)
    for _ in range(60):
        compiled.run(CLAIRVOYANT, 1, np.random.default_rng(0))
        plain.step(decide(plain, scenario.rho))
        for n, node in enumerate(plain.nodes):
            load = sum(
                getattr(compiled.state, f"num_{kind}")[0, n] for kind in ("ready", "pending")
            ) + (compiled.state.service[0, n] >= 0)
            assert load == node.load
        for name, column in COLUMNS.items():
            assert compiled.state.total[0, column] == plain.counts[name]
    assert plain.counts["masked"] == 0  # every action was legal


@settings(max_examples=20)
@given(small_scenarios(), st.integers(0, 2**63))
def test_parts_of_a_run_make_the_same_run(scenario: Scenario, seed: int) -> None:
    """Worlds together or alone, ticks at once or in parts."""
    together = run(scenario, "clairvoyant", [seed, seed + 1], 80)
    alone = World(scenario, [seed + 1])
    for ticks in (1, 30, 49):
        alone.run(CLAIRVOYANT, ticks, np.random.default_rng(1))
    assert np.array_equal(together.state.total[1], alone.state.total[0])


@settings(max_examples=20)
@given(small_scenarios(), st.integers(0, 2**63))
def test_without_a_neighbour_to_send_to_it_is_local(scenario: Scenario, seed: int) -> None:
    spec = dataclasses.replace(
        scenario.spec, physics=dataclasses.replace(scenario.spec.physics, hop_cap=0)
    )
    alone = Scenario(spec, topology=scenario.topology, jobs=scenario.jobs)
    mine, local = (run(alone, name, [seed], 120) for name in ("clairvoyant", "local"))
    assert np.array_equal(mine.state.total, local.state.total)


# ---- a chain of three nodes, whose numbers are easy --------------------------------------------


def chain(speeds: list[float], capacity: int = 10, agents: int = 3) -> Scenario:
    """Return a - b - c; a task has 10 instructions, a hop takes 5 ticks; speeds are per tick."""
    topology = Topology(
        names=["a", "b", "c"],
        roles=["rpi", "rpi", "rpi"],
        speed=np.array(speeds) * 10,  # a tick is 0.1 s
        capacity=np.array([capacity] * 3),
        position=np.zeros((3, 2)),
        neighbours=[[1], [0, 2], [1]],
        is_agent=np.arange(3) < agents,
        is_source=np.array([True, False, False]),
    )
    jobs = JobTable(np.array([10.0]), np.array([50.0]), np.array([50.0]))
    physics = PhysicsSpec(link="fixed", rate=100.0)
    workload = WorkloadSpec(rate=1e-6, deadline_min=10.0, deadline_max=10.0)
    return Scenario(ScenarioSpec(physics=physics, workload=workload), topology, jobs)


def put(world: ReferenceWorld, node: int, works: list[float], deadline: int = 100) -> list[Task]:
    """Put undecided tasks with some work into a queue."""
    serial = world.counts["created"]
    world.counts["created"] += len(works)
    tasks = [
        Task(serial + i, 0, 0, deadline, node, work, receiver=node) for i, work in enumerate(works)
    ]
    world.nodes[node].queue += tasks
    return tasks


def choice(
    scenario: Scenario,
    busy: dict[int, list[float]],
    node: int = 0,
    behind: int = 0,
    rho: float = 0.0,
    **task: int,
) -> int:
    """Return where the task of a node goes.

    The queues hold some decided work, and so many undecided tasks are behind it in its own.
    """
    world = ReferenceWorld(scenario, 0)
    for n, works in busy.items():
        for each in put(world, n, works):
            each.decided = True
    put(world, node, [10.0] * (1 + behind), **task)
    return decide(world, rho)[node]


@pytest.mark.parametrize(
    ("speeds", "busy", "chosen"),
    [
        ([1, 1, 1], {}, 0),  # 10 here; 5 + 10 + 5 there
        ([1, 100, 1], {}, 0),  # 10 here; 5 + 1 + 5
        ([0.5, 100, 1], {}, 1),  # 20 here; 11
        ([1, 100, 1], {0: [2.0]}, 1),  # 12 here; 11
        ([1, 100, 1], {0: [2.0], 1: [800.0]}, 0),  # 12 here; 8 ticks of queue: 8 + 1 + 5
        ([1, 100, 1], {0: [2.0], 1: [500.0]}, 1),  # the queue is empty when the task arrives
        ([0.1, 1, 100], {1: [90.0]}, 1),  # 100 here is too late; b at 90 + 10 + 5; c by b, 22
    ],
)
def test_decisions(speeds: list[float], busy: dict[int, list[float]], chosen: int) -> None:
    assert choice(chain(speeds), busy) == chosen


def test_it_looks_two_hops_ahead_by_a_busy_agent_only() -> None:
    """25 ticks here; by b, which is busy, to c: 5 + 1 + 5, then 1 or 10 there, and 10 back."""
    busy = {0: [15.0], 1: [80.0]}
    assert choice(chain([1, 1, 100]), busy) == 1
    assert choice(chain([1, 1, 1]), busy) == 0
    assert choice(chain([1, 1, 100], agents=1), busy) == 0  # b would keep it


def test_it_avoids_a_full_queue_and_a_missed_deadline() -> None:
    assert choice(chain([0.5, 100, 1], capacity=1), {1: [10_000.0]}) == 0
    assert choice(chain([0.5, 100, 1], capacity=1), {1: [100.0]}) == 1  # it has left by then
    assert choice(chain([1, 100, 1]), {0: [2.0]}, deadline=11) == 1
    assert choice(chain([1, 2, 1]), {0: [1.0]}, deadline=11) == 0


def test_under_heavy_load_a_task_that_delays_many_is_lost_on_purpose() -> None:
    """Here it takes 90 ticks, and delays each task behind it as long; the queue of b is full."""
    scenario = chain([1 / 9, 1, 1], capacity=10)
    full = {1: [1000.0] * 10}
    assert choice(scenario, full, behind=7, rho=1.0) == 0  # 90 + 7 x 90 = 720; lost 8 x 100
    assert choice(scenario, full, behind=9, rho=1.0) == 1  # 90 + 9 x 90 = 900
    assert choice(scenario, full, behind=9, rho=0.5) == 0  # lost 8 x 100 / 0.5^3


def test_a_place_in_a_queue_has_a_price_from_half_of_its_capacity_on() -> None:
    """11 ticks here behind small tasks, 20 at b: 9 more; a place costs up to 0.3 x 100."""
    scenario = chain([1, 1, 1], capacity=10)
    assert choice(scenario, {0: [0.01] * 5}) == 0  # nothing
    assert choice(scenario, {0: [0.01] * 6}) == 0  # 0.2 of it: 6
    assert choice(scenario, {0: [0.01] * 7}) == 1  # 0.4 of it: 12


def test_a_decision_knows_those_before_it_in_the_same_tick() -> None:
    """Agents a and c both find b the fastest; the second one would wait there."""
    scenario = chain([0.5, 1, 0.55])
    world = ReferenceWorld(scenario, 0)
    for n in (0, 2):
        for each in put(world, n, [3.0]):
            each.decided = True
    put(world, 0, [10.0])
    put(world, 2, [10.0])
    assert decide(world, scenario.rho) == [1, 0, 0]  # 26 or 20; then 24 or 30
    alone = ReferenceWorld(scenario, 0)
    put(alone, 2, [3.0])[0].decided = True
    put(alone, 2, [10.0])
    assert decide(alone, scenario.rho)[2] == 1


@given(
    st.lists(st.floats(0.3, 30.0), min_size=3, max_size=3),
    st.integers(0, 2),
)
def test_on_a_network_without_load_it_takes_the_fastest_end(speeds: list[float], n: int) -> None:
    scenario = chain(speeds, agents=3)
    neighbours = [[0, 1], [1, 0, 2], [2, 1]][n]
    ends = [np.ceil(10.0 / speeds[m] - 1e-9) + (0 if m == n else 10) for m in neighbours]
    chosen = choice(scenario, {}, node=n)
    assert ends[chosen] == min(ends)


# ---- as a policy ---------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [{"rate": 1.0}, {"rate": 4.0}])
def test_it_is_not_behind_the_heuristics(overrides: dict[str, float]) -> None:
    """In the mean over four worlds of development, by finished tasks and by the response."""
    scenario = Scenario(ScenarioSpec(workload=WorkloadSpec(**overrides)))
    seeds = range(1_000_000, 1_000_004)
    mine = run_policy(scenario, CLAIRVOYANT, seeds)
    for name in ("sed", "lq"):
        theirs = run_policy(scenario, POLICIES[name], seeds)
        assert mine.finished_ratio.mean() >= theirs.finished_ratio.mean() - 2e-4
        assert mine.mean_response.mean() < theirs.mean_response.mean()


def test_it_runs_under_the_quirks_of_the_original_simulator() -> None:
    scenario = Scenario(ScenarioSpec(physics=peersimgym.PHYSICS))
    world = run(scenario, "clairvoyant", [1, 2], 400)
    assert world.state.total[:, FINISHED].min() > 0
    assert world.state.total[:, MASKED].max() == 0


def test_its_scratch_space_grows_with_the_pool_of_tasks() -> None:
    workload = WorkloadSpec(rate=200.0, deadline_min=100.0, deadline_max=100.0)
    scenario = Scenario(ScenarioSpec(workload=workload))
    world = World(scenario, [1])
    before = world.state.kind.shape[1]
    world.run(CLAIRVOYANT, 20, np.random.default_rng(0))
    assert world.state.kind.shape[1] > before
    assert all(world.audit().values())


def test_prices_at_no_load_are_finite() -> None:
    assert all(np.isfinite(prices(0.0)))
    assert prices(5.0) == prices(1.0)


def test_it_cannot_stand_in_for_one_agent() -> None:
    seen = World(Scenario(ScenarioSpec()), [1]).observe()
    assert isinstance(get_policy("clairvoyant"), Clairvoyant)
    with pytest.raises(ValueError, match="clairvoyant cannot decide by an observation"):
        CLAIRVOYANT(seen, np.random.default_rng(0))
