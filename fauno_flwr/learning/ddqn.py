"""Double DQN (van Hasselt et al. 2016) on the decisions of stacked agents: the stand-in for SCOF.

The paper compares FAuNO with SCOF (Peng et al., IEEE Transactions on Services Computing: offloading
by federated reinforcement learning in industrial IoT). Its abstract says that nodes train locally
and upload their parameters to edge servers, which aggregate them, protected by differential
privacy; the FAuNO paper switched the latter off for the comparison. Its inner algorithm and its
settings are not known. This is therefore a *stand-in*: every node trains a double DQN, the whole
Q-network travels (``share=model``), training is synchronous (K = N, ``refill=version``), without
privacy. It represents synchronous federation of all parameters of a value-based learner and is no
evidence about SCOF itself.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from fauno_flwr.config.agent import DDQNConfig
from fauno_flwr.learning.agents import AgentStack, Arrays, get, put
from fauno_flwr.learning.transitions import Decisions, join, stack


class QPopulation(AgentStack):
    """Q-networks of A agents, with a target network and a replay buffer each.

    Parameters as of :class:`fauno_flwr.learning.agents.AgentStack`. The actor's scores are action
    values.

    Attributes
    ----------
    replay : list of Decisions
        The newest ``agent.replay`` decisions of each agent, those of one world in the order of
        time: a decision that is not the last of its world is followed by the next one.
    """

    Config = DDQNConfig
    TRAINED = ("actor",)
    config: DDQNConfig

    def _others(self, generator: torch.Generator) -> dict[str, nn.Module]:
        encoding = self.encoding
        nothing = Decisions(
            np.zeros((0, encoding.local), np.float32),
            np.zeros((0, 1, encoding.destinations), np.float32),
            np.zeros((0, 1), np.bool_),
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
            np.zeros(0, np.bool_),
        )
        self.replay = [nothing] * self.agents
        self.target = self._make_actor(generator)
        self.target.load_state_dict(self.actor.state_dict())
        return {"target": self.target}

    def exploration(self) -> tuple[bool, np.ndarray]:
        """Decay epsilon linearly with the gradient steps of an agent."""
        done = self.optimizers["actor"].steps.numpy().astype(np.float64)
        left = np.clip(1.0 - done / self.config.epsilon_steps, 0.0, 1.0)
        return False, self.config.epsilon + (1.0 - self.config.epsilon) * left

    def get_shared(self, share: str, agent: int = 0) -> Arrays:
        """Return the Q-network, for any `share`: there is nothing else."""
        return get(self.actor, agent)

    def set_shared(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> bool:
        """Replace the Q-network; the target network is updated in its own period."""
        put(self.actor, arrays, agent)
        return True

    def put(self, agent: int, other: Self, place: int = 0) -> None:
        """Replace an agent by a copy of another stack's, with its optimiser and its replay."""
        super().put(agent, other, place)
        self.replay[agent] = other.replay[place]  # shared: never modified in place

    def _state(self) -> dict[str, Any]:
        columns = [
            {name: torch.from_numpy(array) for name, array in vars(each).items()}
            for each in self.replay
        ]
        return {**super()._state(), "replay": columns}

    def _take_state(self, state: dict[str, Any]) -> None:
        super()._take_state(state)
        self.replay = [
            Decisions(**{name: tensor.numpy() for name, tensor in columns.items()})
            for columns in state["replay"]
        ]

    def learn(
        self,
        batches: list[Decisions],
        rate: float | np.ndarray,
        rngs: list[np.random.Generator],
    ) -> list[dict[str, float]]:
        """Add the decisions to the replay buffers and take gradient steps on samples of them.

        There are ``agent.epochs * agent.minibatches`` steps, each on ``1 / agent.minibatches`` as
        many transitions as are new: as many samples as in PPO. The error of a transition is
        ``r + gamma Q'(s', argmax_a Q(s', a)) - Q(s, a)`` with the target network Q', its loss half
        of the square; s' is the next decision of the same world.

        Parameters
        ----------
        batches, rate, rngs
            As of :meth:`fauno_flwr.learning.agents.AgentStack.update`. An agent without a new
            transition is not changed.

        Returns
        -------
        list of dict
            Per agent ``steps`` (new transitions), ``value_loss``, ``value`` (mean action value) and
            ``epsilon`` (after the update).
        """
        config = self.config
        rates = torch.from_numpy(np.broadcast_to(rate, self.agents).astype(np.float32))
        new = [int((~batch.last).sum()) for batch in batches]
        self.replay = [
            join([old, batch])[-config.replay :]
            for old, batch in zip(self.replay, batches, strict=True)
        ]
        usable = [np.flatnonzero(~each.last) for each in self.replay]
        sizes = [
            -(-count // config.minibatches) if len(rows) else 0
            for count, rows in zip(new, usable, strict=True)
        ]
        active = torch.tensor(sizes) > 0
        sums = torch.zeros(self.agents, 2)
        steps = config.epochs * config.minibatches if active.any() else 0
        for _ in range(steps):
            drawn = [
                rows[rng.integers(len(rows), size=size)] if size else rows[:0]
                for rows, size, rng in zip(usable, sizes, rngs, strict=True)
            ]
            sums += self._step(drawn, rates, active)
        means = (sums / max(steps, 1)).tolist()
        _, epsilon = self.exploration()
        return [
            {
                "steps": float(new[agent]),
                "value_loss": means[agent][0],
                "value": means[agent][1],
                "epsilon": float(epsilon[agent]),
            }
            for agent in range(self.agents)
        ]

    def _step(self, drawn: list[np.ndarray], rates: torch.Tensor, active: torch.Tensor) -> Any:
        """Take one gradient step on the transitions from some rows; returns loss, value (A, 2)."""
        now = [each[rows] for each, rows in zip(self.replay, drawn, strict=True)]
        local, destination, mask, action = stack(now)
        # The row after a terminal transition has weight 0.
        following = stack(
            [
                each[np.minimum(rows + 1, len(each) - 1)]
                for each, rows in zip(self.replay, drawn, strict=True)
            ]
        )[:3]
        reward = torch.zeros(action.shape)
        weight, continues = torch.zeros(action.shape), torch.ones(action.shape)
        for agent, batch in enumerate(now):
            reward[agent, : len(batch)] = torch.from_numpy(batch.reward)
            weight[agent, : len(batch)] = 1.0 / max(len(batch), 1)
            continues[agent, : len(batch)] = torch.from_numpy(~batch.terminal).float()
        with torch.no_grad():
            best = self.actor.logits(*following).argmax(2, keepdim=True)
            after = self.target.logits(*following).gather(2, best).squeeze(2)
        value = self.actor.logits(local, destination, mask).gather(2, action.unsqueeze(2))
        value = value.squeeze(2)
        loss = 0.5 * (reward + self.config.gamma * after * continues - value).square()
        (loss * weight).sum().backward()  # type: ignore[no-untyped-call]
        optimizer = self.optimizers["actor"]
        optimizer.step(rates, active)
        with torch.no_grad():
            due = active & (optimizer.steps % self.config.target_period == 0)
            for old, newest in zip(self.target.parameters(), self.actor.parameters(), strict=True):
                old[due] = newest[due]
            return (torch.stack([loss, value], dim=2) * weight.unsqueeze(2)).sum(1)
