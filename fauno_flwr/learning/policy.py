"""Stacked actors as a policy for a world."""

import numpy as np

from fauno_flwr.learning.networks import require_slots
from fauno_flwr.learning.rollout import Weights, advance, make_rows, make_scratch
from sim_env.engine.observation import Observation
from sim_env.world import World

FAUNO, UNTRAINED = "fauno", "untrained"  # names of the agents among the policies


class ActorPolicy:
    """Stacked actors as a policy: called tick by tick in numpy, or driving a world compiled.

    Parameters
    ----------
    weights : Weights
        With an empty ``agent_of_node`` the first actor decides for all nodes.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def drive(self, world: World, ticks: int) -> None:
        """Advance a world by `ticks`; actions are sampled from random streams of the world.

        Raises
        ------
        ValueError
            For padded actors in a network whose largest number of slots is not theirs.
        """
        weights, encoding = self.weights, world.scenario.encoding
        slots = int(world.net.slots.max())
        self._require_network(slots)
        if len(weights.agent_of_node) == 0:
            weights = weights._replace(agent_of_node=np.zeros(world.num_nodes, np.int32))
        scratch = make_scratch(encoding, slots, weights.bias.shape[1])
        advance(world, ticks, weights, scratch, make_rows(encoding, 0, 0, 0, 0))

    def __call__(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        """Choose actions, shape (R,); raise as :meth:`drive`."""
        local, destination = observation.features()
        mask, weights = observation.mask, self.weights
        self._require_network(mask.shape[1])
        if len(weights.agent_of_node) == 0:
            return self.choose(0, local, destination, mask, rng)
        actions = np.empty(len(mask), np.int64)
        agents = weights.agent_of_node[observation.node]
        for agent in np.unique(agents):
            mine = agents == agent
            actions[mine] = self.choose(agent, local[mine], destination[mine], mask[mine], rng)
        return actions

    def scores_of(self, observation: Observation) -> np.ndarray:
        """Compute the scores of all decisions of an observation, shape (R, K): :meth:`scores`."""
        local, destination = observation.features()
        agents = self.weights.agent_of_node[observation.node]
        scores = np.empty(observation.mask.shape, np.float32)
        for agent in np.unique(agents):
            mine = agents == agent
            scores[mine] = self.scores(
                agent, local[mine], destination[mine], observation.mask[mine]
            )
        return scores

    def _require_network(self, slots: int) -> None:
        known = self.weights.slot.shape[1]
        if self.weights.padded and slots != known:
            raise ValueError(
                f"a network of up to {slots} slots: padded actors act only in one of {known}, as "
                f"that of their training (agent.network=equivariant moves to any)"
            )

    def choose(
        self,
        agent: int,
        local: np.ndarray,
        destination: np.ndarray,
        mask: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Choose actions of one agent, shape (R,); parameters as of :meth:`scores`."""
        scores = self.scores(agent, local, destination, mask)
        if self.weights.softmax:
            scores = scores + rng.gumbel(size=scores.shape)  # its argmax samples the softmax
        chosen = scores.argmax(axis=1)
        epsilon = self.weights.epsilon[agent]
        if epsilon > 0:
            explores = rng.random(len(mask)) < epsilon
            at_random = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
            chosen = np.where(explores, at_random, chosen)
        return np.asarray(chosen)

    def scores(
        self, agent: int, local: np.ndarray, destination: np.ndarray, mask: np.ndarray
    ) -> np.ndarray:
        """Compute the logits, or action values, of one agent.

        Parameters
        ----------
        agent : int
        local : array of float32, shape (R, F)
        destination : array of float32, shape (R, K, D)
        mask : array of bool, shape (R, K)

        Returns
        -------
        array of float32, shape (R, K)
            Minus infinity where illegal.
        """
        w = self.weights
        rows, slots = np.nonzero(mask)
        legal = destination[rows, slots]
        scores = np.full(mask.shape, -np.inf, np.float32)
        base = local @ w.local[agent] + w.bias[agent]
        if w.padded:
            require_slots(mask.shape[1], w.slot.shape[1])
            known = slice(mask.shape[1])
            base += np.tensordot(destination * mask[:, :, None], w.slot[agent, known], 2)
            base += mask.astype(np.float32) @ w.present[agent, known]
            x = self._second_layer(agent, base)
            every = x @ w.last[agent, known].T + w.last_bias[agent, known]
            scores[rows, slots] = every[rows, slots]
            return scores
        first = np.flatnonzero(slots == 0)  # slot 0 is always legal: start of each row
        best = np.minimum.reduceat(legal, first, axis=0)
        base -= best @ w.best[agent]
        x = self._second_layer(agent, legal @ w.slot[agent, 0] + base[rows])
        scores[rows, slots] = x @ w.last[agent, 0] + w.last_bias[agent, 0]
        return scores

    def _second_layer(self, agent: int, x: np.ndarray) -> np.ndarray:
        w = self.weights
        width = w.middle.shape[2]
        blocks = np.tanh(x).reshape(len(x), -1, width).swapaxes(0, 1)
        second = blocks @ w.middle[agent].reshape(-1, width, width)
        return np.asarray(np.tanh(second.swapaxes(0, 1).reshape(x.shape) + w.middle_bias[agent]))


class ActionScores:
    """How agents weigh the actions that they may choose from.

    Parameters
    ----------
    acting : ActorPolicy
        The agents, exploring as in training.
    critic : ActorPolicy, optional
        Their critics, where these value actions.
    """

    def __init__(self, acting: ActorPolicy, critic: ActorPolicy | None) -> None:
        self.acting, self.critic = acting, critic

    def __call__(self, observation: Observation) -> tuple[np.ndarray, np.ndarray | None]:
        """Compute the probabilities of the actions, and their values if there are any.

        Agents whose scores are values take the best action, with the probability 1 - epsilon, or
        any.

        Returns
        -------
        probabilities : array of float, shape (R, K)
            0 where illegal.
        values : array of float32, shape (R, K), or None
            0 where illegal.
        """
        mask, weights = observation.mask, self.acting.weights
        scores = self.acting.scores_of(observation)
        if weights.softmax:
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            values = None if self.critic is None else self.critic.scores_of(observation)
        else:
            epsilon = weights.epsilon[weights.agent_of_node[observation.node]][:, None]
            best = np.arange(mask.shape[1]) == scores.argmax(axis=1)[:, None]
            odds = (1 - epsilon) * best + epsilon * mask / mask.sum(axis=1, keepdims=True)
            values = scores
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        return probabilities, None if values is None else np.where(mask, values, 0)
