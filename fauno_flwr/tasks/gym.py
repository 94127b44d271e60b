"""Environments of gymnasium as what the nodes learn: a discrete action, numbers to see.

The networks are the padded ones without any destination: an MLP of the observation and the mask of
legal actions, which an environment may tell in ``info["action_mask"]``.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from fauno_flwr.config.settings import PADDED, ConfigError, RunConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.policy import FAUNO, ActorPolicy
from fauno_flwr.learning.registry import ALGORITHMS
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.tasks.edge import Experience
from sim_env.errors import shown
from sim_env.evaluation import interval

LARGEST_OBSERVATION, LARGEST_CHOICE = 4096, 1024
MASK = "action_mask"
RANDOM = "random"


@dataclass(frozen=True)
class Flat:
    """Widths of networks that see one vector and no destinations."""

    local: int
    destinations: int = 0
    delay: None = None


def make_env(env_id: str) -> gym.Env:
    """An environment by its id; ``ConfigError`` if it cannot be made or learned."""
    return _checked(env_id)[0]


def _checked(env_id: str) -> tuple[gym.Env, int, int]:
    """An environment, the numbers that it shows, and its actions."""
    try:
        env = gym.make(env_id)
    except Exception as error:  # whatever its package raises
        raise ConfigError(f"world.env_id is {env_id!r}: cannot be made ({error})") from error
    seen, choice = env.observation_space, env.action_space
    if not isinstance(choice, spaces.Discrete) or choice.n > LARGEST_CHOICE:
        raise ConfigError(
            f"world.env_id is {env_id!r}: its action space is {shown(choice)}, must be Discrete "
            f"with at most {LARGEST_CHOICE} actions"
        )
    size = int(np.prod(seen.shape)) if isinstance(seen, spaces.Box) else 0
    if not 0 < size <= LARGEST_OBSERVATION:
        raise ConfigError(
            f"world.env_id is {env_id!r}: its observation space is {shown(seen)}, must be a Box of "
            f"at most {LARGEST_OBSERVATION} numbers (gymnasium.wrappers.FlattenObservation makes "
            f"one of most others)"
        )
    return env, size, int(choice.n)


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
        env, size, self.actions = _checked(self.env_id)
        self.widths = Flat(size)
        env.close()

    def make_population(self, agents: int) -> AgentStack:
        """Untrained agents; all start equal."""
        agent = replace(self.config.agent, network=PADDED)
        stack = ALGORITHMS[agent.algorithm]
        return stack(agents, agent, self.config.seed, self.widths, self.actions)

    @contextmanager
    def open(
        self,
        agent: int,
        node_config: Mapping[str, Any],
        population: AgentStack,
        rollouts: int,
        rng: np.random.Generator,
    ) -> Iterator[Experience]:
        """``training.worlds`` environments, seeded by `rng`."""
        training = self.config.training
        worlds = GymWorlds(self.env_id, training.worlds, training.ticks, rng)
        try:
            yield worlds
        finally:
            worlds.close()

    def evaluate(self, population: AgentStack | None) -> list[dict[str, Any]]:
        """Return per episode of the agents, if there are any, and of random actions.

        All agents and the random one meet the same ``evaluation.worlds`` starts; an episode is cut
        off after ``evaluation.window`` steps.

        Returns
        -------
        list of dict
            ``policy``, ``episodes``, and ``return`` and ``length`` as ``{mean, low, high}`` over
            the starts, of each the mean over the agents. FAuNO's ``by_node`` has the mean return
            of each agent.
        """
        evaluation, rows = self.config.evaluation, []
        if population is not None:
            policy = population.policy(greedy=evaluation.greedy)
            played = np.array([self._play(policy, agent) for agent in range(population.agents)])
            row = self._row(FAUNO, played)
            means = played[:, :, 0].mean(axis=1).tolist()
            rows.append({**row, "by_node": dict(zip(self.names, means, strict=True))})
        rows.append(self._row(RANDOM, np.array([self._play(None, 0)])))
        return rows

    def _row(self, name: str, played: np.ndarray) -> dict[str, Any]:
        totals, lengths = played.mean(axis=0).T
        return {
            "policy": name,
            "episodes": int(played.shape[0] * played.shape[1]),
            "return": asdict(interval(totals)),
            "length": asdict(interval(lengths)),
        }

    def _play(self, policy: ActorPolicy | None, agent: int) -> list[tuple[float, int]]:
        """Return and length of an episode from every start."""
        played = []
        for seed in self.config.evaluation.seeds:
            rng = np.random.default_rng([seed, agent])
            lane = Lane(make_env(self.env_id), seed)
            length = 0
            while not lane.over and length < self.config.evaluation.window:
                if policy is None:
                    action = int(rng.choice(np.flatnonzero(lane.mask)))
                else:
                    action = int(choose(policy, agent, [lane], rng)[0])
                lane.step(action)
                length += 1
            played.append((lane.total, length))
            lane.env.close()
        return played

    def describe(self) -> str:
        """The environment."""
        return f"each in {self.env_id}"


class Lane:
    """One environment, and what it has told last.

    Parameters
    ----------
    env : gymnasium.Env
    seed : int
        Of its first episode; the later ones follow from its own stream.
    """

    def __init__(self, env: gym.Env, seed: int) -> None:
        self.env, self._first = env, int(getattr(env.action_space, "start", 0))
        self.begin(seed)

    def begin(self, seed: int | None = None) -> None:
        """Begin an episode."""
        seen, info = self.env.reset(seed=seed)
        self.over, self.total = False, 0.0
        self._look(seen, info)

    def step(self, action: int) -> tuple[float, bool]:
        """Reward of an action, and whether it has ended the episode for good."""
        seen, reward, terminated, truncated, info = self.env.step(self._first + action)
        self.over = bool(terminated or truncated)
        self.total += float(reward)
        self._look(seen, info, bool(terminated))
        return float(reward), bool(terminated)

    def _look(self, seen: Any, info: Mapping[str, Any], ended: bool = False) -> None:
        self.seen = np.asarray(seen, np.float32).ravel()
        if not np.isfinite(self.seen).all():
            raise ValueError(f"an observation of {self.env} is not finite: {shown(seen)}")
        count = int(self.env.action_space.n)  # type: ignore[attr-defined]
        mask = np.asarray(info.get(MASK, np.ones(count)), bool)
        if mask.shape != (count,) or not (mask.any() or ended):
            raise ValueError(
                f"{MASK} of {self.env} is {shown(info.get(MASK))}: must be {count} values, one at "
                f"least of them true"
            )
        self.mask = mask


def choose(
    policy: ActorPolicy, agent: int, lanes: list[Lane], rng: np.random.Generator
) -> np.ndarray:
    """Actions of an agent for several environments at once."""
    mask = np.stack([lane.mask for lane in lanes])
    seen = np.stack([lane.seen for lane in lanes])
    return policy.choose(agent, seen, np.zeros((*mask.shape, 0), np.float32), mask, rng)


class GymWorlds:
    """Environments side by side, stepped for rollouts that follow each other.

    Parameters
    ----------
    env_id : str
    worlds, ticks : int
        Environments, and steps of each in a rollout.
    rng : Generator
        Seeds the environments, and samples the actions.
    """

    def __init__(self, env_id: str, worlds: int, ticks: int, rng: np.random.Generator) -> None:
        self._ticks, self._rng = ticks, rng
        self._lanes = [Lane(make_env(env_id), int(rng.integers(2**31))) for _ in range(worlds)]
        self._returns: list[float] = []

    def close(self) -> None:
        """Close the environments."""
        for lane in self._lanes:
            lane.env.close()

    def collect(self, population: AgentStack) -> Decisions:
        """Decisions of one rollout under the first agent of `population`.

        What an episode shows in the end stands as a ``last`` decision if it was truncated, and does
        not stand if it was terminated.
        """
        policy, tapes = population.policy(), [Tape() for _ in self._lanes]
        for _ in range(self._ticks):
            actions = choose(policy, 0, self._lanes, self._rng)
            for lane, tape, action in zip(self._lanes, tapes, actions.tolist(), strict=True):
                seen, mask = lane.seen, lane.mask
                reward, terminal = lane.step(action)
                tape.add(seen, mask, action, reward, terminal=terminal)
                if lane.over:
                    if not terminal:
                        tape.add(lane.seen, lane.mask, last=True)
                    self._returns.append(lane.total)
                    lane.begin()
        for lane, tape in zip(self._lanes, tapes, strict=True):
            tape.add(lane.seen, lane.mask, last=True)
        return joined(tapes)

    def facts(self) -> dict[str, float]:
        """Episodes that have ended, and their mean return; with none, that of the running ones."""
        running = [lane.total for lane in self._lanes]
        returns = self._returns or running
        return {"return": float(np.mean(returns)), "episodes": len(self._returns)}


class Tape:
    """The decisions of one environment, in the order of time."""

    def __init__(self) -> None:
        self.rows: list[tuple[np.ndarray, np.ndarray, int, float, bool, bool]] = []

    def add(
        self,
        seen: np.ndarray,
        mask: np.ndarray,
        action: int = 0,
        reward: float = 0.0,
        *,
        last: bool = False,
        terminal: bool = False,
    ) -> None:
        """Add one; parameters as of :class:`fauno_flwr.learning.transitions.Decisions`."""
        self.rows.append((seen, mask, action, reward, last, terminal))


def joined(tapes: list[Tape]) -> Decisions:
    """The decisions of several environments, one after another."""
    seen, mask, action, reward, last, terminal = zip(
        *(row for tape in tapes for row in tape.rows), strict=True
    )
    masks = np.stack(mask)
    return Decisions(
        local=np.stack(seen),
        destination=np.zeros((*masks.shape, 0), np.float32),
        mask=masks,
        action=np.array(action, np.int64),
        reward=np.array(reward, np.float32),
        last=np.array(last),
        terminal=np.array(terminal),
    )
