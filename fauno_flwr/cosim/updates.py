"""The updates that agents of a co-simulation have begun, computed together or in threads.

An update lasts in virtual time, and its inputs do not change while it does: it may be computed at
any moment until its end, with the same result.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np

from fauno_flwr.cosim.agents import Agent
from fauno_flwr.learning.agents import AgentStack, Learner
from fauno_flwr.learning.transitions import Decisions


@dataclass
class Outcome:
    """What an agent has learned.

    Parameters
    ----------
    metrics : dict of str to float
    write : callable
        Replaces the agent by what it has learned.
    seconds : float
        Wall-clock time that a thread has spent on it.
    """

    metrics: dict[str, float]
    write: Callable[[], None]
    seconds: float = 0.0


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
    outcome : Outcome, or a Future of it; optional
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

    Attributes
    ----------
    beside : float
        Wall-clock seconds that the threads have spent on the finished updates.
    """

    def __init__(self, population: AgentStack, threads: int) -> None:
        self._population, self._alone = population, population.learns_one_by_one
        self._pool = ThreadPoolExecutor(threads) if threads > 0 and self._alone else None
        self._begun: dict[int, Update] = {}
        self.beside = 0.0

    def begin(self, agent: Agent, rollout: Decisions, rate: float) -> None:
        """Begin the update of an agent."""
        update = self._begun[agent.index] = Update(agent, rollout, rate, deepcopy(agent.rng))
        if self._pool is not None:
            learner = self._population.learner(agent.index)
            update.outcome = self._pool.submit(_learn_beside, learner, update)

    def drop(self, agent: Agent) -> None:
        """Forget the update of an agent, if there is one."""
        self._begun.pop(agent.index, None)

    def finish(self, agent: Agent) -> dict[str, float]:
        """Replace the agent by what it has learned; return the metrics of the update."""
        update = self._begun[agent.index]
        if update.outcome is None:
            if self._alone:
                update.outcome = _learn_alone(self._population.learner(agent.index), update)
            else:
                self._compute()
        outcome = update.outcome
        assert outcome is not None
        if isinstance(outcome, Future):
            outcome = outcome.result()
        del self._begun[agent.index]
        outcome.write()
        agent.rng = update.rng
        self.beside += outcome.seconds
        return outcome.metrics

    def _compute(self) -> None:
        """Compute all updates that have begun, side by side."""
        updates = [update for update in self._begun.values() if update.outcome is None]
        agents = [update.agent.index for update in updates]
        stack = self._population.select(agents)
        learned = stack.update(
            [update.rollout for update in updates],
            np.array([update.rate for update in updates]),
            [update.rng for update in updates],
        )
        for place, (agent, metrics) in enumerate(zip(agents, learned, strict=True)):
            write = partial(self._population.put, agent, stack, place)
            updates[place].outcome = Outcome(metrics, write)


def _learn_alone(learner: Learner, update: Update) -> Outcome:
    return Outcome(learner.learn(update.rollout, update.rate, update.rng), learner.write)


def _learn_beside(learner: Learner, update: Update) -> Outcome:
    begin = time.perf_counter()
    outcome = _learn_alone(learner, update)
    outcome.seconds = time.perf_counter() - begin
    return outcome
