"""Numbers for some nodes of a network: a setting maps names, roles or patterns to them."""

import fnmatch
from collections.abc import Mapping

import numpy as np

from sim_env.errors import require_kind, require_number
from sim_env.network.graph import Topology

SHOWN_NAMES = 8


def require_numbers(setting: str, numbers: object, **bounds: float) -> None:
    """Raise ``ValueError`` unless `numbers` maps texts to numbers within the bounds.

    Parameters
    ----------
    setting : str
        Its dotted key.
    numbers : object
    **bounds : float
        As of :func:`sim_env.errors.require_number`.
    """
    require_kind(setting, numbers, Mapping, "a mapping")
    assert isinstance(numbers, Mapping)
    for key, number in numbers.items():
        require_kind(f"key of {setting}", key, str, "a name, a role or a pattern")
        require_number(f"{setting}.{key}", number, **bounds)


def by_node(
    setting: str,
    numbers: Mapping[str, float],
    topology: Topology,
    default: float | np.ndarray,
    among: np.ndarray,
    what: str = "a node",
) -> np.ndarray:
    """Return the number of each node; the last key that matches a node applies.

    Parameters
    ----------
    setting : str
        Its dotted key.
    numbers : mapping of str to float
        A key is a name, a role or a pattern of them (``rpi_1*``).
    topology : Topology
    default : float or array of float, shape (N,)
        Of the nodes that no key matches.
    among : array of bool, shape (N,)
        The nodes that may have a number of their own.
    what : str, default "a node"
        One of these in words, for the error message.

    Returns
    -------
    array of float, shape (N,)

    Raises
    ------
    ValueError
        For a key that matches none of these nodes.
    """
    found = np.full(topology.num_nodes, default, float)
    nodes = np.flatnonzero(among).tolist()
    for key, number in numbers.items():
        matching = [
            node
            for node in nodes
            if fnmatch.fnmatchcase(topology.names[node], key)
            or fnmatch.fnmatchcase(topology.roles[node], key)
        ]
        if not matching:
            known = ", ".join(topology.names[node] for node in nodes[:SHOWN_NAMES])
            raise ValueError(
                f"{setting}.{key} is {number!r}: must be for {what} of this network "
                f"({known}{', ...' if len(nodes) > SHOWN_NAMES else ''}), its role, or a pattern "
                f"of them"
            )
        found[matching] = number
    return found
