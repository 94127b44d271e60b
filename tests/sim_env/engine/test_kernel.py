"""The compiled kernel equals the plain-Python reference, tick by tick."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_env.audit import chain
from sim_env.engine import features, reward
from sim_env.engine import state as states
from sim_env.policies.heuristics import POLICIES
from sim_env.reference.world import ReferenceWorld
from sim_env.scenario import Scenario, load_scenario
from sim_env.world import World
from tests.conftest import small_scenarios

NAMES = {
    "created": states.CREATED,
    "finished": states.FINISHED,
    "overflow": states.OVERFLOW,
    "deadline": states.DEADLINE,
    "client": states.CLIENT,
    "failure": states.FAILURE,
    "response": states.RESPONSE,
    "masked": states.MASKED,
    "offloaded": states.OFFLOADED,
}


def assert_equal_tasks(world: World, b: int, reference: ReferenceWorld) -> None:
    """Assert that every queue, every task in flight and every counter is the same."""
    state = world.state

    def fields(task: int) -> tuple:
        names = ("serial", "job", "born", "deadline", "origin", "work", "sender", "hops", "back")
        return tuple(getattr(state, name)[b, task].item() for name in names)

    def reference_fields(task) -> tuple:
        return tuple(
            value
            for name, value in vars(task).items()
            if name not in ("decided", "deciders", "receiver", "from_receiver")
        )

    for n, node in enumerate(reference.nodes):
        for head, queue in (
            (state.ready_head[b, n], [task for task in node.queue if task.decided]),
            (state.pending_head[b, n], [task for task in node.queue if not task.decided]),
            (state.intake_head[b, n], node.intake),
        ):
            assert [fields(task) for task in chain(state, b, head)] == [
                reference_fields(task) for task in queue
            ]
        served = state.service[b, n]
        assert (fields(served) if served >= 0 else None) == (
            reference_fields(node.service) if node.service else None
        )
        assert state.incoming[b, n] == node.incoming
        if world.net.reward.kind in (reward.SPARSE, reward.OUTCOME):
            own = (node.own_finished, node.dropped_here)
            assert tuple(state.ends[b, n, :2]) == own
        if world.net.reward.kind == reward.OUTCOME:
            assert tuple(state.ends[b, n, 2:]) == (node.decided_finished, node.decided_lost)
    travelling = [task for head in state.wheel_head[b] for task in chain(state, b, head)]
    assert sorted(
        (*fields(task), state.due[b, task].item(), state.kind[b, task] == states.RETURNING)
        for task in travelling
    ) == sorted((*reference_fields(j.task), j.due, j.kind == "result") for j in reference.journeys)
    for name, column in NAMES.items():
        assert state.total[b, column] == reference.counts[name], name
    # The window is all of time here, so the cohort is everything.
    cohort = [column for name, column in NAMES.items() if name not in ("masked", "offloaded")]
    assert np.array_equal(state.cohort[b, cohort], state.total[b, cohort])
    assert state.born_at[b].sum() == reference.counts["created"]
    assert state.finished_at[b].sum() == reference.counts["finished"]
    assert (state.histogram[b] * np.arange(states.BINS)).sum() == reference.counts["response"]


def assert_equal_views(world: World, references: list[ReferenceWorld]) -> None:
    """Assert that every agent observes the same in both."""
    seen = world.observe()
    columns = {
        "queue": features.QUEUE,
        "wait": features.WAIT,
        "execute": features.EXECUTE,
        "send": features.SEND,
        "back": features.BACK,
    }
    for row, (b, n) in enumerate(zip(seen.world, seen.node, strict=True)):
        node, task = references[b].nodes[n], references[b].nodes[n].undecided
        waiting = sum(each.work for each in node.queue)
        served = node.service.work if node.service else 0.0
        stated = world.net.speed * world.net.stated
        decided = sum(each.decided for each in node.queue)
        np.testing.assert_allclose(
            seen.local[row],
            [
                *(len(node.queue) - decided, decided, node.load),
                (waiting + served) / stated[n],
                world.net.job_work[task.job],
                *(world.net.job_input[task.job] / 8e6, world.net.job_output[task.job] / 8e6),
                *(task.deadline - world.now, task.hops, node.incoming),
            ],
            rtol=1e-12,
        )
        senders = seen.destination[row, :, features.IS_SENDER]
        here = world.net.destinations(n)
        assert senders[: len(here)].tolist() == [
            k > 0 and m == task.sender for k, m in enumerate(here)
        ]
        assert not senders[len(here) :].any()
        assert np.array_equal(seen.destination[row, : len(here), features.SPEED], stated[here])
    expected = [(b, n, slots) for b, r in enumerate(references) for n, slots in r.observe().items()]
    assert [(b, n) for b, n, _ in expected] == list(zip(seen.world, seen.node, strict=True))
    for row, (_, _, slots) in enumerate(expected):
        for k, slot in enumerate(slots):
            for name, column in columns.items():
                assert seen.destination[row, k, column] == pytest.approx(slot[name], rel=1e-12)
            assert seen.mask[row, k] == slot["legal"]
            assert seen.reward[row, k] == pytest.approx(slot["reward"], rel=1e-12)
        assert not seen.mask[row, len(slots) :].any()


def run_both(scenario: Scenario, seeds: list[int], ticks: int, rng: np.random.Generator) -> World:
    """Step kernel and reference with the same random actions, illegal ones among them."""
    world = World(scenario, seeds)
    references = [ReferenceWorld(scenario, seed) for seed in seeds]
    slots = scenario.net.slots
    for _ in range(ticks):
        actions = rng.integers(-1, slots + 1, (len(seeds), len(slots))).astype(np.int32)
        actions[rng.random(actions.shape) < 0.3] = 0
        world.step(actions)
        for b, reference in enumerate(references):
            reference.step(actions[b].tolist())
            assert_equal_tasks(world, b, reference)
        assert_equal_views(world, references)
    return world


@settings(max_examples=250)
@given(small_scenarios(), st.integers(0, 2**63), st.integers(0, 2**32 - 1))
def test_kernel_equals_reference(scenario: Scenario, seed: int, actions: int) -> None:
    world = run_both(scenario, [seed, seed + 1], 40, np.random.default_rng(actions))
    assert all(world.audit().values()), world.audit()


ODD = {
    "queue_order": "lifo",
    "keep_marks": "first",
    "arrivals": "one_per_tick",
    "serve_neighbours": True,
    "latency_unit": "second",
    "noise_bandwidth": "message",
    "self_hop": 1,
    "intake_period": 2,
    "publish": "arrival",
    "home_shortcut": True,
    "cancel_on_arrival": False,
    "expiry_grace": 5,
    "late_results": "finished",
    "client_forgets": True,
    "tick_order": "random",
}


@pytest.mark.parametrize("option", ODD)
def test_kernel_equals_reference_with_each_option_alone(option: str) -> None:
    """Every option of the original simulator, and nothing else changed."""

    @settings(max_examples=12)
    @given(small_scenarios(st.just({option: ODD[option]})), st.integers(0, 2**32 - 1))
    def check(scenario: Scenario, seed: int) -> None:
        world = run_both(scenario, [seed], 40, np.random.default_rng(seed))
        assert all(world.audit().values()), world.audit()

    check()


@settings(max_examples=80)
@given(
    small_scenarios(st.fixed_dictionaries({}, optional={k: st.just(v) for k, v in ODD.items()})),
    st.integers(0, 2**32 - 1),
)
def test_kernel_equals_reference_with_options_together(scenario: Scenario, seed: int) -> None:
    world = run_both(scenario, [seed, seed + 1], 40, np.random.default_rng(seed))
    assert all(world.audit().values()), world.audit()


@pytest.mark.parametrize("name", ["ether2", "balanced"])
def test_kernel_equals_reference_on_the_registered_scenarios(name: str) -> None:
    """Long enough for results to come home and for deadlines to pass."""
    world = run_both(load_scenario(name), [7], 700, np.random.default_rng(0))
    assert world.state.total[0, states.FINISHED] > 100
    assert world.state.total[0, states.DEADLINE] > 0


def test_pool_grows_without_losing_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim_env.world.FIRST_POOL", 8)
    world = run_both(load_scenario("balanced"), [1], 600, np.random.default_rng(3))
    assert world.state.kind.shape[1] >= 256
    assert all(world.audit().values()), world.audit()


def test_a_world_depends_on_its_own_seed_only() -> None:
    scenario = load_scenario("ether2")
    together, alone = World(scenario, [3, 4, 5]), World(scenario, [4])
    for _ in range(200):
        together.step(np.ones((3, 23), np.int32))
        alone.step(np.ones((1, 23), np.int32))
    assert np.array_equal(together.state.total[1], alone.state.total[0])
    assert not np.array_equal(together.state.total[0], together.state.total[1])


def test_tasks_on_their_way_to_a_neighbour_are_counted_by_link() -> None:
    world = World("ether2", [1, 2])
    for _ in range(8):
        world.run(POLICIES["random"], 25, np.random.default_rng(0))
        net, state = world.net, world.state
        expected = np.zeros(len(net.neighbour))
        for b, task in zip(*np.nonzero(state.kind == states.OUTBOUND), strict=True):
            sender, place = int(state.sender[b, task]), int(state.place[b, task])
            slot = net.destinations(sender).tolist().index(place)
            expected[net.first[sender] + slot] += 1 / world.num_worlds
        assert world.tasks_on_links() == pytest.approx(expected)
        assert expected.any()
