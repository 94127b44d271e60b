"""Where a node's decisions come from: copies of the network of its own, or a shared world."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from fauno_flwr.config.settings import SHARED, RunConfig
from fauno_flwr.federation.protocol import task_facts
from fauno_flwr.learning import ppo
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.transitions import Decisions
from sim_env.envs.single import EdgeVectorEnv
from sim_env.scenario import Scenario


class Experience(Protocol):
    """A source of decisions."""

    def collect(self, population: AgentStack) -> Decisions:
        """Decisions of one rollout under the first agent of `population`."""

    def facts(self) -> dict[str, float]:
        """How its worlds have fared since it began."""


class OwnWorlds:
    """Copies of the network in which the agent's node acts and its peers follow a policy.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
    agent : int
    population : AgentStack
        Acts during the warm-up.
    rollouts : int
        That will be collected.
    rng : Generator
        Seeds the worlds, and samples the actions.
    """

    def __init__(
        self,
        config: RunConfig,
        scenario: Scenario,
        agent: int,
        population: AgentStack,
        rollouts: int,
        rng: np.random.Generator,
    ) -> None:
        training = config.training
        self._ticks, self._rng = training.ticks, rng
        self._env = EdgeVectorEnv(
            scenario,
            int(scenario.agents[agent]),
            training.worlds,
            training.peers,
            horizon=training.ticks * rollouts,
            warmup=training.warmup,
        )
        self._env.set_actor(population.policy())
        self._view, _ = self._env.reset(seed=int(rng.integers(2**31)))
        assert self._env.world is not None
        self._world = self._env.world
        self._world.measure(self._world.now, self._world.now + self._env.horizon)

    def collect(self, population: AgentStack) -> Decisions:
        """Decisions of one rollout under the first agent of `population`."""
        decisions, self._view = ppo.collect(
            self._env, self._view, population, self._ticks, self._rng
        )
        return decisions

    def facts(self) -> dict[str, float]:
        """How the tasks born since the warm-up have fared."""
        measured = self._world.metrics()
        finished = int(measured.finished.sum())
        lost = int((measured.created - measured.inside).sum()) - finished
        return task_facts(finished, lost, float(measured.response_sum.sum()) * measured.tick)


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
    """What the settings want; closed when the context ends.

    Parameters
    ----------
    config, scenario, agent, population, rollouts, rng
        As of :class:`OwnWorlds`.
    node_config : mapping
        Of a node in a shared world: ``world-token-file`` and ``world-ca``, absolute paths.
    """
    if config.world.kind != SHARED:
        yield OwnWorlds(config, scenario, agent, population, rollouts, rng)
        return
    from fauno_flwr.shared_world.client import AUTHORITY, TOKEN_FILE, Access, SharedWorld

    files = node_config.get(TOKEN_FILE), node_config.get(AUTHORITY)
    with SharedWorld(config, scenario, agent, Access.read(config.world.address, *files)) as shared:
        yield shared
