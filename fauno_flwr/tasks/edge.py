"""Where a node's decisions come from: copies of the network of its own, or a shared world."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from fauno_flwr.config.settings import SHARED, RunConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.metrics import task_metrics
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
        decisions, self._view = collect(self._env, self._view, population, self._ticks, self._rng)
        return decisions

    def facts(self) -> dict[str, float]:
        """How the tasks born since the warm-up have fared."""
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
    """Step `env` for `ticks` with the first agent of `population`.

    Parameters
    ----------
    env : EdgeVectorEnv
        With ``peers="self"`` its other agents follow the same actor.
    view : dict
        Its last observation.
    population : AgentStack
    ticks : int
    rng : Generator
        Samples the actions.

    Returns
    -------
    Decisions, dict
        What happened, and the last observation.
    """
    actor = population.policy()
    env.set_actor(actor)
    rows: list[tuple[np.ndarray, ...]] = []
    actions = np.zeros(env.num_envs, np.int64)
    # Rewards by row; `newest` is the row of each world's newest decision, at first one behind all
    # for what comes before there is any.
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
        # Nothing to decide in all this time: no rows, of the right widths.
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
