"""All nodes of one world as a PettingZoo environment: every agent decides in every tick."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from sim_env.envs.layout import PARTS, Layout, earned, one_of
from sim_env.envs.overview import overview, overview_space
from sim_env.envs.render import RENDER_FPS, RENDER_MODES, Viewer
from sim_env.errors import require_number
from sim_env.scenario import Scenario, as_scenario
from sim_env.world import World


class EdgeParallelEnv(ParallelEnv):
    """All agents of one world.

    A step is a tick. Observation, action and reward of an agent are those of
    `sim_env.envs.single.EdgeEnv` for its node: ``action_mask`` marks the legal actions; an illegal
    one keeps the task, earns what keeping would and is counted by the world
    (``world.state.total``, column ``MASKED``); without an undecided task an action has no effect.

    Agents
        Named as the topology names its nodes; those nodes that decide, in the order of the nodes.
    End of an episode
        All agents are truncated after `horizon` ticks; episodes never terminate.

    Parameters
    ----------
    scenario : Scenario or str, default "ether2"
        Compiled scenario or the name of one.
    horizon : int, default 1000
        Ticks of an episode.
    render_mode : {"rgb_array", "human", None}, default None
        See :class:`sim_env.envs.render.Viewer`.
    layout : {"parts", "masked", "flat"}, default "parts"
        See :class:`sim_env.envs.layout.Layout`. In ``masked`` and ``flat`` all agents have the same
        spaces, as parameter sharing needs them: those of the one with the most slots; further slots
        of the others are zeros, and illegal.

    Attributes
    ----------
    state_space : gymnasium.spaces.Box
        Of :meth:`state`.
    world : World or None
        The world, None before the first reset.

    Raises
    ------
    ValueError
        For an unknown scenario, render mode or layout, or a horizon below 1.
    """

    metadata: dict[str, Any] = {
        "name": "fauno_v0",
        "is_parallelizable": True,
        "render_modes": RENDER_MODES,
        "render_fps": RENDER_FPS,
    }

    def __init__(
        self,
        scenario: Scenario | str = "ether2",
        horizon: int = 1000,
        render_mode: str | None = None,
        layout: str = PARTS,
    ) -> None:
        self.scenario = as_scenario(scenario)
        require_number("horizon", horizon, at_least=1)
        self.horizon = horizon
        names = [self.scenario.topology.names[node] for node in self.scenario.agents]
        self.possible_agents: list[str] = names
        self.agents: list[str] = []
        self.world: World | None = None
        self.render_mode = render_mode
        self._viewer = Viewer(render_mode)
        slots = self.scenario.net.slots[self.scenario.agents]
        self._alike = layout != PARTS
        if self._alike:
            slots[:] = slots.max()
        self._slots = dict(zip(names, slots.tolist(), strict=True))
        self._layout = Layout(layout, int(slots.max()), self.scenario.encoding)
        self._node = dict(zip(names, self.scenario.agents.tolist(), strict=True))
        # Row of the view of each node.
        self._row = np.full(self.scenario.topology.num_nodes, -1)
        self._row[self.scenario.agents] = np.arange(len(names))
        each = {name: replace(self._layout, slots=count) for name, count in self._slots.items()}
        self.observation_spaces = {name: each[name].observation_space for name in names}
        self.action_spaces = {name: each[name].action_space for name in names}
        self.state_space = overview_space(self.scenario)
        self._rng: np.random.Generator | None = None

    def observation_space(self, agent: str) -> spaces.Dict | spaces.Box:
        """Return the observation space of `agent`; the same object in every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete:
        """Return the action space of `agent`; the same object in every call."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start a new world, seeded from `seed` or from the environment's own stream.

        The world is the one that ``EdgeEnv.reset`` starts from the same seed.
        """
        if seed is not None or self._rng is None:
            self._rng, _ = gym.utils.seeding.np_random(seed)
        self.world = World(self.scenario, self._rng.integers(0, 2**63, 1, dtype=np.uint64).tolist())
        self.world.collect()  # discards what a tick earned that began before the first step
        self._seen = self.world.observe()
        self.agents = list(self.possible_agents)
        self._viewer.follow(self.world)
        return self._views(), {name: {} for name in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[
        dict[str, Any],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Advance by one tick.

        Parameters
        ----------
        actions : dict of str to int
            Slot by agent; an agent that is not in it keeps its task.

        Returns
        -------
        observations, rewards, terminations, truncations, infos : dict
            By agent; all empty once the episode is over.

        Raises
        ------
        gymnasium.error.ResetNeeded
            Before the first reset.
        ValueError
            If a key of `actions` is not an agent.
        """
        if self.world is None:
            raise gym.error.ResetNeeded("call reset before step")
        unknown = sorted(set(actions) - set(self.possible_agents))
        if unknown:
            raise ValueError(f"actions of {', '.join(unknown)}: not among possible_agents")
        if not self.agents:
            return {}, {}, {}, {}, {}
        requested = np.zeros(self.scenario.topology.num_nodes, np.int32)
        for name, action in actions.items():
            # One past either end is as illegal as any number beyond it, and fits the integers.
            requested[self._node[name]] = min(max(int(action), -1), self._slots[name])
        nodes = self._seen.node
        reward = np.full(len(self.agents), self.scenario.net.reward.no_op)
        reward[self._row[nodes]] = earned(self._seen, requested[nodes])
        decisions = np.zeros((1, len(requested)), np.int32)
        decisions[0, nodes] = requested[nodes]
        self.world.step(decisions)
        reward += self.world.collect()[0, self.scenario.agents]
        self._seen = self.world.observe()
        self._viewer.follow(self.world)
        over = self.world.now >= self.horizon
        live = self.agents
        self.agents = [] if over else live
        return (
            self._views(),
            dict(zip(live, reward.tolist(), strict=True)),
            dict.fromkeys(live, False),
            dict.fromkeys(live, over),
            {name: {} for name in live},
        )

    def state(self) -> np.ndarray:
        """Return the state of the network: :func:`sim_env.envs.overview.overview`.

        Raises
        ------
        gymnasium.error.ResetNeeded
            Before the first reset.
        """
        if self.world is None:
            raise gym.error.ResetNeeded("call reset before state")
        return overview(self.world, self._seen)

    def render(self) -> np.ndarray | None:
        """Return the frame of the world in mode ``rgb_array``, else None."""
        return self._viewer.render(self.world)

    def close(self) -> None:
        """Close the window of mode ``human``."""
        self._viewer.close()

    def _views(self) -> dict[str, Any]:
        names, rows = self.possible_agents, self._row[self._seen.node]
        together = self._layout.show(len(names), [(self._seen, rows)])
        views = {name: one_of(together, row) for row, name in enumerate(names)}
        if not self._alike:
            for name, view in views.items():
                for key in ("destinations", "action_mask"):
                    view[key] = view[key][: self._slots[name]]
        return views
