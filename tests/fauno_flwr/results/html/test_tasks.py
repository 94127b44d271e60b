"""Where tasks go, against what the recording and the world say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fauno_flwr.results.html.tasks import (
    distribution,
    exchange,
    grouped,
    losses,
    responses,
    utilisation,
)
from sim_env.engine.state import (
    BORN,
    DEADLINE,
    ENDED,
    FINISHED,
    OVERFLOW,
    QUEUED,
    SENT_ON,
    SERVED,
    STARTED,
)
from sim_env.evaluation import run_policy
from sim_env.policies.heuristics import POLICIES
from sim_env.replay.recording import Recording, record
from sim_env.scenario import Scenario, load_scenario
from tests.conftest import small_scenarios

# Tick, event, task, node, value. Task 0 is served at home in ticks 2 to 4; task 1 moves to node 1,
# which serves it in ticks 4 and 5; task 2 waits there from tick 3, starts in tick 5 too, and misses
# its deadline after tick 7; task 3 is lost at birth; task 4 was born before the window, and is
# served beyond the end.
EVENTS = [
    (0, BORN, 4, 2, 0), (0, QUEUED, 4, 2, 0), (1, STARTED, 4, 2, 0),
    (2, BORN, 0, 0, 0), (2, QUEUED, 0, 0, 0), (2, STARTED, 0, 0, 0), (4, SERVED, 0, 0, 5),
    (5, ENDED, 0, 0, FINISHED),
    (2, BORN, 1, 0, 0), (2, QUEUED, 1, 0, 0), (3, SENT_ON, 1, 1, 4), (4, QUEUED, 1, 1, 0),
    (4, STARTED, 1, 1, 0), (5, SERVED, 1, 1, 9), (9, ENDED, 1, 1, FINISHED),
    (3, BORN, 2, 1, 0), (3, QUEUED, 2, 1, 0), (5, STARTED, 2, 1, 0), (8, ENDED, 2, 1, DEADLINE),
    (3, BORN, 3, 1, 0), (4, ENDED, 3, 1, OVERFLOW),
]  # fmt: skip


@pytest.fixture
def small() -> Recording:
    events = np.array(sorted(EVENTS, key=lambda row: row[0]), np.int32)
    none = np.zeros((0, 3), np.int32)
    return Recording("local", 1, (2, 12), 12, True, events, none, np.zeros((0, 4), np.int32))


def test_a_small_recording_by_hand(small: Recording) -> None:
    assert exchange(small, 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    found = losses(small, 3)
    assert {kind: counts.tolist() for kind, counts in found.items() if counts.any()} == {
        "overflow": [0, 1, 0],
        "deadline": [0, 1, 0],
    }
    assert responses(small).tolist() == [3, 7]
    # Of ten ticks: 2, 3, 4; then 4, 5, 6, 7; then all of them.
    assert utilisation(small, 3).tolist() == [0.3, 0.4, 1.0]


@pytest.mark.parametrize("policy", ["sed", "random", "local"])
def test_sums_are_those_of_the_cohort_and_of_the_evaluation(policy: str) -> None:
    scenario = load_scenario("ether2")
    nodes = scenario.topology.num_nodes
    made = {"warmup": 100, "window": 300}
    recording = record(scenario, POLICIES[policy], 3, name=policy, **made)
    cohort = recording.cohort()
    matrix, ticks = exchange(recording, nodes), responses(recording)
    assert matrix.sum() == len(ticks) == cohort["finished"] > 100
    for kind, counts in losses(recording, nodes).items():
        assert counts.sum() == cohort[kind]
    measured = run_policy(scenario, POLICIES[policy], [3], **made)
    np.testing.assert_allclose(ticks.mean() * 0.1, measured.mean_response[0])
    if policy == "local":
        assert np.count_nonzero(matrix) == np.count_nonzero(np.diag(matrix))


@settings(max_examples=40)
@given(small_scenarios(), st.integers(0, 2**32 - 1))
def test_a_node_is_busy_as_long_as_its_worker_holds_a_task(scenario: Scenario, seed: int) -> None:
    recording = record(scenario, POLICIES["random"], seed, name="random", warmup=5, window=40)
    nodes = scenario.topology.num_nodes
    busy = utilisation(recording, nodes)
    assert ((busy >= 0) & (busy <= 1)).all()
    # A node without a task in a tick does not serve in it, and one with ready work does.
    lengths = recording.lengths(nodes)[5:45]
    starts = [(row[0], row[3]) for row in recording.of(STARTED).tolist() if 5 <= row[0] < 45]
    assert (busy * 40 >= [len({t for t, node in starts if node == n}) for n in range(nodes)]).all()
    served = [(row[0], row[3]) for row in recording.of(SERVED).tolist() if 5 <= row[0] < 45]
    most = [
        len({t for t, node in served if node == n} | {t + 5 for t in np.flatnonzero(lengths[:, n])})
        + sum(1 for row in recording.of(ENDED).tolist() if row[3] == n)
        for n in range(nodes)
    ]
    assert (busy * 40 <= most).all()


def test_an_empty_recording_has_no_flows() -> None:
    none = np.zeros((0, 5), np.int32)
    empty = Recording("sed", 1, (0, 10), 10, True, none, none[:, :3], none[:, :4])
    assert exchange(empty, 2).sum() == len(responses(empty)) == 0
    assert utilisation(empty, 2).tolist() == [0, 0]
    assert [len(column) for column in distribution(responses(empty))] == [0, 0]


def test_a_distribution_ends_at_one() -> None:
    values, fraction = distribution(np.array([1, 1, 2, 5]))
    assert values.tolist() == [1, 2, 5]
    assert fraction.tolist() == [0.5, 0.75, 1.0]


def test_a_matrix_of_roles_keeps_its_sum() -> None:
    counts = np.arange(9).reshape(3, 3)
    assert grouped(counts, np.array([0, 1, 0])).tolist() == [[0 + 2 + 6 + 8, 1 + 7], [3 + 5, 4]]
