"""Libraries that take the environments as they are; each is skipped where it is not installed."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pettingzoo
import pytest
import torch
from pettingzoo.utils.conversions import parallel_to_aec

import sim_env
from sim_env.engine.state import MASKED

ID = "fauno/Ether2-v0"
NO_HOPS = sim_env.Scenario(  # sending is illegal
    sim_env.ScenarioSpec(
        workload=sim_env.WorkloadSpec(rate=5.0), physics=sim_env.PhysicsSpec(hop_cap=0)
    )
)


def all_nodes(layout: str, **settings: Any) -> Any:
    return pettingzoo.make("parallel", ID, layout=layout, **settings)


def test_a_loop_as_in_cleanrl_learns() -> None:
    """Storage by the shapes of the spaces, one update after each rollout, no masks."""
    envs = gym.make_vec(
        f"sim_env:{ID}", num_envs=4, horizon=10, layout="flat", autoreset_mode="SameStep"
    )
    shape = envs.single_observation_space.shape
    torch.manual_seed(0)
    actor = torch.nn.Linear(int(np.prod(shape)), int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.01)
    before = actor.weight.clone()
    seen, rewards, dones = torch.zeros((16, 4, *shape)), torch.zeros((16, 4)), torch.zeros((16, 4))
    actions = torch.zeros((16, 4, *envs.single_action_space.shape))
    following, _ = envs.reset(seed=1)
    for _ in range(4):
        for step in range(16):
            seen[step] = torch.Tensor(following)
            with torch.no_grad():
                actions[step] = torch.distributions.Categorical(logits=actor(seen[step])).sample()
            following, reward, terminations, truncations, _ = envs.step(
                actions[step].long().numpy()
            )
            rewards[step] = torch.tensor(reward)
            dones[step] = torch.Tensor(np.logical_or(terminations, truncations))
        policy = torch.distributions.Categorical(logits=actor(seen))
        loss = -(policy.log_prob(actions) * (rewards - rewards.mean())).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
        assert 4 <= dones.sum() <= 8
    assert not torch.equal(actor.weight, before)


def test_supersuit_makes_one_vector_of_all_nodes() -> None:
    supersuit = pytest.importorskip("supersuit")
    env, own = all_nodes("flat", horizon=30), all_nodes("flat", horizon=30)
    vector = supersuit.pettingzoo_env_to_vec_env_v1(env)
    assert vector.num_envs == len(env.possible_agents)
    seen, _ = vector.reset(seed=3)
    views, _ = own.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(25):
        assert np.array_equal(seen, list(views.values()))
        actions = rng.integers(0, int(vector.action_space.n), vector.num_envs)
        seen, rewards, *_ = vector.step(actions)
        views, its, *_ = own.step(dict(zip(own.agents, actions.tolist(), strict=True)))
        assert np.allclose(rewards, list(its.values()))
    stacked, _ = supersuit.frame_stack_v1(all_nodes("flat"), 3).reset(seed=1)
    assert {view.size for view in stacked.values()} == {3 * seen.shape[1]}


def test_tianshou_finds_the_mask_of_every_node() -> None:
    tianshou = pytest.importorskip("tianshou.env")
    env = tianshou.PettingZooEnv(parallel_to_aec(all_nodes("masked", scenario=NO_HOPS)))
    seen, _ = env.reset(seed=1)
    world, nodes = env.env.unwrapped, set()
    for _ in range(20 * len(env.agents)):
        assert seen["obs"].shape == env.observation_space["observation"].shape
        assert seen["mask"] == [True] + [False] * (len(seen["mask"]) - 1)
        nodes.add(seen["agent_id"])
        seen, rewards, *_ = env.step(int(np.argmax(seen["mask"])))
        assert len(rewards) == len(env.agents)
    assert nodes == set(world.possible_agents)


def test_a_dqn_of_tianshou_learns() -> None:
    pytest.importorskip("tianshou")
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.utils.net.common import Net

    def make() -> gym.Env:
        return gym.make(ID, peers="lq", horizon=50, layout="flat")

    env = make()
    net = Net(state_shape=env.observation_space.shape, action_shape=int(env.action_space.n))
    policy = DiscreteQLearningPolicy(model=net, action_space=env.action_space, eps_training=0.1)
    learner = DQN(policy=policy, optim=AdamOptimizerFactory(lr=0.01))
    buffer = VectorReplayBuffer(400, 2)
    Collector(learner, DummyVectorEnv([make] * 2), buffer).collect(
        n_step=200, reset_before_collect=True
    )
    before = [each.clone() for each in net.parameters()]
    learner.policy.is_within_training_step = True
    assert np.isfinite(learner.update(buffer, sample_size=64).loss)
    assert any(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("layout", ["masked", "flat"])
def test_torchrl_takes_all_nodes_as_one_group(layout: str) -> None:
    envs = pytest.importorskip("torchrl.envs")
    own = all_nodes(layout, horizon=40, scenario=NO_HOPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it knows an older PettingZoo
        env = envs.PettingZooWrapper(
            own, group_map=envs.MarlGroupMapType.ALL_IN_ONE_GROUP, return_state=True, seed=0
        )
        envs.check_env_specs(env)
        rollout = env.rollout(60)
    nodes = len(own.possible_agents)
    assert rollout["agents", "action"].shape == (40, nodes)
    assert rollout["state"].shape == (40, *own.state_space.shape)
    illegal = own.unwrapped.world.state.total[0, MASKED]
    if layout == "masked":
        assert rollout["agents", "action_mask"].sum() == 40 * nodes
        assert illegal == 0
    else:
        assert illegal > 0


def test_torchrl_takes_one_node() -> None:
    envs = pytest.importorskip("torchrl.envs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        env = envs.GymWrapper(gym.make(ID, peers="lq", horizon=40))
        envs.check_env_specs(env)
        assert env.rollout(60)["local"].shape == (40, 12)
