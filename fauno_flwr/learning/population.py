"""Stacked agents that learn by PPO: an actor and a critic each."""

from collections.abc import Mapping

import numpy as np
import torch

from fauno_flwr.config.settings import MODEL, PADDED
from fauno_flwr.learning import ppo
from fauno_flwr.learning.agents import AgentStack, Arrays, get, put
from fauno_flwr.learning.networks import Critic, PaddedCritic, PooledCritic, StackedMLP
from fauno_flwr.learning.transitions import Decisions


class Population(AgentStack):
    """Actors and critics of A agents.

    Parameters as of :class:`fauno_flwr.learning.agents.AgentStack`.
    """

    TRAINED = ("actor", "critic")

    def _others(self, generator: torch.Generator) -> dict[str, StackedMLP]:
        agents, encoding, hidden = self.agents, self.encoding, self.config.hidden
        self.critic: Critic
        if self.config.network == PADDED:
            self.critic = PaddedCritic(agents, encoding, self.slots, hidden, generator)
        else:
            self.critic = PooledCritic(agents, encoding, hidden, generator)
        return {"critic": self.critic}

    def exploration(self) -> tuple[bool, np.ndarray]:
        """Actions are drawn from the softmax."""
        return True, np.zeros(self.agents)

    def learn(
        self,
        batches: list[Decisions],
        rate: float | np.ndarray,
        rngs: list[np.random.Generator],
    ) -> list[dict[str, float]]:
        """:func:`fauno_flwr.learning.ppo.update`."""
        return ppo.update(self, batches, rate, rngs)

    def get_critic(self, agent: int = 0) -> Arrays:
        """Critic parameters of an agent, by name; this is what travels."""
        return get(self.critic, agent)

    def set_critic(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> None:
        """Replace the critic parameters of an agent."""
        put(self.critic, arrays, agent)

    def get_shared(self, share: str, agent: int = 0) -> Arrays:
        """What travels: the critic, or with ``share="model"`` the actor as well."""
        if share != MODEL:
            return self.get_critic(agent)
        parts = {"actor": self.get_actor(agent), "critic": self.get_critic(agent)}
        return {f"{part}.{name}": a for part, arrays in parts.items() for name, a in arrays.items()}

    def set_shared(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> bool:
        """Take back what :meth:`get_shared` gave; returns whether there was an actor in it."""
        if not any(name.startswith("actor.") for name in arrays):
            self.set_critic(arrays, agent)
            return False
        for part, module in self.networks.items():
            prefix = f"{part}."
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            put(module, own, agent)
        return True
