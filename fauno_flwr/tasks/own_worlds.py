"""Copies of the network in which one node learns, each message anew."""

from typing import Any

import numpy as np

from fauno_flwr.config.settings import RunConfig, TrainingConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.metrics import task_metrics
from fauno_flwr.learning.recorder import Recorder
from fauno_flwr.learning.rollout import Weights
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.tasks.base import Experience
from sim_env.envs.vector import SELF, EdgeVectorEnv
from sim_env.policies.compiled import CODES, LOCAL
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import Scenario
from sim_env.world import World

OWN, PEERS, NOBODY = 0, 1, -1  # actors of the nodes: only decisions of the first are recorded


def own_worlds(
    config: RunConfig,
    scenario: Scenario,
    agent: int,
    population: AgentStack,
    rollouts: int,
    rng: np.random.Generator,
) -> Experience:
    """Make copies of the network, warmed up, in which the peers follow ``training.peers``.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
    agent, population, rollouts, rng
        As of :meth:`fauno_flwr.tasks.base.Task.open`.
    """
    training, node = config.training, int(scenario.agents[agent])
    if training.peers == SELF or training.peers in POLICIES:
        return CompiledWorlds(training, scenario, node, population, rollouts, rng)
    env = EdgeVectorEnv(
        scenario,
        node,
        training.worlds,
        training.peers,
        horizon=training.ticks * rollouts,
        warmup=training.warmup,
    )
    return EnvironmentWorlds(env, training.ticks, rng)


class CompiledWorlds:
    """Copies of the network that tick in compiled code, as in co-simulation.

    Peers follow the actor of the node, or a built-in heuristic.

    Parameters
    ----------
    training : TrainingConfig
    scenario : Scenario
    node : int
        Of the agent.
    population, rollouts, rng
        As of :meth:`fauno_flwr.tasks.base.Task.open`.
    """

    def __init__(
        self,
        training: TrainingConfig,
        scenario: Scenario,
        node: int,
        population: AgentStack,
        rollouts: int,
        rng: np.random.Generator,
    ) -> None:
        self._ticks = training.ticks
        self._otherwise = LOCAL if training.peers == SELF else CODES[POLICIES[training.peers]]
        others = PEERS if training.peers == SELF else NOBODY
        self._actors = np.full(scenario.topology.num_nodes, others, np.int32)
        self._actors[node] = OWN
        self._world = World(scenario, rng.integers(2**62, size=training.worlds).tolist())
        self._recorder = Recorder(self._world, 1, training.ticks, [node])
        self._recorder.roll(self._weights(population), training.warmup)
        self._recorder.drop(OWN)
        now = self._world.now
        self._world.measure(now, now + training.ticks * rollouts)

    def _weights(self, population: AgentStack) -> Weights:
        """Return the first agent twice: as the node, and as its peers."""
        weights = population.weights(self._actors, greedy=False)
        both: dict[str, Any] = {
            name: array[[0, 0]]
            for name, array in weights._asdict().items()
            if isinstance(array, np.ndarray) and name != "agent_of_node"
        }
        return weights._replace(**both, otherwise=self._otherwise)

    def collect(self, population: AgentStack) -> Decisions:
        """Collect one rollout under the first agent of `population`."""
        self._recorder.roll(self._weights(population), self._ticks)
        return self._recorder.take(OWN)

    def metrics(self) -> dict[str, float]:
        """Return metrics of the tasks born since the warm-up."""
        return metrics_of(self._world)


class EnvironmentWorlds:
    """Copies of the network as an environment, in Python, whose peers follow any policy.

    Parameters
    ----------
    env : EdgeVectorEnv
        Is reset.
    ticks : int
        Of a rollout.
    rng : Generator
        Seeds the worlds, and samples the actions.
    """

    def __init__(self, env: EdgeVectorEnv, ticks: int, rng: np.random.Generator) -> None:
        self._env, self._ticks, self._rng = env, ticks, rng
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
        return metrics_of(self._world)


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


def metrics_of(world: World) -> dict[str, float]:
    """Return metrics of the tasks that have been born since the measurement began."""
    measured = world.metrics()
    finished = int(measured.finished.sum())
    lost = int((measured.created - measured.inside).sum()) - finished
    return task_metrics(finished, lost, float(measured.response_sum.sum()) * measured.tick)
