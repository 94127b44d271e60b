"""What a grid may offer beyond Flower's interface, and how to ask for it.

A grid of Flower's own offers none of it; each function says what is used instead.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from flwr.serverapp import Grid

from strategies.clock import Clock


@runtime_checkable
class HasClock(Protocol):
    """A grid under its own, usually virtual, time."""

    clock: Clock


@runtime_checkable
class HasPollInterval(Protocol):
    """A grid that knows how often it is worth polling, in seconds of its clock."""

    poll_interval: float


@runtime_checkable
class KnowsAllNodes(Protocol):
    """A grid that also knows the nodes that are offline now and may come back."""

    def get_all_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes, online or not."""


@runtime_checkable
class KnowsKeys(Protocol):
    """A grid that knows the public keys by which the SuperLink tells its nodes apart."""

    def get_node_keys(self) -> Mapping[int, bytes]:
        """Return the public key of each node that is online, by its id."""


@runtime_checkable
class Resumable(Protocol):
    """A grid whose state can be saved and restored; then no message is lost on resume."""

    def save_state(self) -> dict[str, bytes]:
        """Return everything that the future of the grid depends on."""

    def load_state(self, state: dict[str, bytes]) -> None:
        """Restore what :meth:`save_state` has returned."""


def clock_of(grid: Grid) -> Clock:
    """Return the clock of a grid; by default real time, the module :mod:`time`."""
    return grid.clock if isinstance(grid, HasClock) else time


def poll_interval_of(grid: Grid, default: float) -> float:
    """Return the seconds between two polls that suit a grid, or `default`."""
    return grid.poll_interval if isinstance(grid, HasPollInterval) else default


def keys_of(grid: Grid) -> Mapping[int, bytes] | None:
    """Return the public keys of the nodes that are online; None if the grid does not know them."""
    return grid.get_node_keys() if isinstance(grid, KnowsKeys) else None


def all_node_ids(grid: Grid) -> list[int]:
    """Return the ids of all nodes in rising order; by default of those that are online."""
    ids = grid.get_all_node_ids() if isinstance(grid, KnowsAllNodes) else grid.get_node_ids()
    return sorted(ids)
