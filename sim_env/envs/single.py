"""One node of one network as a gymnasium environment; its peers follow a policy."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from sim_env.envs.layout import PARTS, one_of
from sim_env.envs.render import RENDER_FPS, RENDER_MODES, Viewer
from sim_env.envs.vector import SELF, EdgeVectorEnv
from sim_env.policies.heuristics import Policy
from sim_env.scenario import Scenario
from sim_env.world import World


class EdgeEnv(gym.Env):
    """One agent in one world: a single world of :class:`sim_env.envs.vector.EdgeVectorEnv`.

    Parameters
    ----------
    scenario, node, peers, horizon, warmup
        As of :class:`sim_env.envs.vector.EdgeVectorEnv`.
    render_mode : {"rgb_array", "human", None}, default None
        See :class:`sim_env.envs.render.Viewer`.
    layout
        As of :class:`sim_env.envs.vector.EdgeVectorEnv`.
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
        layout: str = PARTS,
    ) -> None:
        self._worlds = EdgeVectorEnv(scenario, node, 1, peers, horizon, warmup, layout)
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
    ) -> tuple[Any, dict[str, Any]]:
        """Start a new world."""
        super().reset(seed=seed)
        self._worlds.streams = [self.np_random]
        view, info = self._worlds.reset()
        self._viewer.follow(self.world)
        return one_of(view, 0), info

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Advance by one tick."""
        view, reward, terminated, truncated, info = self._worlds.step(np.array([action]))
        self._viewer.follow(self.world)
        return one_of(view, 0), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def action_masks(self) -> np.ndarray:
        """Return the legal actions, bool (K,), as sb3-contrib's ``MaskablePPO`` asks for them."""
        return self._worlds.action_masks()[0]

    def render(self) -> np.ndarray | None:
        """Return the frame of the world in mode ``rgb_array``, else None."""
        return self._viewer.render(self.world)

    def close(self) -> None:
        """Close the window of mode ``human``."""
        self._viewer.close()
