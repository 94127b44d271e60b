"""Offloading in an edge network: the task of FAuNO."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fauno_flwr.config.settings import SHARED, RunConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.policy import FAUNO, UNTRAINED
from fauno_flwr.learning.registry import make_population
from fauno_flwr.tasks.base import Experience
from fauno_flwr.tasks.heuristics import find_heuristics
from fauno_flwr.tasks.memory import evaluations_at_once
from fauno_flwr.tasks.own_worlds import own_worlds
from fauno_flwr.tasks.start import start_agents
from sim_env.evaluation import interval, run_policies, run_policy
from sim_env.policies.heuristics import Policy
from sim_env.scenario import Scenario

if TYPE_CHECKING:
    from sim_env.replay.files import Replay


class EdgeTask:
    """Offloading in an edge network.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
        The compiled world of `config`.
    threads : int, default 1
        So many policies are evaluated at once, as far as the memory allows.
    """

    def __init__(self, config: RunConfig, scenario: Scenario, threads: int = 1) -> None:
        self.config, self.scenario, self.threads = config, scenario, threads
        self.names = [str(scenario.topology.names[node]) for node in scenario.agents]
        arrivals = float(scenario.net.arrivals.sum() / config.physics.tick)
        self.facts = {"rho": scenario.rho, "tasks_per_second": arrivals}

    def make_population(self, agents: int) -> AgentStack:
        """Make untrained agents; all start equal."""
        return make_population(agents, self.config, self.scenario)

    def check(self, agent: int, node_config: Mapping[str, Any]) -> None:
        """Check that a shared world, if there is one and it answers, has the same settings."""
        if self.config.world.kind == SHARED:
            from fauno_flwr.shared_world.client import SharedWorld, access_of

            access = access_of(self.config, node_config)
            with SharedWorld(self.config, self.scenario, agent, access) as shared:
                shared.check()

    def open(
        self,
        agent: int,
        node_config: Mapping[str, Any],
        population: AgentStack,
        rollouts: int,
        rng: np.random.Generator,
    ) -> AbstractContextManager[Experience]:
        """Open copies of the network, or a shared one."""
        config, scenario = self.config, self.scenario
        return open_experience(config, scenario, agent, node_config, population, rollouts, rng)

    def evaluate(self, population: AgentStack | None) -> list[dict[str, Any]]:
        """Evaluate FAuNO and its start, if there are agents, and the heuristics; same arrivals."""
        evaluation = self.config.evaluation
        return run_policies(
            self.scenario,
            self._policies(population),
            evaluation.seeds,
            warmup=evaluation.warmup,
            window=evaluation.window,
            threads=evaluations_at_once(self.config, self.scenario, self.threads),
        )

    def _policies(self, population: AgentStack | None) -> dict[str, Policy]:
        """Return the policies of the evaluation, by name."""
        evaluation = self.config.evaluation
        policies = find_heuristics("evaluation.policies", evaluation.policies)
        if population is None:
            return policies
        untrained = start_agents(self.config, self.make_population(population.agents))
        agents = {FAUNO: population, UNTRAINED: untrained}
        acting = {
            name: each.policy(self.scenario.agent_of_node, evaluation.greedy)
            for name, each in agents.items()
        }
        return acting | policies

    def record(self, population: AgentStack | None) -> "Replay":
        """Record the first world of the evaluation under each policy."""
        from sim_env.replay.files import (
            record_policies,  # slow to import, and only a server needs it
        )

        scores = None if population is None else population.scores(self.scenario.agent_of_node)
        evaluation = self.config.evaluation
        return record_policies(
            self.scenario,
            self._policies(population),
            evaluation.seed,
            warmup=evaluation.warmup,
            window=evaluation.window,
            scores={} if scores is None else {FAUNO: scores},
        )

    def validate(self, population: AgentStack) -> dict[str, float]:
        """Return finished ratio and mean response of the agents on the validation seeds."""
        evaluation = self.config.evaluation
        metrics = run_policy(
            self.scenario,
            population.policy(self.scenario.agent_of_node, evaluation.greedy),
            evaluation.validation_seeds,
            warmup=evaluation.warmup,
            window=evaluation.window,
        )
        return {
            "finished_ratio": interval(metrics.finished_ratio).mean,
            "response": interval(metrics.mean_response).mean,
        }

    def describe(self) -> str:
        """Return the offered load."""
        return f"offered load rho = {self.scenario.rho:.3f}"


@contextmanager
def open_experience(
    config: RunConfig,
    scenario: Scenario,
    agent: int,
    node_config: Mapping[str, Any],
    population: AgentStack,
    rollouts: int,
    rng: np.random.Generator,
) -> Iterator[Experience]:
    """Open copies of the network, or a shared one; closed when the context ends.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
    agent, node_config, population, rollouts, rng
        As of :meth:`fauno_flwr.tasks.base.Task.open`; for a shared world the node config has the
        absolute paths ``world-token-file`` and ``world-ca``.
    """
    if config.world.kind != SHARED:
        yield own_worlds(config, scenario, agent, population, rollouts, rng)
        return
    from fauno_flwr.shared_world.client import SharedWorld, access_of

    with SharedWorld(config, scenario, agent, access_of(config, node_config)) as shared:
        yield shared
