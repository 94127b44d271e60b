"""Named numpy arrays, as Flower's records and as one vector."""

import functools
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, Message

Arrays = dict[str, np.ndarray]
Schema = dict[str, tuple[tuple[int, ...], np.dtype]]

NPY_HEADER = 4096  # bytes; larger than the header of any .npy payload of these types
BLOCK = 65_536  # values; in float64 they fit the cache of a core


def to_arrays(record: ArrayRecord) -> Arrays:
    """Return the numpy arrays of a record, by name."""
    return {name: array.numpy() for name, array in record.items()}


def to_record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Return a record of numpy arrays."""
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def size_of_arrays(message: Message) -> int:
    """Return the bytes of the serialised arrays of a message, with their names."""
    return sum(record.count_bytes() for record in message.content.array_records.values())


def read_payload(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Read the array in a ``.npy`` payload, which must have the given shape and dtype.

    Unlike ``np.load``, it validates the header before it allocates memory, and never unpickles.

    Raises
    ------
    ValueError
        If the payload is damaged or holds something else.
    """
    header = npy_header(shape, dtype)
    if data.startswith(header):
        start, fortran = len(header), False
    else:
        start, fortran = read_header(data, shape, dtype)
    if len(data) - start != dtype.itemsize * int(np.prod(shape)):
        raise ValueError(f"{len(data) - start} bytes do not make {dtype}{shape}")
    flat = np.frombuffer(data, dtype, offset=start)
    return flat.reshape(shape, order="F" if fortran else "C")


@functools.lru_cache(maxsize=4096)
def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Return the header that ``np.save`` writes for an array in C order: the most common one."""
    stream = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(stream, {**description, "shape": shape})
    return stream.getvalue()


def read_header(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, bool]:
    """Return the length of a ``.npy`` header and whether the array is in Fortran order."""
    stream = io.BytesIO(data)
    major, _ = np.lib.format.read_magic(stream)
    read = {
        1: np.lib.format.read_array_header_1_0,
        2: np.lib.format.read_array_header_2_0,
    }.get(major)
    if read is None:
        raise ValueError(f"format {major} of .npy is unknown")
    held_shape, fortran, held_dtype = read(stream)
    if held_shape != shape or held_dtype != dtype:
        raise ValueError(f"holds {held_dtype}{held_shape}: must be {dtype}{shape}")
    return stream.tell(), fortran


@dataclass(frozen=True)
class Block:
    """A part of the vector of a layout.

    Parameters
    ----------
    place : slice
        Its position in the vector.
    parts : tuple of (str, slice, slice)
        The arrays in it: name, values of the array, and their position in the block.
    """

    place: slice
    parts: tuple[tuple[str, slice, slice], ...]

    @property
    def size(self) -> int:
        """Values in the block."""
        return int(self.place.stop - self.place.start)


class Layout:
    """How named arrays are laid out in one vector.

    Parameters
    ----------
    arrays : dict of str to array
        The initial arrays: floating point, integers or booleans of at most 64 bits.

    Attributes
    ----------
    schema : dict of str to (shape, dtype)
    places : dict of str to slice
        Position of each array in the vector, in the order of the names: the same for server and
        node.
    size : int
        Length of the vector: P.
    blocks : tuple of Block
        The vector in parts of at most ``BLOCK`` values, in order.
    whole : Block
        All of it.
    dtype : numpy dtype
        Type of the vector; holds every value exactly (integers up to 2^53).

    Raises
    ------
    ValueError
        If there are no arrays, or one has another type.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        if not arrays:
            raise ValueError("initial_arrays is empty: must hold the arrays to train")
        self.schema: Schema = {}
        self.places: dict[str, slice] = {}
        self.size = 0
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
                raise ValueError(
                    f"array {name!r} is of type {array.dtype}: must be floating point, integer "
                    f"or boolean of at most 64 bits"
                )
            self.schema[name] = (array.shape, array.dtype)
        for name in sorted(arrays):
            self.places[name] = slice(self.size, self.size + arrays[name].size)
            self.size += arrays[name].size
        self.blocks = tuple(blocks(self.places, self.size, BLOCK))
        self.whole = next(blocks(self.places, self.size, self.size), Block(slice(0, 0), ()))
        self.dtype = np.result_type(np.float16, *(dtype for _, dtype in self.schema.values()))

    def describe(self) -> dict[str, str]:
        """Return the schema as text, to compare and to display."""
        return {name: f"{dtype}{shape}" for name, (shape, dtype) in self.schema.items()}

    def flatten(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the values of arrays of this layout as one vector of shape ``(size,)``."""
        vector = np.empty(self.size, self.dtype)
        for name, place in self.places.items():
            vector[place] = arrays[name].reshape(-1)
        return vector

    def unflatten(self, vector: np.ndarray) -> Arrays:
        """Return a vector as arrays; integers are rounded and clipped to their type's range."""
        arrays = {}
        for name, (shape, dtype) in self.schema.items():
            arrays[name] = as_type(vector[self.places[name]].reshape(shape), dtype)
        return arrays


def as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return values in another type; integers are rounded and clipped to its range."""
    if dtype.kind == "b":
        values = values >= 0.5
    elif dtype.kind in "iu":
        limits = np.iinfo(dtype)
        highest = float(limits.max)
        if int(highest) > limits.max:  # 2^63 - 1 and 2^64 - 1 are not floats
            highest = float(np.nextafter(highest, 0.0))
        values = np.clip(np.rint(values), float(limits.min), highest)
    with np.errstate(over="ignore"):  # versions that are not finite are discarded
        return np.asarray(values, dtype)


def blocks(places: Mapping[str, slice], size: int, most: int) -> Iterator[Block]:
    """Divide a vector of `size` values, in which arrays lie at `places`, into blocks of `most`."""
    arrays = iter(places.items())
    name, place = "", slice(0, 0)
    for start in range(0, size, max(most, 1)):
        stop, at, parts = min(start + most, size), start, []
        while at < stop:
            if at == place.stop:
                name, place = next(arrays)
                continue  # it may be empty
            end = min(stop, place.stop)
            values = slice(at - place.start, end - place.start)
            parts.append((name, values, slice(at - start, end - start)))
            at = end
        yield Block(slice(start, stop), tuple(parts))
