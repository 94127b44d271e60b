"""The compiled heuristics against the numpy functions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_env.engine import state
from sim_env.peersimgym import results as peersimgym
from sim_env.policies.compiled import CODES
from sim_env.policies.heuristics import POLICIES, Policy, least_queue_random, random
from sim_env.scenario import Scenario, ScenarioSpec
from sim_env.world import World
from tests.conftest import small_scenarios

EXACT = ["sed", "threshold", "lq", "local"]


def uncompiled(policy: Policy) -> Policy:
    """Wrap a policy, so that the world does not know its compiled twin."""
    return lambda seen, rng: policy(seen, rng)


def run_pair(scenario: Scenario, name: str, seeds: list[int], ticks: int) -> tuple[World, World]:
    """Run the same worlds under the compiled and under the numpy policy."""
    compiled, plain = World(scenario, seeds), World(scenario, seeds)
    rng = np.random.default_rng(0)
    for part in (1, ticks // 3, ticks - 1 - ticks // 3):
        compiled.run(POLICIES[name], part, rng)
        plain.run(uncompiled(POLICIES[name]), part, rng)
    assert compiled.now == plain.now == ticks
    assert all(compiled.audit().values()), compiled.audit()
    return compiled, plain


def test_every_heuristic_is_compiled() -> None:
    assert set(CODES) == set(POLICIES.values())


@pytest.mark.parametrize("name", EXACT)
def test_a_compiled_heuristic_equals_the_plain_one(name: str) -> None:
    @settings(max_examples=40)
    @given(small_scenarios(), st.integers(0, 2**63))
    def check(scenario: Scenario, seed: int) -> None:
        compiled, plain = run_pair(scenario, name, [seed, seed + 1], 60)
        for field in ("total", "ready_head", "pending_head", "service", "work", "published"):
            assert np.array_equal(getattr(compiled.state, field), getattr(plain.state, field)), (
                field
            )

    check()


@pytest.mark.parametrize("name", EXACT)
def test_a_compiled_heuristic_equals_the_plain_one_under_the_original_physics(name: str) -> None:
    scenario = Scenario(ScenarioSpec(physics=peersimgym.PHYSICS))
    compiled, plain = run_pair(scenario, name, [1, 2], 400)
    assert compiled.state.total[:, state.FINISHED].min() > 0
    assert np.array_equal(compiled.state.total, plain.state.total)


@pytest.mark.parametrize("policy", [random, least_queue_random])
def test_random_choices_have_the_same_distribution(policy: Policy) -> None:
    """Tasks sent away and finished: equal in the mean over 64 worlds, up to 4 standard errors."""
    scenario = Scenario(ScenarioSpec())
    name = next(name for name, each in POLICIES.items() if each is policy)
    compiled, plain = run_pair(scenario, name, list(range(64)), 500)
    for column in (state.OFFLOADED, state.FINISHED):
        one, other = compiled.state.total[:, column], plain.state.total[:, column]
        error = np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 64)
        assert abs(one.mean() - other.mean()) < 4 * error
        assert one.mean() > 0


def test_a_random_run_depends_on_the_seed_of_its_world_only() -> None:
    scenario = Scenario(ScenarioSpec())
    together, alone = World(scenario, [3, 4, 5]), World(scenario, [4])
    together.run(random, 300, np.random.default_rng(0))
    alone.run(random, 300, np.random.default_rng(1))
    assert np.array_equal(together.state.total[1], alone.state.total[0])
    assert not np.array_equal(together.state.total[0], together.state.total[1])
