"""Offloading in an edge network: the task of FAuNO."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fauno_flwr.config.settings import SHARED, RunConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.metrics import task_metrics
from fauno_flwr.learning.policy import FAUNO, UNTRAINED
from fauno_flwr.learning.registry import make_population
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.tasks.base import Experience
from fauno_flwr.tasks.heuristics import find_heuristics
from fauno_flwr.tasks.memory import evaluations_at_once
from fauno_flwr.tasks.start import start_agents
from sim_env.envs.vector import EdgeVectorEnv
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


class OwnWorlds:
    """Copies of the network in which the node acts and its peers follow a policy.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
    agent, population, rollouts, rng
        As of :meth:`fauno_flwr.tasks.base.Task.open`.
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
        """Collect one rollout under the first agent of `population`."""
        decisions, self._view = collect(self._env, self._view, population, self._ticks, self._rng)
        return decisions

    def metrics(self) -> dict[str, float]:
        """Return metrics of the tasks born since the warm-up."""
        measured = self._world.metrics()
        finished = int(measured.finished.sum())
        lost = int((measured.created - measured.inside).sum()) - finished
        return task_metrics(finished, lost, float(measured.response_sum.sum()) * measured.tick)


def collect(
    env: EdgeVectorEnv,
    view: dict[str, np.ndarray],
    population: AgentStack,
    ticks: int,
    rng: np.random.Generator,
) -> tuple[Decisions, dict[str, np.ndarray]]:
    """Step environments for `ticks` under the first agent of `population`.

    Parameters
    ----------
    env : EdgeVectorEnv
        With ``peers="self"`` the peers follow the same actor.
    view : dict
        Last observation of `env`.
    population : AgentStack
    ticks : int
    rng : Generator
        Samples the actions.

    Returns
    -------
    Decisions, dict
        The transitions, and the last observation.
    """
    actor = population.policy()
    env.set_actor(actor)
    rows: list[tuple[np.ndarray, ...]] = []
    actions = np.zeros(env.num_envs, np.int64)
    # Rewards by row; `newest` is the row of each world's newest decision. Rewards that come before
    # the first decision go to an extra last row.
    earned = np.zeros(ticks * env.num_envs + 1)
    newest, count = np.full(env.num_envs, len(earned) - 1), 0
    for _ in range(ticks):
        deciding = np.flatnonzero(view["local"][:, 0])
        actions[:] = 0
        if len(deciding):
            local, destination = view["local"][deciding], view["destinations"][deciding]
            mask = view["action_mask"][deciding] > 0
            actions[deciding] = actor.choose(0, local, destination, mask, rng)
            rows.append((deciding, local, destination, mask, actions[deciding]))
            newest[deciding] = np.arange(count, count + len(deciding))
            count += len(deciding)
        view, reward, _, _, _ = env.step(actions)
        earned[newest] += reward
    if not rows:
        nothing = np.zeros(0, np.int64)
        widths = (view["local"][:0], view["destinations"][:0], view["action_mask"][:0] > 0)
        return Decisions(*widths, nothing, nothing.astype(np.float32), nothing > 0), view
    world, local, destination, mask, action = (
        np.concatenate(column) for column in zip(*rows, strict=True)
    )
    order = np.argsort(world, kind="stable")
    last = np.append(np.diff(world[order]) != 0, True)
    return (
        Decisions(
            local[order],
            destination[order],
            mask[order],
            action[order],
            earned[order].astype(np.float32),
            last,
        ),
        view,
    )


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
        yield OwnWorlds(config, scenario, agent, population, rollouts, rng)
        return
    from fauno_flwr.shared_world.client import SharedWorld, access_of

    with SharedWorld(config, scenario, agent, access_of(config, node_config)) as shared:
        yield shared
