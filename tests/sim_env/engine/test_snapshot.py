"""A world goes on from the snapshot of another one as that one does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_env import Scenario, World, get_policy, load_scenario
from tests.conftest import small_scenarios


def run(world: World, ticks: int) -> None:
    """Advance under a heuristic with a random stream of its own."""
    world.run(get_policy("random"), ticks, np.random.default_rng(0))


def assert_equal(one: World, other: World) -> None:
    """Assert that two worlds are the same in every array."""
    first, second = one.snapshot(), other.snapshot()
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


@settings(max_examples=15, deadline=None)
@given(small_scenarios(), st.integers(0, 80), st.integers(1, 80))
def test_a_restored_world_continues_as_if_nothing_had_happened(
    scenario: Scenario, before: int, after: int
) -> None:
    world = World(scenario, [3, 4])
    world.measure(10, 100)
    run(world, before)
    snapshot = world.snapshot()
    run(world, after)
    restored = World(scenario, [5, 6])
    run(restored, 7)
    restored.restore(snapshot)
    run(restored, after)
    assert_equal(world, restored)
    assert all(restored.audit().values())


def test_a_snapshot_is_a_copy() -> None:
    world = World("balanced", [0])
    snapshot = world.snapshot()
    run(world, 50)
    restored = World("balanced", [0])
    restored.restore(snapshot)
    assert restored.now == 0
    assert_equal(restored, World("balanced", [0]))


def test_a_snapshot_of_another_network_is_refused() -> None:
    snapshot = World("balanced", [0]).snapshot()
    with pytest.raises(ValueError, match="1 worlds, 23 nodes and 42 links: must have 2, 23 and"):
        World(load_scenario("ether2"), [0, 1]).restore(snapshot)
