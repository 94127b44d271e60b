"""Layouts of observations: the same numbers, arranged for different libraries."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test, state_test
from pettingzoo.utils.conversions import parallel_to_aec

import sim_env
from sim_env.envs.layout import LAYOUTS
from sim_env.envs.parallel import EdgeParallelEnv
from sim_env.envs.single import EdgeEnv

OTHERS = [layout for layout in LAYOUTS if layout != "parts"]


def in_a_row(parts: dict[str, np.ndarray], slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the features in a row and the mask, both with zeros for further slots."""
    more = slots - len(parts["action_mask"])
    destinations = np.pad(parts["destinations"], ((0, more), (0, 0)))
    row = np.concatenate([parts["local"], destinations.ravel()])
    return row, np.pad(parts["action_mask"], (0, more))


def assert_same(view: dict | np.ndarray, parts: dict[str, np.ndarray], slots: int) -> None:
    row, mask = in_a_row(parts, slots)
    if isinstance(view, dict):
        assert view["action_mask"].tolist() == mask.tolist()
        assert view["observation"].tobytes() == row.tobytes()
    else:
        assert view.tobytes() == np.concatenate([row, mask.astype(np.float32)]).tobytes()


@pytest.mark.parametrize("layout", OTHERS)
@pytest.mark.parametrize("observation", sim_env.OBSERVATIONS)
def test_one_node_sees_the_same_numbers(layout: str, observation: str) -> None:
    scenario = sim_env.Scenario(sim_env.ScenarioSpec(observation=observation))
    parts, other = (EdgeEnv(scenario, 6, peers="lq", layout=each) for each in ("parts", layout))
    check_env(EdgeEnv(scenario, 6, peers="lq", layout=layout), skip_render_check=True)
    views = [env.reset(seed=3)[0] for env in (parts, other)]
    decisions = 0
    for tick in range(400):
        assert views[1] in other.observation_space
        assert_same(views[1], views[0], int(parts.action_space.n))
        decisions += int(views[0]["local"][0])
        views = [env.step(tick % 3)[0] for env in (parts, other)]
    assert decisions > 20


@pytest.mark.parametrize("layout", OTHERS)
def test_all_nodes_are_alike_and_see_the_same_numbers(layout: str) -> None:
    parts, other = EdgeParallelEnv(), EdgeParallelEnv(layout=layout)
    spaces = [other.observation_space(agent) for agent in other.possible_agents]
    assert all(space == spaces[0] for space in spaces)
    (slots,) = {int(other.action_space(agent).n) for agent in other.possible_agents}
    assert slots == max(int(parts.action_space(agent).n) for agent in parts.possible_agents)
    views, others = parts.reset(seed=3)[0], other.reset(seed=3)[0]
    rng = np.random.default_rng(0)
    for _ in range(100):
        for agent, view in others.items():
            assert view in other.observation_space(agent)
            assert_same(view, views[agent], slots)
        actions = {agent: int(rng.integers(slots)) for agent in other.agents}
        (views, reward, *_), (others, its, *_) = parts.step(actions), other.step(actions)
        assert reward == its


@pytest.mark.parametrize("layout", OTHERS)
def test_pettingzoo_takes_them(layout: str) -> None:
    parallel_api_test(EdgeParallelEnv(layout=layout), num_cycles=200)


def test_an_unknown_layout_is_named() -> None:
    for kind in (EdgeEnv, EdgeParallelEnv):
        with pytest.raises(ValueError, match=r"layout is 'flatt': .*did you mean flat"):
            kind(layout="flatt")


def test_views_do_not_change_later() -> None:
    env = EdgeParallelEnv(layout="flat")
    views, _ = env.reset(seed=3)
    before = {agent: view.copy() for agent, view in views.items()}
    for _ in range(20):
        env.step({})
    assert all(np.array_equal(views[agent], before[agent]) for agent in views)


@pytest.mark.parametrize("name", sim_env.SCENARIOS)
def test_the_state_passes_pettingzoos_test(name: str) -> None:
    state_test(parallel_to_aec(EdgeParallelEnv(name)), EdgeParallelEnv(name))


def test_the_state_is_that_of_the_network() -> None:
    env = EdgeParallelEnv(horizon=400)
    with pytest.raises(gym.error.ResetNeeded):
        env.state()
    views, _ = env.reset(seed=1)
    rng, busy, coming = np.random.default_rng(0), 0, 0
    while env.agents:
        assert env.world is not None
        net, st = env.world.net, env.world.state
        nodes = len(net.speed)
        state = env.state()
        per_node = state[: 7 * nodes].reshape(nodes, 7)
        local = state[7 * nodes :].reshape(len(env.possible_agents), -1)
        assert np.array_equal(local, [views[agent]["local"] for agent in env.possible_agents])
        load = st.num_ready[0] + st.num_pending[0] + (st.service[0] >= 0)
        assert np.allclose(per_node[:, 0], load / net.capacity)
        # The backlog of an agent with a decision is also in its own features, as log1p / 5.
        for node, row in zip(env.scenario.agents, local, strict=True):
            if row[0]:
                assert per_node[node, 2] == pytest.approx(row[11], abs=1e-6)
        travelling = np.expm1(4 * per_node[:, 3]).sum()
        assert travelling == pytest.approx((st.kind[0] == 4).sum(), abs=1e-2)
        busy, coming = busy + int(load.sum()), coming + round(travelling)
        views, *_ = env.step({agent: int(rng.integers(3)) for agent in env.agents})
    assert busy > 0
    assert coming > 0


def test_the_state_shows_a_failed_node_at_once() -> None:
    outage = {"rpi_1": [sim_env.Outage(down=1.0)]}
    spec = sim_env.ScenarioSpec(dynamics=sim_env.DynamicsSpec(nodes=outage))
    env = EdgeParallelEnv(sim_env.Scenario(spec))
    env.reset(seed=1)
    node = env.scenario.topology.names.index("rpi_1")
    up = []
    for _ in range(12):
        up.append(env.state()[7 * node + 5])
        env.step({})
    assert up == [1.0] * 10 + [0.0] * 2
