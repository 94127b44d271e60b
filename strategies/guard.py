"""The door: a reply becomes an update, or is rejected with a named reason."""

import math

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from strategies.arrays import Arrays
from strategies.buffer import Update
from strategies.flights import Flight


class RejectedError(Exception):
    """A reply that must not reach the model; ``str()`` is the reason."""


class Guard:
    """Compares every reply with the arrays that training began with.

    Parameters
    ----------
    initial : dict of str to array
        Names, shapes and dtypes that a reply must have.
    arrayrecord_key : str
        Record of the reply that holds the arrays.
    weighted_by_key : str
        Metric that holds the number of training steps.
    """

    def __init__(self, initial: Arrays, arrayrecord_key: str, weighted_by_key: str) -> None:
        self.schema = {name: (array.shape, array.dtype) for name, array in initial.items()}
        self.arrayrecord_key, self.weighted_by_key = arrayrecord_key, weighted_by_key

    def check(self, reply: Message, flight: Flight) -> Update:
        """The update that a reply carries.

        Raises
        ------
        RejectedError
            With the reason.
        """
        record = reply.content.array_records.get(self.arrayrecord_key)
        if record is None:
            raise RejectedError(f"no ArrayRecord {self.arrayrecord_key!r}")
        metrics = MetricRecord()
        for other in reply.content.metric_records.values():
            metrics.update(other)
        steps = metrics.get(self.weighted_by_key)
        if isinstance(steps, bool) or not isinstance(steps, int | float):
            raise RejectedError(f"metric {self.weighted_by_key!r} is {steps!r}: must be a number")
        if not (math.isfinite(steps) and steps > 0):
            raise RejectedError(f"metric {self.weighted_by_key!r} is {steps!r}: must be above 0")
        return Update(
            reply=reply,
            node_id=flight.node_id,
            base_version=flight.base_version,
            steps=float(steps),
            arrays=self._arrays(record),
            metrics=metrics,
        )

    def _arrays(self, record: ArrayRecord) -> Arrays:
        if set(record) != set(self.schema):
            odd = sorted(set(record) ^ set(self.schema))
            raise RejectedError(f"arrays {odd} are missing or not known")
        arrays = {}
        for name, (shape, dtype) in self.schema.items():
            sent = record[name]
            if tuple(sent.shape) != shape or sent.dtype != str(dtype):
                raise RejectedError(
                    f"array {name!r} is {sent.dtype}{tuple(sent.shape)}: must be {dtype}{shape}"
                )
            try:
                array = sent.numpy()
            except Exception as error:  # whatever a damaged payload makes numpy raise
                raise RejectedError(f"array {name!r} cannot be read: {error}") from error
            if array.shape != shape or array.dtype != dtype:
                raise RejectedError(
                    f"array {name!r} holds {array.dtype}{array.shape}: must be {dtype}{shape}"
                )
            if not np.all(np.isfinite(array)):
                raise RejectedError(f"array {name!r} is not finite")
            arrays[name] = array
        return arrays
