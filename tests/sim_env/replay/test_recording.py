"""A recording holds what happened in the world, and recording changes nothing."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_env.engine.observation import Observation
from sim_env.engine.state import BORN, ENDED, QUEUED, SENT_ON, SERVED, STARTED
from sim_env.evaluation import run_policy
from sim_env.network.failures import DynamicsSpec, Outage
from sim_env.policies.heuristics import POLICIES
from sim_env.replay.recording import Recording, record
from sim_env.scenario import Scenario, ScenarioSpec, load_scenario
from sim_env.world import World
from tests.conftest import small_scenarios
from tests.sim_env.engine.test_kernel import ODD

LETTERS = {BORN: "b", QUEUED: "q", STARTED: "s", SENT_ON: ">", SERVED: "o", ENDED: "e"}
# Born; sent on, or queued and sent on, any number of times; served or not; ended, or still inside.
LIFE = re.compile(r"b>?(q>)*(q(so?)?)?e?")
FAILURES = DynamicsSpec(node_mttf=60.0, node_mttr=10.0, link_mttf=60.0)


def lives(recording: Recording) -> dict[int, str]:
    """Return the life of each task as a word."""
    words: dict[int, str] = {}
    for _, event, task, *_ in recording.events.tolist():
        words[task] = words.get(task, "") + LETTERS[event]
    return words


def lengths_of(scenario: Scenario, seed: int, ticks: int) -> np.ndarray:
    """Return the tasks at each node after each tick under a heuristic, from the world's counts."""
    world, found = World(scenario, [seed]), []
    for _ in range(ticks):
        world.run(POLICIES["lqrand"], 1, np.random.default_rng(0))
        state = world.state
        waiting = state.num_ready + state.num_pending + state.num_intake + (state.service >= 0)
        found.append(waiting[0])
    return np.array(found)


@settings(max_examples=60)
@given(
    small_scenarios(st.fixed_dictionaries({}, optional={k: st.just(v) for k, v in ODD.items()})),
    st.integers(0, 2**32 - 1),
)
def test_every_task_has_a_possible_life(scenario: Scenario, seed: int) -> None:
    recording = record(scenario, POLICIES["random"], seed, name="random", warmup=0, window=60)
    words = lives(recording)
    assert all(LIFE.fullmatch(word) for word in words.values()), words
    assert recording.cohort()["created"] == sum(1 for tick in recording.of(BORN)[:, 0] if tick < 60)


@settings(max_examples=40)
@given(
    small_scenarios(
        st.fixed_dictionaries(
            {}, optional={k: st.just(v) for k, v in ODD.items() if k != "tick_order"}
        )
    ),
    st.integers(0, 2**32 - 1),
)
def test_queues_are_those_of_the_world(scenario: Scenario, seed: int) -> None:
    recording = record(
        scenario, POLICIES["lqrand"], seed, name="lqrand", warmup=0, window=50, longest=50
    )
    expected = lengths_of(scenario, seed, 50)
    np.testing.assert_array_equal(recording.lengths(len(expected[0])), expected)


@pytest.mark.parametrize("name", ["lq", "random", "sed"])
def test_the_cohort_is_that_of_the_evaluation(name: str) -> None:
    scenario = Scenario(ScenarioSpec(dynamics=FAILURES))
    recording = record(scenario, POLICIES[name], 5, name=name, warmup=100, window=400)
    measured = run_policy(scenario, POLICIES[name], [5], warmup=100, window=400)
    assert recording.complete
    assert recording.cohort() == {
        kind: int(getattr(measured, kind)[0]) for kind in recording.cohort()
    }
    assert recording.cohort()["failure"] > 0


def test_failures_of_nodes_and_links_are_recorded() -> None:
    node = load_scenario("ether2").topology.names[0]
    spec = DynamicsSpec(nodes={node: [Outage(2.0, 5.0)]}, links={"rpi_1/nuc_0": [Outage(3.0, 4.0)]})
    scenario = Scenario(ScenarioSpec(dynamics=spec))
    names = scenario.topology.names
    recording = record(scenario, POLICIES["lq"], 1, name="lq", warmup=0, window=100)
    assert recording.nodes.tolist() == [[20, 0, 0], [50, 0, 1]]
    ends = sorted((names.index("rpi_1"), names.index("nuc_0")))
    assert recording.links.tolist() == [[30, *ends, 0], [40, *ends, 1]]


def test_a_recording_that_is_too_long_stops_and_says_so() -> None:
    recording = record(
        load_scenario("ether2"), POLICIES["lq"], 1, name="lq", warmup=0, window=500, longest=100
    )
    assert recording.ticks == 100
    assert not recording.complete
    assert recording.lengths(23).shape == (100, 23)


def test_decisions_name_the_tasks_that_they_are_about() -> None:
    """The scores mark the action of least queue; the task then goes where that points."""

    def scores(seen: Observation) -> tuple[np.ndarray, np.ndarray]:
        chosen = POLICIES["lq"](seen, np.random.default_rng(0))
        one_hot = (np.arange(seen.mask.shape[1]) == chosen[:, None]).astype(float)
        return one_hot, -one_hot

    scenario = load_scenario("ether2")
    recording = record(scenario, POLICIES["lq"], 1, name="lq", warmup=0, window=200, scores=scores)
    made = recording.decisions
    assert made is not None
    sent = {(row[0], row[2]): row[3] for row in recording.of(SENT_ON).tolist()}
    assert len(sent) > 50
    for i, (tick, node, task) in enumerate(
        zip(made.tick.tolist(), made.node.tolist(), made.task.tolist(), strict=True)
    ):
        mine = slice(made.first[i], made.first[i + 1])
        slots = scenario.net.destinations(node)
        assert len(made.probability[mine]) == len(slots)
        np.testing.assert_array_equal(made.value[mine], -made.probability[mine])
        chosen = int(slots[made.probability[mine].argmax()])
        assert sent.pop((tick, task), node) == chosen
    assert not sent
