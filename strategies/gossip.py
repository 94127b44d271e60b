"""Gossip: each node merges the models of its neighbours, and nobody holds the model of all."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from strategies.arrays import as_type, to_arrays, to_record
from strategies.checks import shown

Neighbours = Mapping[int, Collection[int]]
Handler = Callable[[Message, Context], Message]

# Records of a train message, beside the model of the node itself; and of the reply.
NEIGHBOUR, GOSSIP = "neighbour-", "gossip"
WEIGHTS, MERGED = "weights", "merged"


def ring(members: Iterable[int]) -> dict[int, set[int]]:
    """Return the neighbours of each member in a ring, in the order of their numbers."""
    ordered = sorted(members)
    pairs = zip(ordered, ordered[1:] + ordered[:1], strict=True)
    found: dict[int, set[int]] = {member: set() for member in ordered}
    for one, other in pairs:
        if one != other:
            found[one].add(other)
            found[other].add(one)
    return found


def both_ways(graph: Neighbours) -> dict[int, set[int]]:
    """Return the neighbours of each member of a graph, in both directions and without itself.

    Also of those that are only neighbours of others.

    Raises
    ------
    ValueError
        If it is no graph, or its members are no numbers.
    """
    try:
        edges = [(member, other) for member in graph for other in graph[member]]
        found: dict[int, set[int]] = {m: set() for m in (*graph, *(other for _, other in edges))}
    except (TypeError, LookupError) as error:
        raise ValueError(
            f"graph is {shown(graph)}: must be a mapping from members to their neighbours"
        ) from error
    for member in found:
        if not isinstance(member, Integral):
            raise ValueError(
                f"graph has the member {shown(member)}: must be numbers, as "
                f"networkx.convert_node_labels_to_integers makes them"
            )
    for member, other in edges:
        if member != other:
            found[member].add(other)
            found[other].add(member)
    return found


def metropolis_weights(
    degree: int, steps: float, neighbours: Sequence[tuple[int, float]]
) -> list[float]:
    """Compute the weights of the neighbours' models in the merge of a node.

    The Metropolis-Hastings chain with proposal ``1 / (1 + d_i)`` and stationary distribution
    proportional to the steps n (Xiao and Boyd 2004, for equal steps)::

        w_ij = min(1 / (1 + d_i), n_j / (n_i (1 + d_j)))

    If all nodes merge at the same time, the mean of their models weighted by n stays the same,
    however irregular the graph is. No weight is larger than that of one node among ``1 + d_i``,
    whatever number of steps it claims.

    Parameters
    ----------
    degree : int
        Neighbours of the node, d_i, also those that are not merged now.
    steps : float
        Its training steps n_i.
    neighbours : sequence of (int, float)
        Degree d_j and steps n_j of each neighbour that is merged.

    Returns
    -------
    list of float
        The weight of the node's own model is what is missing to 1: at least ``1 / (1 + d_i)``.
    """
    most = 1.0 / (1.0 + degree)
    weights = []
    for other_degree, other_steps in neighbours:
        share = other_steps / steps if steps > 0 else 1.0
        weights.append(min(most, share / (1.0 + other_degree)))
    return weights


def merge_models(
    own: Mapping[str, np.ndarray],
    others: Sequence[Mapping[str, np.ndarray]],
    weights: Sequence[float],
) -> dict[str, np.ndarray]:
    """Merge models: ``own + sum_j w_j (other_j - own)``, in float64, array by array.

    Integers are rounded; the result has the types of `own`.
    """
    merged = {}
    for name, array in own.items():
        total = array.astype(np.float64)
        for other, weight in zip(others, weights, strict=True):
            total += weight * (np.subtract(other[name], array, dtype=np.float64))
        merged[name] = as_type(total, array.dtype)
    return merged


def gossip_mod(
    *, arrayrecord_key: str = "arrays"
) -> Callable[[Message, Context, Handler], Message]:
    """Return a mod for Flower's ClientApp that merges the neighbours' models, before the app.

    ``ClientApp(mods=[gossip_mod()])`` with :class:`strategies.Gossip` on the server. The app finds
    the merged model where it finds that of any other strategy. Other messages pass unchanged.

    Parameters
    ----------
    arrayrecord_key : str, default "arrays"
        Name of the record with the model.
    """

    def mod(message: Message, context: Context, call_next: Handler) -> Message:
        content = message.content
        settings = content.config_records.get(GOSSIP)
        if settings is None:
            return call_next(message, context)
        weights = cast(list[float], settings[WEIGHTS])
        names = [f"{NEIGHBOUR}{number}" for number in range(len(weights))]
        own = to_arrays(content.array_records[arrayrecord_key])
        others = [to_arrays(content.array_records[name]) for name in names]
        for name in [*names, GOSSIP]:
            del content[name]
        content[arrayrecord_key] = to_record(merge_models(own, others, weights))
        reply = call_next(message, context)
        if not reply.has_error():
            reply.content[GOSSIP] = ConfigRecord({MERGED: len(weights)})
        return reply

    return mod


def add_letters(
    content: RecordDict, models: Sequence[ArrayRecord], weights: Sequence[float]
) -> RecordDict:
    """Add the models of the neighbours to a train message, and their weights, for the mod."""
    for number, model in enumerate(models):
        content[f"{NEIGHBOUR}{number}"] = model
    content[GOSSIP] = ConfigRecord({WEIGHTS: list(weights)})
    return content


def mean_distance(models: Mapping[int, ArrayRecord], neighbours: Neighbours) -> float:
    """Compute the mean Euclidean distance between two neighbours' models; 0 without any."""
    distances = [
        distance(to_arrays(models[one]), to_arrays(models[other]))
        for one, others in neighbours.items()
        for other in others
        if one < other
    ]
    return float(np.mean(distances)) if distances else 0.0


def distance(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Compute the Euclidean distance between two models."""
    # Array by array: of two models, not of all of them, a copy in float64 may be in memory.
    norms = (
        float(np.linalg.norm(np.subtract(one[name], other[name], dtype=np.float64).reshape(-1)))
        for name in one
    )
    return math.hypot(*norms)
