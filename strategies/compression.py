"""Compression of updates with error feedback.

What is compressed is the difference to the version that the node was sent; the server keeps that
version until the message is answered or given up. What an encoding leaves out is added to the next
update of the node.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, Context, Message

from strategies.arrays import Arrays, Layout, Schema, to_arrays, to_record
from strategies.checks import require_number

INDICES, VALUES, CODES, SCALES = "indices", "values", "codes", "scales"
LARGEST_CODE = 127


class Compression(ABC):
    """Encoding of an update; server and nodes must use the same.

    An update is one vector with all values of a :class:`Layout`, shape (P,). The names, shapes and
    types of its encoding depend on the layout alone: the guard validates them before decoding.
    """

    @abstractmethod
    def schema(self, layout: Layout) -> Schema:
        """Return shapes and types of the encoded arrays, by name."""

    @abstractmethod
    def encode(self, update: np.ndarray, layout: Layout) -> Arrays:
        """Encode an update; the arrays of one that is not finite are not finite either."""

    @abstractmethod
    def decode(self, arrays: Arrays, layout: Layout) -> np.ndarray:
        """Decode arrays of the schema into float64; raise ``ValueError`` if they encode nothing."""


@dataclass(frozen=True)
class TopK(Compression):
    """The values of largest magnitude over all arrays, with their indices (Aji and Heafield 2017).

    Ties go to the lower index. An index takes 2 bytes in models of less than 65,536 parameters, 4
    in larger ones.

    Parameters
    ----------
    fraction : float, default 0.1
        Fraction of the values that is sent, rounded up.
    """

    fraction: float = 0.1

    def __post_init__(self) -> None:
        require_number("fraction", self.fraction, above=0, at_most=1)

    def schema(self, layout: Layout) -> Schema:
        """Return the schema: indices in rising order, and values."""
        kept = (int(np.ceil(self.fraction * layout.size)),)
        return {INDICES: (kept, np.min_scalar_type(layout.size)), VALUES: (kept, layout.dtype)}

    def encode(self, update: np.ndarray, layout: Layout) -> Arrays:
        """Encode an update: see :class:`Compression`."""
        (kept,), places = self.schema(layout)[INDICES]
        magnitude = np.where(np.isnan(update), np.inf, np.abs(update))
        largest = np.sort(np.argsort(-magnitude, kind="stable")[:kept])
        with np.errstate(over="ignore"):
            values = update[largest].astype(layout.dtype)
        return {INDICES: largest.astype(places), VALUES: values}

    def decode(self, arrays: Arrays, layout: Layout) -> np.ndarray:
        """Decode an update: see :class:`Compression`."""
        indices = arrays[INDICES]
        rising = np.all(indices[1:] > indices[:-1])
        if not rising or (indices.size and indices[-1] >= layout.size):
            raise ValueError(
                f"array {INDICES!r} must hold indices from 0 to {layout.size - 1} in rising order"
            )
        update = np.zeros(layout.size)
        update[indices] = arrays[VALUES]
        return update


@dataclass(frozen=True)
class Int8(Compression):
    """Each value as one of 255 equally spaced levels, up to the largest magnitude of its array.

    Values are rounded to the nearest level: the error is at most 1/254 of the largest magnitude.
    With error feedback this suffices (Karimireddy et al. 2019); unbiased stochastic rounding (QSGD,
    Alistarh et al. 2017) would cost accuracy and need a random stream.
    """

    def schema(self, layout: Layout) -> Schema:
        """Return the schema: levels of all values, and the spacing of the levels of each array."""
        return {
            CODES: ((layout.size,), np.dtype(np.int8)),
            SCALES: ((len(layout.schema),), np.result_type(layout.dtype, np.float32)),
        }

    def encode(self, update: np.ndarray, layout: Layout) -> Arrays:
        """Encode an update: see :class:`Compression`."""
        largest = [np.abs(update[p]).max(initial=0.0) for p in layout.places.values()]
        with np.errstate(over="ignore"):
            scales = (np.array(largest) / LARGEST_CODE).astype(self.schema(layout)[SCALES][1])
        spacing = self._spread(scales, layout)
        usable = np.isfinite(spacing) & (spacing > 0)
        levels = np.divide(update, spacing, out=np.zeros(layout.size), where=usable)
        codes = np.rint(levels).clip(-LARGEST_CODE, LARGEST_CODE).astype(np.int8)
        return {CODES: codes, SCALES: scales}

    def decode(self, arrays: Arrays, layout: Layout) -> np.ndarray:
        """Decode an update: see :class:`Compression`."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.multiply(arrays[CODES], self._spread(arrays[SCALES], layout))

    @staticmethod
    def _spread(scales: np.ndarray, layout: Layout) -> np.ndarray:
        """Return the spacing of the levels for each value."""
        sizes = [place.stop - place.start for place in layout.places.values()]
        return np.repeat(scales.astype(np.float64), sizes)


