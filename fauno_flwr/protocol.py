"""What the two ends of the Flower app say to each other: names of records, and the handshake.

train          server: ``arrays`` (critic), ``config`` (settings, ``server-round``);
               node: ``arrays`` (critic), ``metrics``. Nothing else of the agent travels.
query          server: ``config``; node: ``node`` (who it is, what its critic looks like).
query.actor    server: ``config``; node: ``actor``, unless its owner said ``share-actor=false``.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from flwr.app import ConfigRecord

T = TypeVar("T", int, str, bytes)
PROTOCOL = 1
ARRAYS, CONFIG, METRICS, NODE, ACTOR = "arrays", "config", "metrics", "node", "actor"
SETTINGS, PROTOCOL_KEY, STEPS, ROUND = "settings", "protocol", "num-steps", "server-round"
QUERY, QUERY_ACTOR = "query", "query.actor"


def settings_record(settings: str) -> ConfigRecord:
    """Config record that every message of the server carries."""
    return ConfigRecord({SETTINGS: settings, PROTOCOL_KEY: PROTOCOL})


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
