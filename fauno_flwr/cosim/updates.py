"""The updates that agents of a co-simulation have begun, computed together or in threads.

An update lasts in virtual time, and its inputs do not change while it does: it may be computed at
any moment until its end, with the same result.
"""

import time
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
    outcome : tuple of AgentStack, int and dict, or a Future of it and of its seconds; optional
    """

    agent: Agent
    rollout: Decisions
    rate: float
    rng: np.random.Generator
    outcome: Outcome | Future[tuple[Outcome, float]] | None = None


class Updates:
    """Updates in progress.

    Parameters
    ----------
    population : AgentStack
        Of all agents.
    threads : int
        So many updates are computed beside the world, if agents learn as fast one by one as
        together; 0: none, updates are computed when one is due.

    Attributes
    ----------
    beside : float
        Wall-clock seconds that the threads have spent on the finished updates.
    """

    def __init__(self, population: AgentStack, threads: int) -> None:
        self._population = population
        apart = threads > 0 and population.learns_one_by_one
        self._pool = ThreadPoolExecutor(threads) if apart else None
        self._begun: dict[int, Update] = {}
        self.beside = 0.0

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
        if isinstance(outcome, Future):
            outcome, seconds = outcome.result()
            self.beside += seconds
        stack, place, metrics = outcome
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


def _learn_alone(stack: AgentStack, update: Update) -> tuple[Outcome, float]:
    begin = time.perf_counter()
    metrics = _learn(stack, [update])[0]
    return (stack, 0, metrics), time.perf_counter() - begin
