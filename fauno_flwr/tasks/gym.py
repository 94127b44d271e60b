"""Environments of gymnasium as the task: discrete actions, vectors of numbers as observations.

The networks are the padded ones without destinations: an MLP of the observation and the mask of
legal actions, which an environment may return as ``info["action_mask"]``.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from fauno_flwr.config.agent import PADDED
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.policy import FAUNO, ActorPolicy
from fauno_flwr.learning.registry import find_algorithm
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.tasks.base import Experience
from sim_env import plugins
from sim_env.errors import shown
from sim_env.evaluation import interval

LARGEST_OBSERVATION, MOST_ACTIONS = 4096, 1024
MASK = "action_mask"
RANDOM = "random"


class BadEnvironmentError(ValueError):
    """An environment has returned what cannot be learned from; the text is one sentence."""


@dataclass(frozen=True)
class Flat:
    """Widths of networks whose input is one vector, without destinations."""

    local: int
    destinations: int = 0
    delay: None = None


def make_env(env_id: str) -> gym.Env:
    """Make an environment by its id; ``ConfigError`` if it cannot be made or learned."""
    return _validated(env_id)[0]


def _validated(env_id: str) -> tuple[gym.Env, int, int]:
    """Return an environment, the size of its observations, and its number of actions."""
    module, colon, _ = env_id.partition(":")
    if colon:  # gymnasium imports the module
        try:
            plugins.require_allowed("world.env_id", env_id, module)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    try:
        env = gym.make(env_id)
    except Exception as error:  # whatever its package raises
        raise ConfigError(f"world.env_id is {env_id!r}: cannot be made ({error})") from error
    observation, actions = env.observation_space, env.action_space
    if not isinstance(actions, spaces.Discrete) or actions.n > MOST_ACTIONS:
        raise ConfigError(
            f"world.env_id is {env_id!r}: its action space is {shown(actions)}, must be Discrete "
            f"with at most {MOST_ACTIONS} actions"
        )
    size = int(np.prod(observation.shape)) if isinstance(observation, spaces.Box) else 0
    if not 0 < size <= LARGEST_OBSERVATION:
        raise ConfigError(
            f"world.env_id is {env_id!r}: its observation space is {shown(observation)}, "
            f"must be a Box of at most {LARGEST_OBSERVATION} numbers "
            f"(gymnasium.wrappers.FlattenObservation makes one of most others)"
        )
    return env, size, int(actions.n)


class GymTask:
    """Every node learns in an environment of its own, all of the same kind.

    Parameters
    ----------
    config : RunConfig
        With ``world.env_id`` and ``world.nodes``.

    Raises
    ------
    ConfigError
        If the environment cannot be made or learned, or the federation does not fit the nodes.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config, self.env_id = config, config.world.env_id
        if not self.env_id:
            raise ConfigError("world.env_id is '': must name an environment, such as CartPole-v1")
        config.require_nodes(config.world.nodes)
        self.names = [f"node_{node}" for node in range(config.world.nodes)]
        self.facts = {"rho": None, "env_id": self.env_id}
        env, size, self.actions = _validated(self.env_id)
        self.widths = Flat(size)
        env.close()

    def make_population(self, agents: int) -> AgentStack:
        """Make untrained agents; all start equal."""
        agent = replace(self.config.agent, network=PADDED)
        stack = find_algorithm(agent.algorithm)
        return stack(agents, agent, self.config.seed, self.widths, self.actions)

    def check(self, agent: int, node_config: Mapping[str, Any]) -> None:
        """Do nothing: an environment was made with the task."""

    @contextmanager
    def open(
        self,
        agent: int,
        node_config: Mapping[str, Any],
        population: AgentStack,
        rollouts: int,
        rng: np.random.Generator,
    ) -> Iterator[Experience]:
        """Open ``training.worlds`` environments, seeded by `rng`."""
        training = self.config.training
        worlds = GymWorlds(self.env_id, training.worlds, training.ticks, rng)
        try:
            yield worlds
        finally:
            worlds.close()

    def evaluate(self, population: AgentStack | None) -> list[dict[str, Any]]:
        """Evaluate the agents, if there are any, and random actions.

        All of them start in the same ``evaluation.worlds`` initial states; an episode is truncated
        after ``evaluation.window`` steps.

        Returns
        -------
        list of dict
            ``policy``, ``episodes``, and ``return`` and ``length`` as ``{mean, low, high}`` over
            the initial states, averaged over the agents; ``by_world``, the return from each of
            them. ``by_node`` of FAuNO has the mean return of each agent.
        """
        seeds, rows = self.config.evaluation.seeds, []
        if population is not None:
            played = self._play_all(population, seeds)
            row = self._row(FAUNO, played)
            means = played[:, :, 0].mean(axis=1).tolist()
            rows.append({**row, "by_node": dict(zip(self.names, means, strict=True))})
        rows.append(self._row(RANDOM, np.array([self._play(None, 0, seeds)])))
        return rows

    def record(self, population: AgentStack | None) -> None:
        """Record nothing: there is no network to show."""

    def validate(self, population: AgentStack) -> dict[str, float]:
        """Return the mean return of the agents from the initial states of the validation seeds."""
        played = self._play_all(population, self.config.evaluation.validation_seeds)
        return {"return": float(played[:, :, 0].mean())}

    def _play_all(self, population: AgentStack, seeds: Iterable[int]) -> np.ndarray:
        """Return total reward and length of the episodes of all agents, shape (A, S, 2)."""
        policy = population.policy(greedy=self.config.evaluation.greedy)
        agents = range(population.agents)
        return np.array([self._play(policy, agent, seeds) for agent in agents])

    def _row(self, name: str, played: np.ndarray) -> dict[str, Any]:
        totals, lengths = played.mean(axis=0).T
        return {
            "policy": name,
            "episodes": int(played.shape[0] * played.shape[1]),
            "return": asdict(interval(totals)),
            "length": asdict(interval(lengths)),
            "by_world": {"return": totals.tolist()},
        }

    def _play(
        self, policy: ActorPolicy | None, agent: int, seeds: Iterable[int]
    ) -> list[tuple[float, int]]:
        """Return total reward and length of an episode from the initial state of every seed."""
        played = []
        for seed in seeds:
            rng = np.random.default_rng([seed, agent])
            running = RunningEnv(make_env(self.env_id), seed)
            length = 0
            while not running.over and length < self.config.evaluation.window:
                if policy is None:
                    action = int(rng.choice(np.flatnonzero(running.mask)))
                else:
                    action = int(choose(policy, agent, [running], rng)[0])
                running.step(action)
                length += 1
            played.append((running.total, length))
            running.env.close()
        return played

    def describe(self) -> str:
        """Return the id of the environment."""
        return f"each in {self.env_id}"


