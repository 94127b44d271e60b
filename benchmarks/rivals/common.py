"""What all trainers have in common: the environment, how progress is told, how it is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from sim_env.engine.observation import Observation, empty_observation
from sim_env.engine.state import BORN, ENDED, FINISHED
from sim_env.evaluation import run_policy
from sim_env.policies.compiled import code_of, decide_once
from sim_env.policies.heuristics import Policy, get_policy
from sim_env.scenario import Scenario
from sim_env.world import World

PRESET, LOAD = "ether2", "workload.rate=4"  # rho = 0.82: the heuristics leave something to learn
NODE, PEERS = 0, "lq"  # the node that learns alone, and what the others follow meanwhile
WORLDS, WARMUP, HORIZON = 16, 100, 512  # of training, in ticks; an episode as our clients have it
EVALUATION_WARMUP, WINDOW, DRAIN = 600, 2000, 500
EVENTS_EVERY = 250  # ticks; a traced world holds a limited number of events


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Parameters
    ----------
    steps : int
        Agent-steps: ticks of an agent in a world.
    decisions : int
        Those of them in which there was a task to decide about, of the data trained on.
    policy : callable
        Returns the policy learned so far, which takes the best action.
    """

    steps: int
    decisions: int
    policy: Callable[[], Policy]


# What a trainer tells its progress, before its first step and after each update; whether to go on.
Report = Callable[[Progress], bool]
Trainer = Callable[[int, Report], None]  # of a seed


def settings(*overrides: str) -> RunConfig:
    """Return the settings of the preset at the load of this benchmark."""
    return load_config(PRESET, [LOAD, *overrides])


@cache
def scenario() -> Scenario:
    """Return the network of this benchmark."""
    return settings().build_scenario()


def node_settings() -> dict[str, object]:
    """Return the settings of the environment of the node that learns alone."""
    return {
        "scenario": scenario(),
        "node": NODE,
        "peers": PEERS,
        "horizon": HORIZON,
        "warmup": WARMUP,
        "layout": "flat",
    }


class FlatPolicy:
    """A policy for a world, of one that reads rows in layout ``flat``.

    Parameters
    ----------
    choose : callable
        Maps rows, float32 (R, I), and their legal actions, bool (R, K), to R actions.
    slots : int
        K.
    """

    def __init__(self, choose: Callable[[np.ndarray, np.ndarray], np.ndarray], slots: int) -> None:
        self._choose, self._slots = choose, slots

    def __call__(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        """Choose actions, shape (R,)."""
        local, destination = observation.features()
        mask = observation.mask[:, : self._slots]
        row = destination[:, : self._slots].reshape(len(local), -1)
        rows = np.concatenate([local, row, mask], axis=1, dtype=np.float32)
        return np.asarray(self._choose(rows, mask)).astype(np.int64)


def joined(parts: Sequence[Observation]) -> Observation:
    """Concatenate observations."""
    columns = [each.name for each in fields(Observation) if each.name != "encoding"]
    arrays = {name: np.concatenate([getattr(p, name) for p in parts]) for name in columns}
    return Observation(**arrays, encoding=parts[0].encoding)


def measure_node(
    policy: Policy, seeds: Sequence[int], window: int = WINDOW, node: int = NODE
) -> dict[str, float]:
    """Let the node act beside its peers, and follow the tasks born there in the window.

    Returns
    -------
    dict of str to float
        Of the node's own tasks ``finished``, in per cent, and ``response``, mean of the finished
        ones in seconds; and ``reward``, mean over its decisions in the window.
    """
    network = scenario()
    code, rng = code_of(get_policy(PEERS)), np.random.default_rng(list(seeds))
    one = empty_observation(1, int(network.net.slots.max()), network.encoding)
    scratch = one.local[0], one.destination[0], one.mask[0]
    # A world each: only the first of several is traced.
    worlds = [World(network, [seed], trace=True) for seed in seeds]
    actions = np.zeros((len(worlds), 1, worlds[0].num_nodes), np.int32)
    events: list[list[np.ndarray]] = [[] for _ in worlds]
    rewards: list[np.ndarray] = []
    end = EVALUATION_WARMUP + window
    for now in range(end + DRAIN):
        mine = []
        for world, acts in zip(worlds, actions, strict=True):
            seen = world.observe()
            mine.append(seen[seen.node == node])
            decide_once(world.net, world.state, now, code, node, acts, *scratch)
            acts[0, node] = 0
        deciding = [i for i, rows in enumerate(mine) if len(rows)]
        if deciding:
            seen = joined([mine[i] for i in deciding])
            chosen = np.asarray(policy(seen, rng))
            legal = np.where(seen.mask[np.arange(len(seen)), chosen], chosen, 0)
            actions[deciding, 0, node] = legal
            if EVALUATION_WARMUP <= now < end:
                rewards.append(seen.reward[np.arange(len(seen)), legal])
        for world, acts, kept in zip(worlds, actions, events, strict=True):
            world.step(acts)
            if now % EVENTS_EVERY == 0:
                kept.append(world.events())
    born, finished, ticks = 0, 0, 0
    for world, kept in zip(worlds, events, strict=True):
        own = outcomes(np.concatenate([*kept, world.events()]), node, EVALUATION_WARMUP, end)
        born, finished, ticks = born + own[0], finished + own[1], ticks + own[2]
    return {
        "finished": 100 * finished / born,
        "response": ticks * network.spec.physics.tick / max(finished, 1),
        "reward": float(np.concatenate(rewards).mean()),
    }


def outcomes(events: np.ndarray, node: int, start: int, stop: int) -> tuple[int, int, int]:
    """Count the tasks born at a node in the window, the finished ones, and the ticks of these."""
    is_born = (events[:, 1] == BORN) & (events[:, 3] == node)
    born = events[is_born & (events[:, 0] >= start) & (events[:, 0] < stop)]
    birth = dict(zip(born[:, 2].tolist(), born[:, 0].tolist(), strict=True))
    ended = events[(events[:, 1] == ENDED) & (events[:, 4] == FINISHED)]
    responses = [tick - birth[task] for tick, task in ended[:, [0, 2]].tolist() if task in birth]
    return len(birth), len(responses), sum(responses)


def measure_all(policy: Policy, seeds: Sequence[int], window: int = WINDOW) -> dict[str, float]:
    """Let all nodes act by the policy; return ``finished`` and ``response`` of all."""
    metrics = run_policy(scenario(), policy, seeds, warmup=EVALUATION_WARMUP, window=window)
    return {
        "finished": float(100 * metrics.finished_ratio.mean()),
        "response": float(metrics.mean_response.mean()),
    }
