"""What the two ends of the Flower app say to each other: names of records, and the handshake.

train          server: ``arrays`` (critic), ``config`` (settings, ``server-round``, ``rollouts``);
               node: ``arrays`` (critic, or its compressed difference to the one that it was
               sent), ``metrics``. Nothing else of the agent travels.
query          server: ``config``; node: ``node`` (who it is, what its critic looks like).
query.actor    server: ``config``; node: ``actor``, unless its owner said ``share-actor=false``.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord

from strategies.arrays import to_record
from strategies.compression import Compression, compress_update

T = TypeVar("T", int, str, bytes)
PROTOCOL = 1
ARRAYS, CONFIG, METRICS, NODE, ACTOR = "arrays", "config", "metrics", "node", "actor"
SETTINGS, PROTOCOL_KEY, ROUND = "settings", "protocol", "server-round"
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
