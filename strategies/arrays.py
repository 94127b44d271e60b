"""Named numpy arrays, and Flower's record of them."""

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord

Arrays = dict[str, np.ndarray]


def to_arrays(record: ArrayRecord) -> Arrays:
    """Numpy arrays of a record, by name."""
    return {name: array.numpy() for name, array in record.items()}


def to_record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Record of numpy arrays."""
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})
