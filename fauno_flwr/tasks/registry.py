"""What the nodes of a run learn: to offload tasks in a network, or an environment of gymnasium."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from fauno_flwr.config.settings import GYM, RunConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.policy import FAUNO
from fauno_flwr.learning.registry import make_population
from fauno_flwr.tasks.edge import Experience, open_experience
from fauno_flwr.tasks.heuristics import find_heuristics
from sim_env.evaluation import run_policies
from sim_env.scenario import Scenario


class Task(Protocol):
    """What the nodes of a run learn.

    Attributes
    ----------
    names : list of str
        Of the nodes that learn.
    facts : dict
        About it, for the summary; ``rho`` is None where there is no load.
    """

    names: list[str]
    facts: dict[str, Any]

    def make_population(self, agents: int) -> AgentStack:
        """Untrained agents; all start equal."""

    def open(
        self,
        agent: int,
        node_config: Mapping[str, Any],
        population: AgentStack,
        rollouts: int,
        rng: np.random.Generator,
    ) -> AbstractContextManager[Experience]:
        """Where a node trains; parameters as of :func:`fauno_flwr.tasks.edge.open_experience`."""

    def evaluate(self, population: AgentStack | None) -> list[dict[str, Any]]:
        """Rows of the table; without the agents' if there are none."""

    def describe(self) -> str:
        """What it is, in a few words."""


class EdgeTask:
    """Offloading in an edge network.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
        The compiled world of `config`.
    """

    def __init__(self, config: RunConfig, scenario: Scenario) -> None:
        self.config, self.scenario = config, scenario
        self.names = [str(scenario.topology.names[node]) for node in scenario.agents]
        born = float(scenario.net.arrivals.sum() / config.physics.tick)
        self.facts = {"rho": scenario.rho, "tasks_per_second": born}

    def make_population(self, agents: int) -> AgentStack:
        """Untrained agents; all start equal."""
        return make_population(agents, self.config, self.scenario)

    def open(
        self,
        agent: int,
        node_config: Mapping[str, Any],
        population: AgentStack,
        rollouts: int,
        rng: np.random.Generator,
    ) -> AbstractContextManager[Experience]:
        """Copies of the network, or a shared one."""
        config, scenario = self.config, self.scenario
        return open_experience(config, scenario, agent, node_config, population, rollouts, rng)

    def evaluate(self, population: AgentStack | None) -> list[dict[str, Any]]:
        """FAuNO, if there are agents, and the heuristics on the same arrivals."""
        evaluation = self.config.evaluation
        policies = find_heuristics("evaluation.policies", evaluation.policies)
        if population is not None:
            fauno = population.policy(self.scenario.agent_of_node, evaluation.greedy)
            policies = {FAUNO: fauno, **policies}
        return run_policies(
            self.scenario,
            policies,
            evaluation.seeds,
            warmup=evaluation.warmup,
            window=evaluation.window,
        )

    def describe(self) -> str:
        """Its offered load."""
        return f"offered load rho = {self.scenario.rho:.3f}"


def make_task(config: RunConfig) -> Task:
    """The task that the settings want; ``ConfigError`` if it cannot be."""
    if config.world.kind == GYM:
        from fauno_flwr.tasks.gym import GymTask

        return GymTask(config)
    return EdgeTask(config, config.build_scenario())
