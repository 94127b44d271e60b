"""The compiled worlds of a node against the environment, tick by tick in Python."""

from typing import Any

import numpy as np
import pytest

from fauno_flwr.config.loading import load_config
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.registry import make_population
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.tasks import own_worlds
from fauno_flwr.tasks.base import Experience
from fauno_flwr.tasks.own_worlds import CompiledWorlds, EnvironmentWorlds, collect
from sim_env.envs import batch
from sim_env.envs.vector import EdgeVectorEnv
from sim_env.policies.heuristics import POLICIES
from sim_env.world import World

SIZE = ("training.worlds=3", "training.ticks=120", "workload.rate=4")


def decided(population: AgentStack) -> AgentStack:
    """Return the agent with scores so far apart that sampling takes the best action."""
    rng = np.random.default_rng(0)
    actor = population.get_actor()
    noisy = {k: v + rng.normal(0, 0.4, v.shape).astype(np.float32) for k, v in actor.items()}
    for name, array in noisy.items():
        array *= 1e6 if name.endswith("weights.2") else 1.0
    population.set_actor(noisy)
    return population


def setting(*overrides: str) -> tuple[Any, Any, AgentStack]:
    config = load_config("ether2", ["topology=ether1", *SIZE, *overrides])
    scenario = config.build_scenario()
    return config, scenario, decided(make_population(1, config, scenario))


def require_same(one: Decisions, other: Decisions) -> None:
    assert len(one) == len(other) > 50
    for name in ("action", "last", "mask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("local", "destination", "reward"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-5)


class Seeds:
    """Lets other worlds have the seeds of those of the environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batch, "World", self._remember)
        monkeypatch.setattr(own_worlds, "World", self._repeat)

    def _remember(self, scenario, seeds) -> World:
        self.seeds = list(seeds)
        return World(scenario, seeds)

    def _repeat(self, scenario, seeds) -> World:
        assert len(seeds) == len(self.seeds)
        return World(scenario, self.seeds)


def made(config, scenario, agent: int, population: AgentStack, rollouts: int) -> Experience:
    return own_worlds.own_worlds(
        config, scenario, agent, population, rollouts, np.random.default_rng(0)
    )


def in_python(config, scenario, agent: int, population: AgentStack, rollouts: int) -> Experience:
    """Return the same through the environment, also with peers that need none."""
    training, node = config.training, int(scenario.agents[agent])
    horizon = training.ticks * rollouts
    env = EdgeVectorEnv(scenario, node, training.worlds, training.peers, horizon, training.warmup)
    return EnvironmentWorlds(env, training.ticks, np.random.default_rng(0))


KINDS = [
    (),
    ("agent.network=padded",),
    ("agent.critic=state", "reward.no_op=-0.25"),
    # Alike neighbours have the same score there, except from a network that knows slots apart.
    ("reward.kind=outcome", "observation=paper", "agent.network=padded"),
    ("physics=peersimgym", "workload.rate=20", "agent.network=padded"),
    ("dynamics.nodes.rpi_0=[{down: 3, up: 6}]",),
]


@pytest.mark.parametrize("overrides", KINDS)
def test_peers_that_follow_the_own_actor(overrides, monkeypatch) -> None:
    config, scenario, population = setting(*overrides)
    seeds = Seeds(monkeypatch)
    env = EdgeVectorEnv(scenario, int(scenario.agents[1]), 3, horizon=240, warmup=50)
    env.set_actor(population.policy())
    view, _ = env.reset(seed=5)
    config.training.warmup = 50
    assert len(seeds.seeds) == 3
    worlds = made(config, scenario, 1, population, 2)
    for _ in range(2):
        expected, view = collect(env, view, population, 120, np.random.default_rng(1))
        require_same(worlds.collect(population), expected)
    assert worlds._world.state.total.tolist() == env.world.state.total.tolist()


@pytest.mark.parametrize("peers", ["local", "lq", "sed"])
def test_peers_that_follow_a_heuristic(peers: str, monkeypatch) -> None:
    config, scenario, population = setting(f"training.peers={peers}", "training.warmup=0")
    seeds = Seeds(monkeypatch)
    environment = in_python(config, scenario, 0, population, 2)
    assert len(seeds.seeds) == 3
    worlds = made(config, scenario, 0, population, 2)
    for _ in range(2):
        require_same(worlds.collect(population), environment.collect(population))
    found, expected = worlds.metrics(), environment.metrics()
    assert found == pytest.approx(expected)


def never_offload(observation, rng) -> np.ndarray:
    return np.zeros(len(observation), int)


@pytest.mark.parametrize(
    ("peers", "kind"),
    [
        ("self", CompiledWorlds),
        ("sed", CompiledWorlds),
        (f"{__name__}:never_offload", EnvironmentWorlds),
    ],
)
def test_only_peers_of_another_policy_need_the_environment(peers: str, kind: type) -> None:
    config, scenario, population = setting(f"training.peers={peers}")
    worlds = made(config, scenario, 0, population, 1)
    assert type(worlds) is kind
    assert len(worlds.collect(population)) > 50


def test_a_policy_from_a_module_plays_as_the_built_in_one(monkeypatch) -> None:
    assert "local" in POLICIES
    config, scenario, population = setting("training.peers=local", "training.warmup=0")
    Seeds(monkeypatch)
    other, _, _ = setting(f"training.peers={__name__}:never_offload", "training.warmup=0")
    environment = made(other, scenario, 0, population, 1)
    worlds = made(config, scenario, 0, population, 1)
    require_same(worlds.collect(population), environment.collect(population))


def test_only_the_own_decisions_are_recorded() -> None:
    """Room for those of all nodes would be 300 times as large with 300 nodes."""
    config, scenario, population = setting()
    worlds = made(config, scenario, 0, population, 1)
    worlds.collect(population)
    rows = worlds._recorder._rows
    assert set(rows.agent[: len(rows.agent)].tolist()) == {0}
    assert len(rows.world) <= 2 * 3 * (120 + 32)
