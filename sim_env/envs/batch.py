"""Worlds of a vector environment that began together: what a node sees, does and earns there."""

import numpy as np

from sim_env.engine.observation import Observation, empty_observation
from sim_env.envs.layout import earned
from sim_env.policies.compiled import code_of, decide_once
from sim_env.policies.heuristics import Policy, choose_actions
from sim_env.scenario import Scenario
from sim_env.world import World

NOBODY = -1  # a node that does not exist


class Batch:
    """Worlds of the same age in which a node acts and its peers follow a policy.

    Built-in heuristics decide compiled, with a random stream of each world's own; any other policy
    draws from one stream, which depends on the seed of the first world.

    Parameters
    ----------
    scenario : Scenario
    node : int
        The node that acts.
    members : array of int, shape (B,)
        Numbers of the worlds in the vector environment, ascending.
    seeds : list of int
        Of the worlds.

    Attributes
    ----------
    world : World
        The worlds.
    mine : Observation
        The decisions of the node, one for each world that has one for it.
    """

    def __init__(
        self, scenario: Scenario, node: int, members: np.ndarray, seeds: list[int]
    ) -> None:
        self.members, self._node = members, node
        self.world = World(scenario, seeds)
        self._rng = np.random.default_rng([seeds[0], 2])  # failures draw from [seed, 1]
        one = empty_observation(1, int(scenario.net.slots.max()), scenario.encoding)
        self._scratch = one.local[0], one.destination[0], one.mask[0]
        self._actions = np.zeros((len(seeds), self.world.num_nodes), np.int32)
        self._look()

    def warm_up(self, policy: Policy, ticks: int) -> None:
        """Advance with all nodes under a policy, and discard what was earned."""
        for _ in range(ticks):
            self._decide(policy, self._seen, NOBODY)
            self.world.step(self._actions)
            self._look()
        self.world.collect()

    def step(self, chosen: np.ndarray, policy: Policy) -> np.ndarray:
        """Advance by one tick.

        Parameters
        ----------
        chosen : array of int32, shape (B,)
            Action of the node in each world; without effect where it has nothing to decide.
        policy : Policy
            Of the peers.

        Returns
        -------
        array of float64, shape (B,)
            What the node earned.
        """
        reward = np.full(len(self.members), self.world.net.reward.no_op)
        chosen = chosen[self.mine.world]
        reward[self.mine.world] = earned(self.mine, chosen)
        self._decide(policy, self._others, self._node)
        self._actions[self.mine.world, self._node] = chosen
        self.world.step(self._actions)
        reward += self.world.collect()[:, self._node]
        self._look()
        return reward

    def keep(self, members: np.ndarray) -> None:
        """Go on with those members only that are also in `members`."""
        kept = np.flatnonzero(np.isin(self.members, members))
        if len(kept) == len(self.members):
            return
        self.members, self._actions = self.members[kept], self._actions[kept]
        self.world.keep(kept)
        self._look()

    def _look(self) -> None:
        self._seen = self.world.observe()
        mine = self._seen.node == self._node
        self.mine, self._others = self._seen[mine], self._seen[~mine]

    def _decide(self, policy: Policy, rows: Observation, spared: int) -> None:
        code, world = code_of(policy), self.world
        if code is not None:
            state = world.net, world.state, world.now
            decide_once(*state, code, spared, self._actions, *self._scratch)
            return
        self._actions[:] = 0
        if len(rows):
            self._actions[rows.world, rows.node] = choose_actions(policy, rows, self._rng)