class RunningEnv:
    """An environment with its latest observation and mask.

    Parameters
    ----------
    env : gymnasium.Env
    seed : int
        Seed of its first episode; the later ones follow from its own random stream.
    """

    def __init__(self, env: gym.Env, seed: int) -> None:
        self.env, self._first = env, int(getattr(env.action_space, "start", 0))
        self.begin(seed)

    def begin(self, seed: int | None = None) -> None:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed)
        self.over, self.total = False, 0.0
        self._observe(observation, info)

    def step(self, action: int) -> tuple[float, bool]:
        """Take an action; returns its reward and whether the episode terminated."""
        observation, reward, terminated, truncated, info = self.env.step(self._first + action)
        self.over = bool(terminated or truncated)
        self.total += float(reward)
        self._observe(observation, info, bool(terminated))
        return float(reward), bool(terminated)

    def _observe(self, observation: Any, info: Mapping[str, Any], ended: bool = False) -> None:
        self.observation = np.asarray(observation, np.float32).ravel()
        name = self.env.spec.id if self.env.spec is not None else str(self.env)
        if not np.isfinite(self.observation).all():
            raise BadEnvironmentError(
                f"an observation of {name} is not finite: {shown(observation)}"
            )
        count = int(self.env.action_space.n)  # type: ignore[attr-defined]
        mask = np.asarray(info.get(MASK, np.ones(count)), bool)
        if mask.shape != (count,) or not (mask.any() or ended):
            raise BadEnvironmentError(
                f"{MASK} of {name} is {shown(info.get(MASK))}: must be {count} values, one at "
                f"least of them true"
            )
        self.mask = mask


