"""What a node reports, in fewer bytes; what they leave out goes into its next report.

Parameters do not compress, their difference to the version that the node was sent does. Both ends
hold that version: the server keeps it until the message is answered or given up.
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
    """How an update travels; both ends must have the same one.

    An update is one vector with all values of a :class:`Layout`, shape (P,). The names, shapes and
    types of what stands for it depend on the layout alone: the guard compares them before it reads.
    """

    @abstractmethod
    def schema(self, layout: Layout) -> Schema:
        """Shapes and types of the arrays that travel, by name."""

    @abstractmethod
    def encode(self, update: np.ndarray, layout: Layout) -> Arrays:
        """The arrays that travel; not finite ones for an update that is not."""

    @abstractmethod
    def decode(self, arrays: Arrays, layout: Layout) -> np.ndarray:
        """The update that arrays of the schema stand for, in float64; ``ValueError`` if none."""


@dataclass(frozen=True)
class TopK(Compression):
    """The values of largest magnitude over all arrays, with their places (Aji and Heafield 2017).

    Of equal magnitudes, the first. A place takes 2 bytes in models of less than 65,536
    parameters, 4 in larger ones.

    Parameters
    ----------
    fraction : float, default 0.1
        Of the values that travels, rounded up.
    """

    fraction: float = 0.1

    def __post_init__(self) -> None:
        require_number("fraction", self.fraction, above=0, at_most=1)

    def schema(self, layout: Layout) -> Schema:
        """Places in rising order, and values."""
        kept = (int(np.ceil(self.fraction * layout.size)),)
        return {INDICES: (kept, np.min_scalar_type(layout.size)), VALUES: (kept, layout.dtype)}

    def encode(self, update: np.ndarray, layout: Layout) -> Arrays:
        """See :class:`Compression`."""
        (kept,), places = self.schema(layout)[INDICES]
        magnitude = np.where(np.isnan(update), np.inf, np.abs(update))
        largest = np.sort(np.argsort(-magnitude, kind="stable")[:kept])
        with np.errstate(over="ignore"):
            values = update[largest].astype(layout.dtype)
        return {INDICES: largest.astype(places), VALUES: values}

    def decode(self, arrays: Arrays, layout: Layout) -> np.ndarray:
        """See :class:`Compression`."""
        indices = arrays[INDICES]
        rising = np.all(indices[1:] > indices[:-1])
        if not rising or (indices.size and indices[-1] >= layout.size):
            raise ValueError(
                f"array {INDICES!r} must hold places from 0 to {layout.size - 1} in rising order"
            )
        update = np.zeros(layout.size)
        update[indices] = arrays[VALUES]
        return update


@dataclass(frozen=True)
class Int8(Compression):
    """Each value as one of 255 equally spaced levels, between plus and minus its array's largest.

    Rounded to the nearest level, so no value is off by more than 1/254 of the largest of its
    array. Error feedback needs no more than that (Karimireddy et al. 2019): rounding by lot, which
    has no bias (QSGD, Alistarh et al. 2017), would cost accuracy and a random stream.
    """

    def schema(self, layout: Layout) -> Schema:
        """Levels of all values, and the distance of two levels in each array."""
        return {
            CODES: ((layout.size,), np.dtype(np.int8)),
            SCALES: ((len(layout.schema),), np.result_type(layout.dtype, np.float32)),
        }

    def encode(self, update: np.ndarray, layout: Layout) -> Arrays:
        """See :class:`Compression`."""
        largest = [np.abs(update[p]).max(initial=0.0) for p in layout.places.values()]
        with np.errstate(over="ignore"):
            scales = (np.array(largest) / LARGEST_CODE).astype(self.schema(layout)[SCALES][1])
        spacing = self._spread(scales, layout)
        usable = np.isfinite(spacing) & (spacing > 0)
        levels = np.divide(update, spacing, out=np.zeros(layout.size), where=usable)
        codes = np.rint(levels).clip(-LARGEST_CODE, LARGEST_CODE).astype(np.int8)
        return {CODES: codes, SCALES: scales}

    def decode(self, arrays: Arrays, layout: Layout) -> np.ndarray:
        """See :class:`Compression`."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.multiply(arrays[CODES], self._spread(arrays[SCALES], layout))

    @staticmethod
    def _spread(scales: np.ndarray, layout: Layout) -> np.ndarray:
        """The scale of each value's array."""
        sizes = [place.stop - place.start for place in layout.places.values()]
        return np.repeat(scales.astype(np.float64), sizes)


def compress_update(
    compression: Compression,
    arrays: Mapping[str, np.ndarray],
    base: Mapping[str, np.ndarray],
    residual: np.ndarray | None = None,
) -> tuple[ArrayRecord, np.ndarray]:
    """What a node sends, with error feedback (Seide et al. 2014, Karimireddy et al. 2019).

    ::

        p        = (arrays - base) + residual
        sent     = compression(p)
        residual = p - sent

    So whatever was ever sent, plus the residual, is the sum of all updates. An update that is not
    finite is sent as such, for the server to turn away, and leaves the residual as it was.

    Parameters
    ----------
    compression : Compression
    arrays : mapping of str to array
        What the node trained.
    base : mapping of str to array
        The version that it was sent, as it was sent.
    residual : array of float64, shape (P,), optional
        What earlier messages left out; None for nothing.

    Returns
    -------
    ArrayRecord, array of float64 of shape (P,)
        What to send instead of `arrays`, and the residual to keep.

    Raises
    ------
    ValueError
        If the residual is of another model.
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
    """A mod for Flower's ClientApp: arrays go out compressed, with error feedback.

    ``ClientApp(mods=[compression_mod(TopK(0.1))])`` and ``BufferedAsync(compression=TopK(0.1))``.

    Parameters
    ----------
    compression : Compression
    arrayrecord_key : str, default "arrays"
        Record of the messages that holds the arrays.
    residual_key : str, default "residual"
        Record of ``context.state`` that keeps what was left out.
    """

    def mod(
        message: Message, context: Context, call_next: Callable[[Message, Context], Message]
    ) -> Message:
        base = message.content.array_records.get(arrayrecord_key)
        reply = call_next(message, context)
        arrays = None if reply.has_error() else reply.content.array_records.get(arrayrecord_key)
        if base is None or arrays is None:  # of another kind of message
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
