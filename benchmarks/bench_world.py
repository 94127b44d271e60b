"""Speed of the world, with the plain-Python reference beside it: ``make benchmark``.

Read the ratios of one run, not the times: machines and their moods differ.
"""

import numpy as np
import pytest

from sim_env.policies import shortest_expected_delay
from sim_env.reference import ReferenceWorld
from sim_env.scenario import load_scenario
from sim_env.world import World

TICKS = 200


@pytest.mark.parametrize("worlds", [1, 16, 64])
def test_kernel(benchmark, worlds: int) -> None:
    """Ticks of ether2 in which every task is kept."""
    world = World(load_scenario("ether2"), range(worlds))
    actions = np.zeros((worlds, world.num_nodes), np.int32)

    def run() -> None:
        for _ in range(TICKS):
            world.step(actions)

    benchmark(run)
    node_steps = TICKS * worlds * world.num_nodes
    benchmark.extra_info["node_steps_per_second"] = round(node_steps / benchmark.stats["median"])


def test_reference(benchmark) -> None:
    """The same in one plain-Python world."""
    scenario = load_scenario("ether2")
    world = ReferenceWorld(scenario, 0)
    actions = [0] * scenario.topology.num_nodes
    benchmark(lambda: [world.step(actions) for _ in range(TICKS)])
    node_steps = TICKS * scenario.topology.num_nodes
    benchmark.extra_info["node_steps_per_second"] = round(node_steps / benchmark.stats["median"])


@pytest.mark.parametrize("worlds", [1, 16])
def test_heuristic(benchmark, worlds: int) -> None:
    """Observe, decide by ShortestExpectedDelay, step."""
    world = World(load_scenario("ether2"), range(worlds))
    actions = np.zeros((worlds, world.num_nodes), np.int32)
    rng = np.random.default_rng(0)

    def run() -> None:
        for _ in range(TICKS):
            seen = world.observe()
            actions[:] = 0
            actions[seen.world, seen.node] = shortest_expected_delay(seen, rng)
            world.step(actions)

    benchmark(run)
    benchmark.extra_info["world_ticks_per_second"] = round(
        TICKS * worlds / benchmark.stats["median"]
    )
