"""Speed of the world, and of the plain-Python reference: ``make benchmark``.

Compare the ratios within one run, not times between machines. All on one core.
"""

from collections.abc import Callable

import numpy as np
import pytest

from sim_env.network.topology import TopologySpec
from sim_env.policies.heuristics import POLICIES, shortest_expected_delay
from sim_env.reference.world import ReferenceWorld
from sim_env.scenario import Scenario, ScenarioSpec
from sim_env.world import World

WARMUP = 600  # ticks, to fill the network


def scenario(kind: str, nodes: int) -> Scenario:
    """Compile a network whose load per node does not depend on its size."""
    radius = 150.0 * (10 / nodes) ** 0.5
    sizes = {
        "ether": {"clusters": max(1, round(nodes / 11))},
        "random": {"nodes": nodes, "radius": min(radius, 50.0)},
    }
    spec = ScenarioSpec(topology=TopologySpec(kind=kind, **sizes.get(kind, {"nodes": nodes})))
    spec.workload.rate = 1.0
    return Scenario(spec)


def measure(benchmark, run: Callable[[], None], count: float, unit: str) -> None:
    """Time `run`, and note its rate in `unit`."""
    benchmark.pedantic(run, rounds=9, warmup_rounds=1)
    benchmark.extra_info[unit] = count / benchmark.stats["median"]


def running(name: str, worlds: int, of: Scenario) -> World:
    """Return worlds after a warm-up under a policy."""
    world = World(of, range(worlds))
    world.run(POLICIES[name], WARMUP, np.random.default_rng(0))
    return world


@pytest.mark.parametrize("policy", ["local", "random", "sed"])
def test_64_worlds_of_40_nodes(benchmark, policy: str) -> None:
    """Ticks without (local) and with decisions."""
    world = running(policy, 64, scenario("random", 40))
    rng = np.random.default_rng(0)
    run = lambda: world.run(POLICIES[policy], 100, rng)  # noqa: E731
    measure(benchmark, run, 100 * 64 * 40, "node-steps/s")


def test_40_nodes_in_plain_python(benchmark) -> None:
    """The reference implementation, which keeps every task."""
    world = ReferenceWorld(scenario("random", 40), 0)
    actions = [0] * 40
    run = lambda: [world.step(actions) for _ in range(100)]  # noqa: E731
    measure(benchmark, run, 100 * 40, "node-steps/s")


@pytest.mark.parametrize("policy", ["lq", "sed"])
def test_one_world_of_10_nodes(benchmark, policy: str) -> None:
    """Joint ticks under a heuristic."""
    world = running(policy, 1, scenario("random", 10))
    rng = np.random.default_rng(0)
    run = lambda: world.run(POLICIES[policy], 2000, rng)  # noqa: E731
    measure(benchmark, run, 2000, "joint ticks/s")


def test_10_nodes_under_a_heuristic_in_plain_python(benchmark) -> None:
    """The reference implementation under ShortestExpectedDelay."""
    of = scenario("random", 10)
    world = ReferenceWorld(of, 0)

    def run() -> None:
        for _ in range(200):
            actions = [0] * 10
            for node, slots in world.observe().items():
                parts = ("wait", "execute", "send", "back")
                delay = [sum(each[k] for k in parts) for each in slots]
                actions[node] = int(np.argmin(delay))
            world.step(actions)

    measure(benchmark, run, 200, "joint ticks/s")


def test_step_by_step_from_python(benchmark) -> None:
    """Observe, decide with numpy, step: a policy without a compiled twin."""
    world = running("sed", 16, scenario("random", 10))
    uncompiled = lambda seen, rng: shortest_expected_delay(seen, rng)  # noqa: E731
    rng = np.random.default_rng(0)
    measure(benchmark, lambda: world.run(uncompiled, 200, rng), 200 * 16, "joint ticks/s")


@pytest.mark.parametrize("features", [False, True], ids=["raw", "encoded"])
@pytest.mark.parametrize("kind", ["random", "ether"])
def test_observations(benchmark, kind: str, features: bool) -> None:
    """Observations of 64 worlds of 40 nodes; 22 slots each in the random network, 3 in Ether."""
    world = running("local", 64, scenario(kind, 40))
    seen = world.observe()
    run = (lambda: world.observe().features()) if features else world.observe
    measure(benchmark, lambda: [run() for _ in range(20)], 20 * len(seen), "observations/s")


@pytest.mark.parametrize("nodes", [10, 100, 1000, 10_000])
@pytest.mark.parametrize("kind", ["random", "ether"])
def test_size(benchmark, kind: str, nodes: int) -> None:
    """Cost per node under ShortestExpectedDelay."""
    of = scenario(kind, nodes)
    world = running("sed", 1, of)
    rng = np.random.default_rng(0)
    ticks = max(20, 20_000 // nodes)
    run = lambda: world.run(POLICIES["sed"], ticks, rng)  # noqa: E731
    measure(benchmark, run, ticks * of.topology.num_nodes, "node-steps/s")
