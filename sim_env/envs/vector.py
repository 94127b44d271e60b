"""One node of many networks as a vector environment of gymnasium; its peers follow a policy."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from sim_env import plugins
from sim_env.envs.batch import Batch
from sim_env.envs.layout import PARTS, Layout, one_of
from sim_env.errors import require_choice, require_whole, shown
from sim_env.policies.heuristics import GROUP, POLICIES, Policy, get_policy, random
from sim_env.scenario import Scenario, as_scenario
from sim_env.world import World

SELF = "self"


class EdgeVectorEnv(VectorEnv):
    """One agent in B parallel worlds.

    A step is a tick. The action is about the node's first undecided task: 0 keeps it, k > 0 sends
    it to the k-th neighbour; it has no effect in a tick without one. An illegal action keeps the
    task.

    Observation (arrays with leading axis B, arranged by `layout`)
        ``local`` (12,) and ``destinations`` (K, 10), or the widths of the scenario's observation:
        see :mod:`sim_env.engine.features`; ``local[0]`` is 1 where there is something to decide,
        else all is zero.
        ``action_mask`` (K,), int8: legal actions.
    Reward
        Of the decision taken in this step, or of the tasks that ended in it, by the scenario's
        reward: see :mod:`sim_env.engine.reward`.
    End of an episode
        Truncation after `horizon` ticks; episodes never terminate.
    Seeds
        As of ``gymnasium.vector.SyncVectorEnv``: world i is the one that :class:`sim_env.EdgeEnv`
        starts from ``seed + i``, or from ``seed[i]``.

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
    layout : {"parts", "masked", "flat"}, default "parts"
        See :class:`sim_env.envs.layout.Layout`.
    autoreset_mode : {"NextStep", "SameStep", "Disabled"} or AutoresetMode, default "NextStep"
        When a world that was truncated starts again, as gymnasium defines it.

    Attributes
    ----------
    streams : list of numpy.random.Generator
        Of the seeds of each world's episodes.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(
        self,
        scenario: Scenario | str = "ether2",
        node: int | None = None,
        num_envs: int = 1,
        peers: str = SELF,
        horizon: int = 1000,
        warmup: int = 0,
        layout: str = PARTS,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
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
        mode = getattr(autoreset_mode, "value", autoreset_mode)
        require_choice("autoreset_mode", mode, [each.value for each in AutoresetMode])
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode(mode)}
        self.num_envs, self.horizon, self.warmup = num_envs, horizon, warmup
        self._takes_actor = peers == SELF
        self._peer_policy: Policy = random if self._takes_actor else get_policy(peers, "peers")
        self.slots = int(self.scenario.net.slots[self.node])
        self._layout = Layout(layout, self.slots, self.scenario.encoding)
        self.single_action_space = self._layout.action_space
        self.single_observation_space = self._layout.observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.streams: list[np.random.Generator] = []
        self._batches: list[Batch] = []

    @property
    def world(self) -> World | None:
        """The worlds, None before the first reset.

        Raises
        ------
        ValueError
            While some began later than others, after a reset with ``reset_mask``.
        """
        if len(self._batches) > 1:
            raise ValueError(
                f"the worlds began at {len(self._batches)} different times: see worlds, or reset "
                f"all of them"
            )
        return self._batches[0].world if self._batches else None

    @property
    def worlds(self) -> list[tuple[np.ndarray, World]]:
        """Numbers of the worlds that began together, ascending, and these worlds."""
        return [(batch.members, batch.world) for batch in self._batches]

    def set_actor(self, actor: Policy) -> None:
        """Let the peers follow `actor` from now on; no effect unless ``peers="self"``."""
        if self._takes_actor:
            self._peer_policy = actor

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start new worlds, seeded from `seed` or from each world's own stream.

        Parameters
        ----------
        seed : int or sequence of int, optional
            World i is seeded by ``seed + i``, or by ``seed[i]`` unless that is None.
        options : dict, optional
            ``reset_mask``, bool (B,): the worlds to reset; default: all.

        Returns
        -------
        observation, info
            Of all worlds.

        Raises
        ------
        ValueError
            If `seed` or the mask is not one for each world.
        gymnasium.error.ResetNeeded
            If the first reset is one of some worlds only.
        """
        which = self._masked(options)
        if len(which) < self.num_envs and not self._batches:
            raise gym.error.ResetNeeded("reset all worlds before some of them")
        seeds: Sequence[int | None]
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed has {len(seeds)} values: must have one for each of num_envs")
        if not self.streams:
            self.streams = [np_random()[0] for _ in range(self.num_envs)]
        for i in which:
            if seeds[i] is not None:
                self.streams[i] = np_random(seeds[i])[0]
        self._begin(which)
        return self._view(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance by one tick; truncated worlds start again as `autoreset_mode` says.

        Raises
        ------
        gymnasium.error.ResetNeeded
            Before the first reset, and in mode ``Disabled`` if a world is over.
        """
        if not self._batches:
            raise gym.error.ResetNeeded("call reset before step")
        mode, over = self.metadata["autoreset_mode"], self._over()
        if mode == AutoresetMode.DISABLED and over.any():
            raise gym.error.ResetNeeded(
                f"worlds {np.flatnonzero(over).tolist()} are over: call reset with reset_mask"
            )
        # One past either end is as illegal as any number beyond it, and fits the world's integers.
        chosen = np.clip(np.asarray(actions), -1, self.slots)
        reward = np.zeros(self.num_envs)
        for batch in self._batches:
            if not over[batch.members[0]]:
                reward[batch.members] = batch.step(chosen[batch.members], self._peer_policy)
        never = np.zeros(self.num_envs, np.bool_)
        if over.any():
            self._begin(np.flatnonzero(over))
        truncated = self._over()
        info: dict[str, Any] = {}
        if mode == AutoresetMode.SAME_STEP and truncated.any():
            last = self._view()
            for i in np.flatnonzero(truncated).tolist():
                end = {"final_obs": one_of(last, i), "final_info": {}}
                info = self._add_info(info, end, i)
            self._begin(np.flatnonzero(truncated))
        return self._view(), reward, never, truncated, info

    def action_masks(self) -> np.ndarray:
        """Return the legal actions, bool (B, K), of the last observation.

        Raises
        ------
        gymnasium.error.ResetNeeded
            Before the first reset.
        """
        if not self._batches:
            raise gym.error.ResetNeeded("call reset before action_masks")
        mask = np.zeros((self.num_envs, self.slots), np.bool_)
        mask[:, 0] = True
        for batch in self._batches:
            mask[batch.members[batch.mine.world]] = batch.mine.mask[:, : self.slots]
        return mask

    def _masked(self, options: dict[str, Any] | None) -> np.ndarray:
        """Return the numbers of the worlds to reset."""
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.arange(self.num_envs)
        if (
            not isinstance(mask, np.ndarray)
            or mask.dtype != np.bool_
            or mask.shape != (self.num_envs,)
            or not mask.any()
        ):
            raise ValueError(
                f"reset_mask is {shown(mask)}: must be an array of bool of shape "
                f"({self.num_envs},), True at least once"
            )
        return np.flatnonzero(mask)

    def _begin(self, which: np.ndarray) -> None:
        """Replace some worlds by new ones."""
        rest = np.setdiff1d(np.arange(self.num_envs), which)
        for batch in self._batches:
            batch.keep(rest)
        seeds = [int(self.streams[i].integers(0, 2**63, 1, dtype=np.uint64)[0]) for i in which]
        new = Batch(self.scenario, self.node, which, seeds)
        new.warm_up(self._peer_policy, self.warmup)
        self._batches = [*(each for each in self._batches if len(each.members)), new]

    def _over(self) -> np.ndarray:
        """Return which worlds have come to the end of their episode, bool (B,)."""
        over = np.zeros(self.num_envs, np.bool_)
        for batch in self._batches:
            over[batch.members] = batch.world.now >= self.warmup + self.horizon
        return over

    def _view(self) -> Any:
        decisions = [(batch.mine, batch.members[batch.mine.world]) for batch in self._batches]
        return self._layout.show(self.num_envs, decisions)
