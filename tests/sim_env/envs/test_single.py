"""The gymnasium environments of one node."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim_env
from sim_env.engine.state import MASKED, OFFLOADED
from sim_env.envs.single import EdgeEnv
from sim_env.envs.vector import EdgeVectorEnv
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import PhysicsSpec, Scenario, ScenarioSpec

IDS = [f"fauno/{name.capitalize()}-v0" for name in sim_env.SCENARIOS]


@pytest.mark.parametrize("env_id", IDS)
def test_registered_ids_pass_the_checker(env_id: str) -> None:
    check_env(gym.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", IDS)
def test_same_seed_same_bytes_over_many_steps(env_id: str) -> None:
    def run() -> bytes:
        env = gym.make_vec(env_id, num_envs=3, node=6, warmup=20, horizon=150)
        env.action_space.seed(1)
        view, _ = env.reset(seed=5)
        log = b"".join(value.tobytes() for value in view.values())
        for _ in range(400):
            view, reward, _, truncated, _ = env.step(env.action_space.sample())
            log += b"".join(value.tobytes() for value in (*view.values(), reward, truncated))
        return log

    assert run() == run()


def test_vector_env_of_one_equals_the_single_env() -> None:
    single, vector = EdgeEnv(peers="sed"), EdgeVectorEnv(peers="sed", num_envs=1)
    assert_same(single.reset(seed=3)[0], vector.reset(seed=3)[0])
    rng = np.random.default_rng(0)
    for _ in range(300):
        action = int(rng.integers(3))
        one, many = single.step(action), vector.step(np.array([action]))
        assert_same(one[0], many[0])
        assert one[1] == many[1][0]


def assert_same(one: dict, many: dict) -> None:
    assert all(np.array_equal(one[key], many[key][0]) for key in one)


def test_an_illegal_action_keeps_the_task_and_is_counted() -> None:
    """With no hop allowed, sending is illegal: the same world, reward and view as after keeping."""
    scenario = Scenario(ScenarioSpec(physics=PhysicsSpec(hop_cap=0)))
    sent, kept = EdgeEnv(scenario, peers="local"), EdgeEnv(scenario, peers="local")
    view, _ = sent.reset(seed=1)
    kept.reset(seed=1)
    decisions = 0
    for _ in range(200):
        deciding = int(view["local"][0])
        decisions += deciding
        assert view["action_mask"].tolist() == [1, 0, 0]
        view, reward, *_ = sent.step(deciding)
        other, same_reward, *_ = kept.step(0)
        assert reward == same_reward
        assert all(np.array_equal(view[key], other[key]) for key in view)
    assert decisions > 0
    assert sent.world is not None
    assert kept.world is not None
    assert sent.world.state.total[0, MASKED] == decisions
    assert kept.world.state.total[0, MASKED] == 0


def test_truncates_at_the_horizon_and_starts_again() -> None:
    env = EdgeVectorEnv(num_envs=2, horizon=5)
    env.reset(seed=0)
    flags = [env.step(np.zeros(2, int))[3] for _ in range(12)]
    assert [bool(f.all()) for f in flags] == [i % 6 == 4 for i in range(12)]


def test_peers_follow_the_actor_only_when_asked_to() -> None:
    def offloads(peers: str) -> int:
        env = EdgeVectorEnv(num_envs=1, peers=peers)
        env.set_actor(POLICIES["local"])
        env.reset(seed=0)
        for _ in range(300):
            env.step(np.zeros(1, int))
        assert env.world is not None
        return int(env.world.state.total[0, OFFLOADED])

    assert offloads("self") == 0
    assert offloads("random") > 0


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="node is 8: must be an agent"):
        EdgeVectorEnv(node=8)
    with pytest.raises(ValueError, match="peers is 'leastq'"):
        EdgeVectorEnv(peers="leastq")
    with pytest.raises(ValueError, match=r"did you mean ether2"):
        EdgeVectorEnv("ether3")