def choose(
    policy: ActorPolicy, agent: int, envs: list[RunningEnv], rng: np.random.Generator
) -> np.ndarray:
    """Choose actions of an agent for several environments at once."""
    mask = np.stack([running.mask for running in envs])
    observation = np.stack([running.observation for running in envs])
    return policy.choose(agent, observation, np.zeros((*mask.shape, 0), np.float32), mask, rng)


class GymWorlds:
    """Environments side by side, stepped for consecutive rollouts.

    Parameters
    ----------
    env_id : str
    worlds, ticks : int
        Number of environments, and steps of each in a rollout.
    rng : Generator
        Seeds the environments and samples the actions.
    """

    def __init__(self, env_id: str, worlds: int, ticks: int, rng: np.random.Generator) -> None:
        self._ticks, self._rng = ticks, rng
        self._envs = [RunningEnv(make_env(env_id), int(rng.integers(2**31))) for _ in range(worlds)]
        self._returns: list[float] = []

    def close(self) -> None:
        """Close all environments."""
        for running in self._envs:
            running.env.close()

    def collect(self, population: AgentStack) -> Decisions:
        """Collect one rollout under the first agent of `population`.

        The last observation of a truncated episode becomes a ``last`` decision, to bootstrap from;
        that of a terminated one is dropped.
        """
        policy, trajectories = population.policy(), [Trajectory() for _ in self._envs]
        for _ in range(self._ticks):
            actions = choose(policy, 0, self._envs, self._rng)
            for running, trajectory, action in zip(
                self._envs, trajectories, actions.tolist(), strict=True
            ):
                observation, mask = running.observation, running.mask
                reward, terminal = running.step(action)
                trajectory.add(observation, mask, action, reward, terminal=terminal)
                if running.over:
                    if not terminal:
                        trajectory.add(running.observation, running.mask, last=True)
                    self._returns.append(running.total)
                    running.begin()
        for running, trajectory in zip(self._envs, trajectories, strict=True):
            trajectory.add(running.observation, running.mask, last=True)
        return joined(trajectories)

    def metrics(self) -> dict[str, float]:
        """Return the number of finished episodes and their mean return.

        Without a finished episode, the return is that of the running ones.
        """
        unfinished = [running.total for running in self._envs]
        returns = self._returns or unfinished
        return {"return": float(np.mean(returns)), "episodes": len(self._returns)}


class Trajectory:
    """The decisions of one environment, in the order of time."""

    def __init__(self) -> None:
        self.rows: list[tuple[np.ndarray, np.ndarray, int, float, bool, bool]] = []

    def add(
        self,
        observation: np.ndarray,
        mask: np.ndarray,
        action: int = 0,
        reward: float = 0.0,
        *,
        last: bool = False,
        terminal: bool = False,
    ) -> None:
        """Add a decision; parameters as of :class:`fauno_flwr.learning.transitions.Decisions`."""
        self.rows.append((observation, mask, action, reward, last, terminal))


def joined(trajectories: list[Trajectory]) -> Decisions:
    """Concatenate the decisions of several environments."""
    observation, mask, action, reward, last, terminal = zip(
        *(row for trajectory in trajectories for row in trajectory.rows), strict=True
    )
    masks = np.stack(mask)
    return Decisions(
        local=np.stack(observation),
        destination=np.zeros((*masks.shape, 0), np.float32),
        mask=masks,
        action=np.array(action, np.int64),
        reward=np.array(reward, np.float32),
        last=np.array(last),
        terminal=np.array(terminal),
    )
