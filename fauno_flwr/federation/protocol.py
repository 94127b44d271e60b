"""What the two ends of the Flower app say to each other: names of records, and the handshake.

train          server: ``arrays`` (critic), ``config`` (settings, ``server-round``, ``rollouts``);
               node: ``arrays`` (critic, or its compressed difference to the one that it was
               sent), ``metrics``. Nothing else of the agent travels.
query          server: ``config``; node: ``node`` (who it is, what its critic looks like).
query.actor    server: ``config``; node: ``actor``, unless its owner said ``share-actor=false``.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord

from strategies.arrays import to_record
from strategies.compression import Compression, compress_update

T = TypeVar("T", int, str, bytes)
PROTOCOL = 1
ARRAYS, CONFIG, METRICS, NODE, ACTOR = "arrays", "config", "metrics", "node", "actor"
SETTINGS, PROTOCOL_KEY, STEPS, ROUND = "settings", "protocol", "num-steps", "server-round"
ROLLOUTS, TRAINING = "rollouts", "training"
TRAIN, QUERY, QUERY_ACTOR = "train", "query", "query.actor"


def settings_record(settings: str, training: str = "") -> ConfigRecord:
    """Config record that every message of the server carries.

    Parameters
    ----------
    settings : str
        YAML.
    training : str, default ""
        Name of the training, for nodes that save their agents.
    """
    return ConfigRecord({SETTINGS: settings, PROTOCOL_KEY: PROTOCOL, TRAINING: training})


def read(record: ConfigRecord, key: str, kind: type[T]) -> T:
    """Value of a config record.

    Raises
    ------
    ValueError
        If it is missing or of another type than `kind`.
    """
    value = record.get(key)
    if not isinstance(value, kind):
        raise ValueError(f"{key} in a message is {value!r}: must be of type {kind.__name__}")
    return value


def schema(arrays: Mapping[str, np.ndarray]) -> str:
    """Names, types and shapes in one line, to be compared."""
    return "; ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in sorted(arrays.items()))


def train_metrics(
    told: Sequence[Mapping[str, float]],
    rewards: Sequence[float],
    messages: int,
    facts: Mapping[str, float],
    seconds: float,
) -> MetricRecord:
    """What a node tells about its training.

    Parameters
    ----------
    told : sequence of mapping
        What :func:`fauno_flwr.learning.ppo.update` told about each rollout.
    rewards : sequence of float
        Mean reward of each rollout.
    messages : int
        Messages that this node has answered, this one included.
    facts : mapping of str to float
        How the worlds of the node fared meanwhile, such as :func:`task_facts`.
    seconds : float
        That the message took.
    """
    return MetricRecord(
        {
            # At least one, so that a node without a decision is heard; it weighs next to nothing.
            STEPS: max(1, int(sum(each["steps"] for each in told))),
            "reward": float(np.mean(rewards)),
            **facts,
            "messages": messages,
            "seconds": seconds,
            **{
                name.replace("_", "-"): float(np.mean([each[name] for each in told]))
                for name in told[0]
                if name != "steps"
            },
        }
    )


def task_facts(finished: int, lost: int, response: float) -> dict[str, float]:
    """How the tasks of a network fared.

    Parameters
    ----------
    finished, lost : int
        Tasks that ended.
    response : float
        Of the finished ones, in seconds, all together.
    """
    return {
        "finished-of-ended": finished / max(finished + lost, 1),
        "response": response / max(finished, 1),
    }


def report(
    compression: Compression | None,
    shared: Mapping[str, np.ndarray],
    base: Mapping[str, np.ndarray],
    residual: np.ndarray | None,
) -> tuple[ArrayRecord, np.ndarray | None]:
    """What a node sends of what it shares, and what it keeps for its next message.

    Parameters
    ----------
    compression : Compression or None
    shared, base : mapping of str to array
        After training, and as the server sent it.
    residual : array of float64 or None
        What earlier messages have left out; see :func:`strategies.compress_update`.
    """
    if compression is None:
        return to_record(shared), None
    return compress_update(compression, shared, base, residual)
