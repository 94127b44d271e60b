"""Named numpy arrays, as Flower's records and as one vector."""

import functools
import io
from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, Message

Arrays = dict[str, np.ndarray]
Schema = dict[str, tuple[tuple[int, ...], np.dtype]]

NPY_HEADER = 4096  # bytes; larger than the header of any .npy payload of these types


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
        Length of the vector.
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

    def difference(self, arrays: Mapping[str, np.ndarray], base: np.ndarray) -> np.ndarray:
        """Return the difference of arrays of this layout to a vector, in float64."""
        delta = np.empty(self.size)
        for name, place in self.places.items():
            values = arrays[name].reshape(-1)
            np.subtract(values, base[place], out=delta[place], dtype=np.float64)
        return delta

    def unflatten(self, vector: np.ndarray) -> Arrays:
        """Return a vector as arrays; integers are rounded and clipped to their type's range."""
        arrays = {}
        for name, (shape, dtype) in self.schema.items():
            part = vector[self.places[name]].reshape(shape)
            if dtype.kind == "b":
                part = part >= 0.5
            elif dtype.kind in "iu":
                limits = np.iinfo(dtype)
                highest = float(limits.max)
                if int(highest) > limits.max:  # 2^63 - 1 and 2^64 - 1 are not floats
                    highest = float(np.nextafter(highest, 0.0))
                part = np.clip(np.rint(part), float(limits.min), highest)
            with np.errstate(over="ignore"):  # versions that are not finite are discarded
                arrays[name] = np.asarray(part, dtype)
        return arrays
