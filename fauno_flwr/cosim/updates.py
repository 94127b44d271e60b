"""The updates that agents of a co-simulation have begun, computed together or in threads.

An update lasts in virtual time, and its inputs do not change while it does: it may be computed at
any moment until its end, with the same result.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from fauno_flwr.cosim.agents import Agent
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.transitions import Decisions

Outcome = tuple[AgentStack, int, dict[str, float]]  # a stack, the agent's place in it, metrics


@dataclass
class Update:
    """One agent's update.

    Parameters
    ----------
    agent : Agent
    rollout : Decisions
    rate : float
        Learning rate.
    rng : Generator
        Copy of the agent's, which a dropped update leaves as it is.
    outcome : tuple of AgentStack, int and dict, or its Future; optional
    """

    agent: Agent
    rollout: Decisions
    rate: float
    rng: np.random.Generator
    outcome: Outcome | Future[Outcome] | None = None


class Updates:
    """Updates in progress.

    Parameters
    ----------
    population : AgentStack
        Of all agents.
    threads : int
        So many updates are computed beside the world, if agents learn as fast one by one as
        together; 0: none, updates are computed when one is due.
    """

    def __init__(self, population: AgentStack, threads: int) -> None:
        self._population = population
        apart = threads > 0 and population.learns_one_by_one
        self._pool = ThreadPoolExecutor(threads) if apart else None
        self._begun: dict[int, Update] = {}

    def begin(self, agent: Agent, rollout: Decisions, rate: float) -> None:
        """Begin the update of an agent."""
        update = Update(agent, rollout, rate, deepcopy(agent.rng))
        self._begun[agent.index] = update
        if self._pool is not None:
            stack = self._population.select([agent.index])
            update.outcome = self._pool.submit(_learn_alone, stack, update)

    def drop(self, agent: Agent) -> None:
        """Forget the update of an agent, if there is one."""
        self._begun.pop(agent.index, None)

    def finish(self, agent: Agent) -> dict[str, float]:
        """Replace the agent by what it has learned; return the metrics of the update."""
        update = self._begun[agent.index]
        if update.outcome is None:
            self._compute()
        outcome = update.outcome
        assert outcome is not None
        stack, place, metrics = outcome.result() if isinstance(outcome, Future) else outcome
        del self._begun[agent.index]
        self._population.put(agent.index, stack, place)
        agent.rng = update.rng
        return metrics

    def _compute(self) -> None:
        """Compute all updates that have begun, side by side."""
        updates = [update for update in self._begun.values() if update.outcome is None]
        stack = self._population.select([update.agent.index for update in updates])
        for place, metrics in enumerate(_learn(stack, updates)):
            updates[place].outcome = stack, place, metrics


def _learn(stack: AgentStack, updates: list[Update]) -> list[dict[str, float]]:
    return stack.update(
        [update.rollout for update in updates],
        np.array([update.rate for update in updates]),
        [update.rng for update in updates],
    )


def _learn_alone(stack: AgentStack, update: Update) -> Outcome:
    return stack, 0, _learn(stack, [update])[0]
