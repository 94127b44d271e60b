"""Messages of the Flower app: names of records and keys, and their validation.

train          server: ``arrays`` (shared parameters), ``config`` (settings; ``base-version``,
               the number of this version; ``server-round``, that of the version to make;
               ``rollouts``); node: ``arrays`` (shared parameters after training, or their
               compressed difference to those received), ``metrics``. Nothing else of the agent
               travels.
query          server: ``config``; node: ``node`` (its agent, the train messages that this agent
               has answered, the schema of its shared parameters).
query.actor    server: ``config``; node: ``actor``, unless its owner has set ``share-actor=false``.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from flwr.app import ConfigRecord

from sim_env.errors import shown

T = TypeVar("T", int, str, bytes)
PROTOCOL = 3
ARRAYS, CONFIG, METRICS, NODE, ACTOR = "arrays", "config", "metrics", "node", "actor"
SETTINGS, PROTOCOL_KEY, BASE_VERSION = "settings", "protocol", "base-version"
ROLLOUTS, TRAINING = "rollouts", "training"
AGENT, NODES, CRITIC, MESSAGES = "agent", "nodes", "critic", "messages"
TRAIN, QUERY, QUERY_ACTOR = "train", "query", "query.actor"


def settings_record(settings: str, training: str = "") -> ConfigRecord:
    """Make the config record that every message of the server carries.

    Parameters
    ----------
    settings : str
        Settings of the run as YAML.
    training : str, default ""
        Id of the training, for nodes that save their agents.
    """
    return ConfigRecord({SETTINGS: settings, PROTOCOL_KEY: PROTOCOL, TRAINING: training})


def node_record(
    agent: int, nodes: int, shared: Mapping[str, np.ndarray], messages: int
) -> ConfigRecord:
    """Make the record by which a node introduces itself in the handshake.

    Parameters
    ----------
    agent : int
        Index of its agent.
    nodes : int
        Number of nodes that the node knows of; 0 if it knows none.
    shared : mapping of str to array
        Its shared parameters, of which the record has the schema.
    messages : int
        Train messages of this training that its agent has answered; 0: the agent is new.
    """
    return ConfigRecord({AGENT: agent, NODES: nodes, CRITIC: schema(shared), MESSAGES: messages})


def read(record: ConfigRecord, key: str, kind: type[T]) -> T:
    """Return a value of a config record.

    Raises
    ------
    ValueError
        If it is missing or of another type than `kind`.
    """
    value = record.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key} in a message is {shown(value)}: must be of type {kind.__name__}")
    return value


def schema(arrays: Mapping[str, np.ndarray]) -> str:
    """Return names, types and shapes of arrays in one line."""
    return "; ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in sorted(arrays.items()))
