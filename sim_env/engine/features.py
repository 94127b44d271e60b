"""Encodings: the raw quantities of a decision as input features of a network, by name.

An encoding turns each decision into a row of features of the node and its task (``local``) and a
row for each of its slots (``destinations``); spaces and networks take their widths from it. An
encoding of your own is an :class:`Encoding` at an import path; :data:`OBSERVATIONS` holds the
built-in ones. Compiled rollouts call those of :data:`COMPILED` by number (:func:`encode`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sim_env import plugins
from sim_env.engine.compilation import compiled, part
from sim_env.errors import require_kind, require_whole, shown

# Raw columns of a decision and of a slot, filled in by observation.py; times in ticks.
PENDING, READY, LOAD, BACKLOG, WORK, MEGABYTES, OUTPUT_MEGABYTES, SLACK, HOPS, INCOMING = range(10)
QUEUE, CAPACITY, SPEED, WAIT, EXECUTE, SEND, BACK, IS_SENDER = range(8)
NUM_LOCAL, NUM_DESTINATION = 10, 8
REFERENCE_SPEED = 2e7  # instructions per tick: fixed, so that features mean the same everywhere


# log1p(x) is written log(1 + x): the same in float32, in a third of the time.


@compiled
def encode_full(local, destination, mask, out_local, out_destination):
    """Compute features of order one, with fixed constants so that they transfer between networks.

    Local (12): 1; tasks / capacity; log1p(undecided) / 4; log2(speed / 2e7) / 4;
    log1p(execution here) / 4; log1p(megabytes) / 4; ticks to deadline / 300; hops / 4;
    decided / capacity; incoming tasks per tick; legal actions / 10; log1p(backlog) / 5.
    Destination (10): queue / capacity; log1p(queue) / 4; log2(speed / 2e7) / 4;
    log1p(execution) / 4; log1p(wait) / 4; log1p(transfers) / 4; is this node; log1p(delay) / 4;
    came from there; min(delay / 100, 6) / 2. Times in ticks.
    """
    for r in range(len(local)):
        capacity = destination[r, 0, CAPACITY]
        out_local[r, 0] = 1.0
        out_local[r, 1] = local[r, LOAD] / capacity
        out_local[r, 2] = np.log(1.0 + local[r, PENDING]) / 4
        out_local[r, 3] = np.log2(destination[r, 0, SPEED] / REFERENCE_SPEED) / 4
        out_local[r, 4] = np.log(1.0 + destination[r, 0, EXECUTE]) / 4
        out_local[r, 5] = np.log(1.0 + local[r, MEGABYTES]) / 4
        out_local[r, 6] = min(local[r, SLACK] / 300, 3.0)
        out_local[r, 7] = local[r, HOPS] / 4
        out_local[r, 8] = local[r, READY] / capacity
        out_local[r, 9] = local[r, INCOMING]
        slots = 0
        for k in range(mask.shape[1]):
            d = destination[r, k]
            if not mask[r, k]:
                continue
            slots += 1
            delay = d[WAIT] + d[EXECUTE] + d[SEND] + d[BACK]
            out_destination[r, k, 0] = d[QUEUE] / d[CAPACITY]
            out_destination[r, k, 1] = np.log(1.0 + d[QUEUE]) / 4
            out_destination[r, k, 2] = np.log2(d[SPEED] / REFERENCE_SPEED) / 4
            out_destination[r, k, 3] = np.log(1.0 + d[EXECUTE]) / 4
            out_destination[r, k, 4] = np.log(1.0 + d[WAIT]) / 4
            out_destination[r, k, 5] = np.log(1.0 + d[SEND] + d[BACK]) / 4
            out_destination[r, k, 6] = k == 0
            out_destination[r, k, 7] = np.log(1.0 + delay) / 4
            out_destination[r, k, 8] = d[IS_SENDER]
            out_destination[r, k, 9] = min(delay / 100, 6.0) / 2
        out_local[r, 10] = min(slots / 10, 10.0)
        out_local[r, 11] = np.log(1.0 + local[r, BACKLOG]) / 5


@compiled
def encode_paper(local, destination, mask, out_local, out_destination):
    """Compute what an agent of the original simulator observes: queues, own speed, next task.

    Local (7): 1; own queue / capacity; log2(own speed / 2e7) / 4; legal actions / 10; of the next
    task log1p(execution here in ticks) / 4, log1p(megabytes) / 4, log1p(megabytes of its
    output) / 4. Destination (3): queue / capacity; free places / capacity; is this node.

    The quantities are those of PeersimGym's ``PeersimEnv`` with the next task in its state; the
    logarithms and the fixed reference speed (the original's is the mean of the network) are those
    of :func:`encode_full`. Left out: the node's number, which the original feeds as a quantity,
    and the progress of the next task, which is always 0. The original pads its vectors with -1 to
    the number of nodes, so that all agents have the same width. Here a slot is a row, so the
    padding goes to the largest number of slots only, with zeros, and the mask identifies them: the
    width of a network does not depend on the number of nodes.
    """
    for r in range(len(local)):
        out_local[r, 0] = 1.0
        out_local[r, 1] = local[r, LOAD] / destination[r, 0, CAPACITY]
        out_local[r, 2] = np.log2(destination[r, 0, SPEED] / REFERENCE_SPEED) / 4
        out_local[r, 4] = np.log(1.0 + destination[r, 0, EXECUTE]) / 4
        out_local[r, 5] = np.log(1.0 + local[r, MEGABYTES]) / 4
        out_local[r, 6] = np.log(1.0 + local[r, OUTPUT_MEGABYTES]) / 4
        slots = 0
        for k in range(mask.shape[1]):
            if not mask[r, k]:
                continue
            slots += 1
            queue, capacity = destination[r, k, QUEUE], destination[r, k, CAPACITY]
            out_destination[r, k, 0] = queue / capacity
            out_destination[r, k, 1] = (capacity - queue) / capacity
            out_destination[r, k, 2] = k == 0
        out_local[r, 3] = min(slots / 10, 10.0)


@part
def encode(number, local, destination, mask, out_local, out_destination):
    """Encode with entry `number` of :data:`COMPILED`, inside compiled code."""
    if number == 0:
        encode_full(local, destination, mask, out_local, out_destination)
    else:
        encode_paper(local, destination, mask, out_local, out_destination)


@dataclass(frozen=True)
class Encoding:
    """A mapping of raw quantities to the input features of a network.

    Parameters
    ----------
    local, destinations : int
        Number of features of a decision and of each of its slots. The first feature of a decision
        is 1: all zeros mean that there is nothing to decide.
    encode : callable
        ``encode(local, destination, mask, out_local, out_destination)`` fills the last two, which
        are zeros of shape (R, `local`) and (R, K, `destinations`), from the raw columns (R, 10) and
        (R, K, 8) and the mask (R, K); excluded slots stay zero. Numpy or compiled.
    delay : int, optional
        Index of the feature of a slot that is log1p(expected delay in ticks) / 4, if there is one.
    name : str
        Name of an encoding that is not in :data:`COMPILED`; set by :func:`find_encoding`.
    """

    local: int
    destinations: int
    encode: Callable[..., None]
    delay: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not callable(self.encode):
            raise ValueError(f"encode of an Encoding is {shown(self.encode)}: must be a function")
        require_whole("local of an Encoding", self.local, at_least=1)
        require_whole("destinations of an Encoding", self.destinations, at_least=0)
        if self.delay is not None:
            last = self.destinations - 1
            require_whole("delay of an Encoding", self.delay, at_least=0, at_most=last)

    def features(
        self, local: np.ndarray, destination: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode R decisions.

        Parameters
        ----------
        local : array of float64, shape (R, 10)
        destination : array of float64, shape (R, K, 8)
        mask : array of bool, shape (R, K)

        Returns
        -------
        local : array of float32, shape (R, ``local``)
        destination : array of float32, shape (R, K, ``destinations``)

        Raises
        ------
        ValueError
            If an encoding that is not built in gives features that are not finite, a first feature
            that is not 1, or features of excluded slots.
        """
        rows, slots = mask.shape
        out_local = np.zeros((rows, self.local), np.float32)
        out_destination = np.zeros((rows, slots, self.destinations), np.float32)
        self.encode(local, destination, mask, out_local, out_destination)
        if self.name:
            self.check(out_local, out_destination, mask)
        return out_local, out_destination

    def check(self, local: np.ndarray, destination: np.ndarray, mask: np.ndarray) -> None:
        """Raise ``ValueError`` for impossible features; parameters as :meth:`features` returns."""
        where = f"observation {self.name!r}"
        if not (np.isfinite(local).all() and np.isfinite(destination).all()):
            raise ValueError(f"{where} gave features that are not finite: must be finite numbers")
        for value in local[local[:, 0] != 1, 0][:1]:
            raise ValueError(f"{where} gave {value:g} as first local feature: must be 1")
        if destination[~mask].any():
            raise ValueError(f"{where} gave features of slots that the mask excludes: must be 0")


COMPILED = (Encoding(12, 10, encode_full, delay=7), Encoding(7, 3, encode_paper))
"""The encodings that :func:`encode` calls, in the order of their numbers."""
OBSERVATIONS = dict(zip(("full", "paper"), COMPILED, strict=True))
"""The built-in observations by name; an encoding without a number is called from Python."""
GROUP = "fauno.observations"  # of entry points
GUARD = 4096  # numbers on either side of an array that an encoding is tried on


def number_of(encoding: Encoding) -> int:
    """Return the number of an encoding in compiled code; -1 if it has none."""
    return next((n for n, each in enumerate(COMPILED) if each is encoding), -1)


def require_observation(name: str) -> None:
    """Raise ``ValueError`` unless `name` may be that of an encoding; import nothing."""
    plugins.require_name("observation", name, OBSERVATIONS, GROUP)


def find_encoding(name: str) -> Encoding:
    """Return the encoding of that name.

    Parameters
    ----------
    name : str
        One of :data:`OBSERVATIONS`, an entry point of ``fauno.observations``, or an import path
        such as ``my_module:ENCODING``.

    Raises
    ------
    ValueError
        If there is none, it is not an :class:`Encoding`, or its widths are wrong.
    """
    found = plugins.find("observation", name, OBSERVATIONS, GROUP)
    require_kind(f"observation {name!r}", found, Encoding, "an Encoding")
    if number_of(found) >= 0:
        return found
    own = replace(found, name=name)
    require_widths(own)
    return own


def require_widths(encoding: Encoding) -> None:
    """Raise ``ValueError`` for an encoding that writes outside of its features, or cannot be used.

    A compiled function does not check its indices: what it writes elsewhere corrupts the memory of
    the process. So it is tried on two decisions whose arrays lie within larger ones.
    """
    local, destination = (
        _within((2, NUM_LOCAL), float)[1],
        _within((2, 2, NUM_DESTINATION), float)[1],
    )
    local[:], destination[:] = 1.0, 1.0
    destination[:, :, CAPACITY], destination[:, :, SPEED] = 10.0, REFERENCE_SPEED
    mask = _within((2, 2), bool)[1]
    mask[:] = [[True, False], [True, True]]
    outer_local, out_local = _within((2, encoding.local), np.float32)
    outer_destination, out_destination = _within((2, 2, encoding.destinations), np.float32)
    out_local[:], out_destination[:] = 0.0, 0.0
    arguments = local, destination, mask, out_local, out_destination
    plugins.call("observation", encoding.name, encoding.encode, *arguments)
    for setting, outer in (("local", outer_local), ("destinations", outer_destination)):
        width = getattr(encoding, setting)
        beyond = np.flatnonzero(~np.isnan(outer[-GUARD:]))
        if len(beyond) or not np.isnan(outer[:GUARD]).all():
            filled = f"{width + beyond[-1] + 1} features" if len(beyond) else "features before 0"
            raise ValueError(
                f"observation is {encoding.name!r}: its function fills {filled} where "
                f"Encoding.{setting} is {width}: must be as many"
            )
    encoding.check(out_local, out_destination, mask)


def _within(shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return an array of NaN (False, if bool), and one of `shape` inside it."""
    outer = np.full(int(np.prod(shape)) + 2 * GUARD, 0 if dtype is bool else np.nan, dtype)
    return outer, np.ndarray(shape, dtype, outer.data, GUARD * outer.itemsize)
