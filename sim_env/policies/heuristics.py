"""Heuristics, by name.

A policy is a function ``(observation, rng) -> actions`` of R decisions, or a class whose instances
are, made without arguments. It runs tick by tick, unless it has a compiled twin
(:mod:`sim_env.policies.compiled`).
"""

from collections.abc import Callable

import numpy as np

from sim_env import plugins
from sim_env.engine.features import CAPACITY, LOAD, QUEUE, SPEED
from sim_env.engine.observation import Observation
from sim_env.errors import shown
from sim_env.policies.clairvoyant import Clairvoyant

Policy = Callable[[Observation, np.random.Generator], np.ndarray]
"""A policy: ``(observation, rng) -> actions`` of R decisions, whole numbers of shape (R,)."""


def local(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Keep every task."""
    return np.zeros(len(observation), np.int32)


def random(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Choose uniformly among the legal actions."""
    score = rng.random(observation.mask.shape)
    return np.where(observation.mask, score, -1.0).argmax(axis=1)


def least_queue(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Choose the smallest known queue / capacity, the lowest index on ties: the paper's LQ."""
    return _smallest(observation, _fill(observation))


def least_queue_random(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Choose the smallest known queue / capacity; break ties at random."""
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
    """Choose the least wait + transfer both ways + execution; own backlog exact, others by mean."""
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
"""The built-in heuristics by name: they decide by what an agent observes."""
DISPATCHERS: dict[str, Policy] = {"clairvoyant": Clairvoyant()}
"""Policies that see more; they decide for all agents of a world, and cannot stand in for one."""
BUILT_IN = {**POLICIES, **DISPATCHERS}
TITLES = {
    "sed": "ShortestExpectedDelay",
    "threshold": "Threshold",
    "lq": "LeastQueue",
    "lqrand": "LeastQueueRandomTies",
    "random": "Random",
    "local": "Local",
    "clairvoyant": "Clairvoyant",
}
GROUP = "fauno.policies"  # of entry points


def require_policy(name: str, what: str = "policy") -> None:
    """Raise ``ValueError`` unless `name` may be that of a policy; import nothing."""
    plugins.require_name(what, name, BUILT_IN, GROUP)


def require_peers(name: str, what: str = "peers") -> None:
    """Raise ``ValueError`` unless `name` may be that of a policy of one agent; import nothing."""
    plugins.require_name(what, name, POLICIES, GROUP)


def get_policy(name: str, what: str = "policy") -> Policy:
    """Return the policy of that name.

    Parameters
    ----------
    name : str
        One of :data:`BUILT_IN`, an entry point of ``fauno.policies``, or an import path such as
        ``my_module:MyRule``.
    what : str, default "policy"
        Name of the setting, for the error message.

    Raises
    ------
    ValueError
        If there is none, it cannot be imported, is a class that needs arguments, or cannot be
        called.
    """
    found = plugins.find(what, name, BUILT_IN, GROUP)
    if isinstance(found, type):
        found = plugins.call(what, name, found)
    if not callable(found):
        raise ValueError(
            f"{what} is {name!r}: must be a function of an observation and a generator, not "
            f"{shown(found)}"
        )
    policy: Policy = found
    return policy


def choose_actions(
    policy: Policy, observation: Observation, rng: np.random.Generator
) -> np.ndarray:
    """Return the actions of a policy.

    Returns
    -------
    array of int, shape (R,)

    Raises
    ------
    ValueError
        If the policy returns another shape, or something else than whole numbers.
    """
    chosen = np.asarray(policy(observation, rng))
    if chosen.shape != (len(observation),) or chosen.dtype.kind not in "iub":
        raise ValueError(
            f"a policy gave actions of shape {chosen.shape} and type {chosen.dtype}: must be whole "
            f"numbers of shape {(len(observation),)}, one for each decision"
        )
    return chosen
