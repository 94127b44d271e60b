"""Heuristics: a policy is a function ``(observation, rng) -> action`` for R decisions."""

from collections.abc import Callable

import numpy as np

from sim_env.engine.features import CAPACITY, LOAD, QUEUE, SPEED
from sim_env.engine.observation import Observation
from sim_env.errors import require_choice

Policy = Callable[[Observation, np.random.Generator], np.ndarray]


def local(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Keep every task."""
    return np.zeros(len(observation), np.int32)


def random(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Uniform over the legal actions."""
    score = rng.random(observation.mask.shape)
    return np.where(observation.mask, score, -1.0).argmax(axis=1)


def least_queue(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """The paper's LQ: smallest known queue / capacity; the lowest index on ties."""
    return _smallest(observation, _fill(observation))


def least_queue_random(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Smallest known queue / capacity; ties are broken at random."""
    fill = np.where(observation.mask, _fill(observation), np.inf)
    tied = fill == fill.min(axis=1, keepdims=True)
    return np.where(tied, rng.random(fill.shape), -1.0).argmax(axis=1)


def threshold(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Keep until the own queue is half full, then send to the fastest neighbour."""
    neighbours = observation.mask.copy()
    neighbours[:, 0] = False
    speed = np.where(neighbours, observation.destination[:, :, SPEED], -1.0)
    full = observation.local[:, LOAD] >= 0.5 * observation.destination[:, 0, CAPACITY]
    return np.where(full & neighbours.any(axis=1), speed.argmax(axis=1), 0)


def shortest_expected_delay(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Least wait + transfer both ways + execution; the own backlog exact, others by the mean."""
    return _smallest(observation, observation.delay)


def _fill(observation: Observation) -> np.ndarray:
    capacity = np.maximum(observation.destination[:, :, CAPACITY], 1.0)
    return np.asarray(observation.destination[:, :, QUEUE] / capacity)


def _smallest(observation: Observation, cost: np.ndarray) -> np.ndarray:
    return np.where(observation.mask, cost, np.inf).argmin(axis=1)


POLICIES: dict[str, Policy] = {
    "sed": shortest_expected_delay,
    "threshold": threshold,
    "lq": least_queue,
    "lqrand": least_queue_random,
    "random": random,
    "local": local,
}
TITLES = {
    "sed": "ShortestExpectedDelay",
    "threshold": "Threshold",
    "lq": "LeastQueue",
    "lqrand": "LeastQueueRandomTies",
    "random": "Random",
    "local": "Local",
}


def get_policy(name: str) -> Policy:
    """The heuristic of that name; ``ValueError`` names the known ones."""
    require_choice("policy", name, POLICIES)
    return POLICIES[name]
