"""One node of the network as a gymnasium environment; its peers follow a policy."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from sim_env import plugins
from sim_env.engine.features import Encoding
from sim_env.engine.observation import Observation
from sim_env.envs.render import RENDER_FPS, RENDER_MODES, Viewer
from sim_env.errors import require_whole
from sim_env.policies.heuristics import (
    GROUP,
    POLICIES,
    Policy,
    choose_actions,
    get_policy,
    random,
)
from sim_env.scenario import Scenario, as_scenario
from sim_env.world import World

SELF = "self"
BOUND = 100.0  # no feature comes near


def agent_spaces(slots: int, encoding: Encoding) -> tuple[spaces.Dict, spaces.Discrete]:
    """Return the observation and action space of an agent with `slots` slots."""
    observation = spaces.Dict(
        {
            "local": spaces.Box(-BOUND, BOUND, (encoding.local,), np.float32),
            "destinations": spaces.Box(-BOUND, BOUND, (slots, encoding.destinations), np.float32),
            "action_mask": spaces.Box(0, 1, (slots,), np.int8),
        }
    )
    return observation, spaces.Discrete(slots)


def lay_out(rows: Observation, where: np.ndarray, count: int, slots: int) -> dict[str, np.ndarray]:
    """Arrange R decisions as the views of V observers.

    Parameters
    ----------
    rows : Observation
        R decisions.
    where : array of int, shape (R,)
        Observer of each.
    count, slots : int
        V, and K: the largest number of slots of an observer.

    Returns
    -------
    dict of arrays
        ``local`` (V, ...), ``destinations`` (V, K, ...), float32, with the widths of the rows'
        encoding, and ``action_mask`` (V, K), int8.
        An observer without a decision sees zeros and may only keep.
    """
    view: dict[str, np.ndarray] = {
        "local": np.zeros((count, rows.encoding.local), np.float32),
        "destinations": np.zeros((count, slots, rows.encoding.destinations), np.float32),
        "action_mask": np.zeros((count, slots), np.int8),
    }
    view["action_mask"][:, 0] = 1
    if len(rows):
        local, destinations = rows.features()
        view["local"][where] = local
        view["destinations"][where] = destinations[:, :slots]
        view["action_mask"][where] = rows.mask[:, :slots]
    return view


def earned(rows: Observation, chosen: np.ndarray) -> np.ndarray:
    """Return what R decisions earn at once, shape (R,).

    An illegal one, any integer, earns what keeping would.
    """
    row, slots = np.arange(len(rows)), rows.mask.shape[1]
    slot = np.where((chosen >= 0) & (chosen < slots), chosen, 0)
    return np.asarray(rows.reward[row, np.where(rows.mask[row, slot], slot, 0)])


class EdgeVectorEnv(VectorEnv):
    """One agent in B parallel worlds.

    A step is a tick. The action is about the node's first undecided task: 0 keeps it, k > 0 sends
    it to the k-th neighbour; it has no effect in a tick without one. An illegal action keeps the
    task.

    Observation (a dict of arrays with leading axis B)
        ``local`` (12,) and ``destinations`` (K, 10), or the widths of the scenario's observation:
        see :mod:`sim_env.engine.features`; ``local[0]`` is 1 where there is something to decide,
        else all is zero.
        ``action_mask`` (K,), int8: legal actions.
    Reward
        Of the decision taken in this step, or of the tasks that ended in it, by the scenario's
        reward: see :mod:`sim_env.engine.reward`.
    End of an episode
        Truncation after `horizon` ticks; episodes never terminate.

    Parameters
    ----------
    scenario : Scenario or str, default "ether2"
        Compiled scenario or the name of one.
    node : int, default: the first agent
        The controlled agent.
    num_envs : int, default 1
        Parallel worlds, B.
    peers : str, default "self"
        Policy of the other agents: ``self``, the policy given to :meth:`set_actor`, random until
        then (as an untrained actor is), or a heuristic as
        :func:`sim_env.policies.heuristics.get_policy` takes it.
    horizon : int, default 1000
        Ticks of an episode.
    warmup : int, default 0
        Ticks before an episode begins, in which the node follows the policy of its peers.
    """

    metadata: dict[str, Any] = {
        "autoreset_mode": AutoresetMode.NEXT_STEP,
        "render_modes": [],
    }

    def __init__(
        self,
        scenario: Scenario | str = "ether2",
        node: int | None = None,
        num_envs: int = 1,
        peers: str = SELF,
        horizon: int = 1000,
        warmup: int = 0,
    ) -> None:
        self.scenario = as_scenario(scenario)
        agents = self.scenario.agents
        self.node = int(agents[0] if node is None else node)
        if self.node not in agents:
            raise ValueError(f"node is {node}: must be an agent, one of {agents.tolist()}")
        plugins.require_name("peers", peers, {SELF: None, **POLICIES}, GROUP)
        require_whole("num_envs", num_envs, at_least=1)
        require_whole("horizon", horizon, at_least=1)
        require_whole("warmup", warmup, at_least=0)
        self.num_envs, self.horizon, self.warmup = num_envs, horizon, warmup
        self._takes_actor = peers == SELF
        self._peer_policy: Policy = random if self._takes_actor else get_policy(peers, "peers")
        self.slots = int(self.scenario.net.slots[self.node])
        self.single_observation_space, self.single_action_space = agent_spaces(
            self.slots, self.scenario.encoding
        )
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.world: World | None = None
        self._actions = np.zeros((num_envs, self.scenario.topology.num_nodes), np.int32)

    def set_actor(self, actor: Policy) -> None:
        """Let the peers follow `actor` from now on; no effect unless ``peers="self"``."""
        if self._takes_actor:
            self._peer_policy = actor

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start new worlds, seeded from `seed` or from the environment's own stream."""
        if seed is not None:
            self.np_random, self._np_random_seed = gym.utils.seeding.np_random(seed)
        seeds = self.np_random.integers(0, 2**63, self.num_envs, dtype=np.uint64).tolist()
        self.world = World(self.scenario, seeds)
        self._over = False
        self._look()
        for _ in range(self.warmup):
            self._decide(self._seen)
            self.world.step(self._actions)
            self._look()
        self.world.collect()  # discards what was earned before the episode
        self._end = self.world.now + self.horizon
        return self._view(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance by one tick; the step after a truncation resets (``AutoresetMode.NEXT_STEP``)."""
        never = np.zeros(self.num_envs, np.bool_)
        if self.world is None:
            raise gym.error.ResetNeeded("call reset before step")
        if self._over:
            view, info = self.reset()
            return view, np.zeros(self.num_envs), never, never, info
        reward = np.full(self.num_envs, self.scenario.net.reward.no_op)
        # One past either end is as illegal as any number beyond it, and fits the world's integers.
        chosen = np.clip(np.asarray(actions), -1, self.slots)[self._mine.world]
        reward[self._mine.world] = earned(self._mine, chosen)
        self._decide(self._others)
        self._actions[self._mine.world, self.node] = chosen
        self.world.step(self._actions)
        reward += self.world.collect()[:, self.node]
        self._over = self.world.now >= self._end
        self._look()
        return self._view(), reward, never, np.full(self.num_envs, self._over), {}

    def _look(self) -> None:
        assert self.world is not None
        self._seen = self.world.observe()
        mine = self._seen.node == self.node
        self._mine, self._others = self._seen[mine], self._seen[~mine]

    def _decide(self, rows: Observation) -> None:
        self._actions[:] = 0
        if len(rows):
            chosen = choose_actions(self._peer_policy, rows, self.np_random)
            self._actions[rows.world, rows.node] = chosen

    def _view(self) -> dict[str, np.ndarray]:
        return lay_out(self._mine, self._mine.world, self.num_envs, self.slots)


class EdgeEnv(gym.Env):
    """One agent in one world: a single world of :class:`EdgeVectorEnv`.

    Parameters
    ----------
    scenario, node, peers, horizon, warmup
        As of :class:`EdgeVectorEnv`.
    render_mode : {"rgb_array", "human", None}, default None
        See :class:`sim_env.envs.render.Viewer`.
    """

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": RENDER_FPS}

    def __init__(
        self,
        scenario: Scenario | str = "ether2",
        node: int | None = None,
        peers: str = SELF,
        horizon: int = 1000,
        warmup: int = 0,
        render_mode: str | None = None,
    ) -> None:
        self._worlds = EdgeVectorEnv(scenario, node, 1, peers, horizon, warmup)
        self.action_space = self._worlds.single_action_space
        self.observation_space = self._worlds.single_observation_space
        self.set_actor: Callable[[Policy], None] = self._worlds.set_actor
        self.render_mode = render_mode
        self._viewer = Viewer(render_mode)

    @property
    def world(self) -> World | None:
        """The world, None before the first reset."""
        return self._worlds.world

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start a new world."""
        super().reset(seed=seed)
        self._worlds.np_random = self.np_random
        view, info = self._worlds.reset()
        self._viewer.follow(self.world)
        return {key: value[0] for key, value in view.items()}, info

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Advance by one tick."""
        view, reward, terminated, truncated, info = self._worlds.step(np.array([action]))
        self._viewer.follow(self.world)
        return (
            {key: value[0] for key, value in view.items()},
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            info,
        )

    def render(self) -> np.ndarray | None:
        """Return the frame of the world in mode ``rgb_array``, else None."""
        return self._viewer.render(self.world)

    def close(self) -> None:
        """Close the window of mode ``human``."""
        self._viewer.close()