def compress_update(
    compression: Compression,
    arrays: Mapping[str, np.ndarray],
    base: Mapping[str, np.ndarray],
    residual: np.ndarray | None = None,
) -> tuple[ArrayRecord, np.ndarray]:
    """Encode an update with error feedback (Seide et al. 2014, Karimireddy et al. 2019).

    ::

        p        = (arrays - base) + residual
        sent     = compression(p)
        residual = p - sent

    The sum of everything sent plus the residual is the sum of all updates. An update that is not
    finite is encoded as such, for the server to reject, and leaves the residual unchanged.

    Parameters
    ----------
    compression : Compression
    arrays : mapping of str to array
        Trained arrays.
    base : mapping of str to array
        Arrays that the node was sent.
    residual : array of float64, shape (P,), optional
        What earlier messages left out; None: nothing.

    Returns
    -------
    ArrayRecord, array of float64 of shape (P,)
        Record to send instead of `arrays`, and the residual to keep.

    Raises
    ------
    ValueError
        If the residual belongs to another model.
    """
    layout = Layout(base)
    if residual is None:
        residual = np.zeros(layout.size)
    if residual.shape != (layout.size,):
        raise ValueError(f"residual has shape {residual.shape}: must be ({layout.size},)")
    with np.errstate(over="ignore", invalid="ignore"):
        update = np.subtract(layout.flatten(arrays), layout.flatten(base), dtype=np.float64)
        wanted = update + residual
        sent = compression.encode(wanted, layout)
        left = wanted - compression.decode(sent, layout)
    return to_record(sent), left if np.all(np.isfinite(left)) else residual


def compression_mod(
    compression: Compression, *, arrayrecord_key: str = "arrays", residual_key: str = "residual"
) -> Callable[[Message, Context, Callable[[Message, Context], Message]], Message]:
    """Return a mod for Flower's ClientApp that compresses replies with error feedback.

    ``ClientApp(mods=[compression_mod(TopK(0.1))])`` and ``BufferedAsync(compression=TopK(0.1))``.

    Parameters
    ----------
    compression : Compression
    arrayrecord_key : str, default "arrays"
        Name of the record that holds the arrays.
    residual_key : str, default "residual"
        Name of the record of ``context.state`` that keeps the residual.
    """

    def mod(
        message: Message, context: Context, call_next: Callable[[Message, Context], Message]
    ) -> Message:
        base = message.content.array_records.get(arrayrecord_key)
        reply = call_next(message, context)
        arrays = None if reply.has_error() else reply.content.array_records.get(arrayrecord_key)
        if base is None or arrays is None:  # not a train message
            return reply
        kept = context.state.array_records.get(residual_key)
        residual = None if kept is None else kept[residual_key].numpy()
        record, residual = compress_update(
            compression, to_arrays(arrays), to_arrays(base), residual
        )
        reply.content[arrayrecord_key] = record
        context.state[residual_key] = to_record({residual_key: residual})
        return reply

    return mod
