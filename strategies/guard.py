"""Validation of replies: a reply becomes an update, or a named check rejects it."""

import math
from collections import Counter
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message

from strategies.arrays import NPY_HEADER, Arrays, Layout, read_payload
from strategies.buffer import Update
from strategies.checks import printable, require_number, shown
from strategies.compression import Compression
from strategies.differences import ArraysDifference, Difference, VectorDifference, norm_of
from strategies.flights import Flight
from strategies.norms import FEW, UsualNorm

Metrics = dict[str, float | list[float]]

LARGEST_METRIC = 1e300
OTHER_BYTES = 2**20  # of a reply beside its arrays, and four times the size of the model
LONGEST_TYPE = 64  # characters
STALE = "stale"  # the check of an update that comes too late
ACCEPTED_PER_OFFENCE = 10
TYPES = {str(np.dtype(code)): np.dtype(code) for code in "?bBhHiIlLqQefd"}  # that may be sent
ASSUMED = 0.2  # of the norm of a model: its first updates in the app had 0.08 to 0.31
FAR = 10.0  # times the norm to which updates are scaled down, at which they are rejected instead


class RejectedError(Exception):
    """A reply fails a check and must not reach the model.

    Parameters
    ----------
    check : str
        Name of the check: record, weight, schema, size, payload, finite, norm, stale.
    detail : str
        One sentence.
    """

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(detail)
        self.check = check


class Guard:
    """Validate every reply against the schema of the initial arrays and bounds.

    Parameters
    ----------
    max_norm : float, default 1e6
        Largest Euclidean norm of an update (difference to its base version, over all arrays); a
        larger one is rejected.
    max_weight : float, default 1e300
        Largest weight. What one node can gain by a large one is bounded by the strategy's
        ``weight_factor``; a server that knows how many steps it requests can bound them here.
    norm_factor : float, default 5.0
        An update whose norm is more than this many times the usual one
        (:class:`strategies.norms.UsualNorm`) is scaled down to that; one that is ten times as far
        above whatever has been usual in this training is rejected. Honest norms were at most 3.9
        times the usual one (docs/strategies.md); scaled down, an honest exception is not lost.
        With three nodes or more, until three members are known, the usual norm is taken to be a
        fifth of that of the initial model: by default, no update is larger than that.
    max_offences : int, default 5
        A node is banned for the rest of the training when more of its replies have been rejected
        than this and a tenth of those that were accepted. A stale update is no offence.

    Attributes
    ----------
    most_metrics, most_metric_bytes, longest_metric, longest_name : int
        Metrics of a reply that are kept, in the order in which they were sent: their number, their
        bytes in all, the numbers of a list, the characters of a name. The weight is always kept.
    rejections : Counter
        Rejected replies by ``(check, node_id)``.
    accepted : Counter
        Accepted replies by node_id.
    offences : Counter
        Rejected replies by node_id, without those that were only stale.
    """

    most_metrics, most_metric_bytes = 256, 16_384
    longest_metric, longest_name = 1024, 128

    def __init__(
        self,
        *,
        max_norm: float = 1e6,
        max_weight: float = LARGEST_METRIC,
        norm_factor: float = 5.0,
        max_offences: int = 5,
    ) -> None:
        require_number("max_norm", max_norm, above=0)
        require_number("max_weight", max_weight, above=0)
        require_number("norm_factor", norm_factor, at_least=1)
        require_number("max_offences", max_offences, at_least=1)
        self.max_norm, self.max_weight, self.norm_factor = max_norm, max_weight, norm_factor
        self.max_offences = max_offences
        self.compares, self.initial_norm = True, 0.0
        self.usual = UsualNorm()
        self.rejections: Counter[tuple[str, int]] = Counter()
        self.accepted: Counter[int] = Counter()
        self.offences: Counter[int] = Counter()

    def __repr__(self) -> str:
        return (
            f"Guard(max_norm={self.max_norm:g}, max_weight={self.max_weight:g}, "
            f"norm_factor={self.norm_factor:g}, max_offences={self.max_offences})"
        )

    def most_norm(self, base_version: int, others: bool = False) -> float:
        """Return the norm to which larger updates from a version are scaled down.

        Parameters
        ----------
        base_version : int
        others : bool, default False
            Whether others will be known by which to compare updates. Until they are, the norm of
            the initial model bounds them: no worse than to begin with another model of its size.
        """
        if len(self.usual) >= FEW:
            return min(self.norm_factor * self.usual.at(base_version), self.max_norm)
        # Of two members, either may be the usual one.
        most = self.norm_factor * FAR * self.usual.at(base_version) or math.inf
        # A model of zeros, as a linear one at first, says nothing about its updates.
        assumed = self.norm_factor * ASSUMED * self.initial_norm if others else 0.0
        return min(most, assumed or math.inf, self.max_norm)

    def begin(
        self,
        layout: Layout,
        arrayrecord_key: str,
        weighted_by_key: str | None,
        compression: Compression | None = None,
        compares: bool = True,
        initial_norm: float = 0.0,
    ) -> None:
        """Freeze the schema and reset the counters: a training begins.

        Parameters
        ----------
        layout : Layout
            Layout of the initial arrays.
        arrayrecord_key : str
            Name of the record that holds the arrays.
        weighted_by_key : str, optional
            Metric that holds the weight; None: every update has weight 1.
        compression : Compression, optional
            How updates are encoded; None: replies hold the trained arrays.
        compares : bool, default True
            Whether the norm of an update is compared with those of others.
        initial_norm : float, default 0.0
            Norm of the initial model; 0: it says nothing about updates.
        """
        self.expect(layout, arrayrecord_key, weighted_by_key, compression)
        self.compares, self.initial_norm = compares, initial_norm
        for counter in (self.rejections, self.accepted, self.offences):
            counter.clear()
        self.usual = UsualNorm()

    def expect(
        self,
        layout: Layout,
        arrayrecord_key: str,
        weighted_by_key: str | None,
        compression: Compression | None = None,
    ) -> None:
        """Freeze the schema, as :meth:`begin`, in a training that goes on."""
        self.layout, self.compression = layout, compression
        self.schema = layout.schema if compression is None else compression.schema(layout)
        self.arrayrecord_key, self.weighted_by_key = arrayrecord_key, weighted_by_key

    def check(self, reply: Message, flight: Flight, base: np.ndarray, now: float) -> Update:
        """Return the update that a reply carries.

        Parameters
        ----------
        reply : Message
            A reply without an error.
        flight : Flight
            The message that it answers.
        base : array, shape (P,)
            The version that was sent.
        now : float
            Time of arrival.

        Raises
        ------
        RejectedError
            If the reply fails a check.
        """
        update = self.read(reply, flight, base, now)
        if self.compares:
            self.check_norm(update)
        return update

    def restore(self, reply: Message, flight: Flight, base: np.ndarray, now: float) -> Update:
        """Return the update of a reply that was accepted before a checkpoint.

        As :meth:`check`, without what depends on the messages before and after it.
        """
        return self.read(reply, flight, base, now)

    def read(self, reply: Message, flight: Flight, base: np.ndarray, now: float) -> Update:
        """Return the update of a reply that is valid by itself; else raise as :meth:`check`."""
        self.check_size(reply)
        weight, metrics = self.check_metrics(reply)
        record = reply.content.array_records.get(self.record_name(reply))
        if record is None:
            raise RejectedError("record", f"no ArrayRecord {self.arrayrecord_key!r}")
        difference, norm = self.check_arrays(self.decode(record), base)
        return Update(reply, flight, weight, difference, metrics, now, norm)

    def check_norm(self, update: Update) -> None:
        """Compare the norm of an update with the usual one, and learn from it.

        Also from one that is rejected: if all norms grow at once, the usual one must follow.
        """
        self.usual.observe(update.member, update.base_version, update.norm)
        if update.norm <= FAR * self.norm_factor * self.usual.highest:
            return
        usual = self.usual.at(update.base_version)
        most = FAR * self.norm_factor * max(usual, self.usual.highest)
        if len(self.usual) >= FEW and update.norm > most:
            raise RejectedError(
                "norm",
                f"norm is {update.norm:.4g}: must be at most {most:.4g}, "
                f"{FAR * self.norm_factor:g} times the usual norm",
            )

    def record_name(self, reply: Message) -> str:
        """Return the name of the record with the arrays: the one that is expected, or the only one.

        Flower's own strategies take whatever is the only one, so there are apps that send others.
        """
        names = list(reply.content.array_records)
        return names[0] if len(names) == 1 else self.arrayrecord_key

    def check_size(self, reply: Message) -> None:
        """Bound what a reply holds beside its arrays: it is kept until it is merged, and saved."""
        content, arrays = reply.content, self.record_name(reply)
        held = sum(
            len(name) + record.count_bytes() for name, record in content.items() if name != arrays
        )
        limit = OTHER_BYTES + 4 * self.layout.dtype.itemsize * self.layout.size
        if held > limit:
            raise RejectedError("size", f"{held} bytes beside the arrays: must be at most {limit}")

    def check_metrics(self, reply: Message) -> tuple[float, Metrics]:
        """Return weight and metrics of a reply, without the metrics that cannot be averaged."""
        metrics: dict[str, Any] = {}
        for record in reply.content.metric_records.values():
            metrics.update(record)
        weight = 1.0 if self.weighted_by_key is None else metrics.get(self.weighted_by_key)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise RejectedError(
                "weight", f"metric {self.weighted_by_key!r} is {shown(weight)}: must be a number"
            )
        if not 0 <= weight <= self.max_weight:
            raise RejectedError(
                "weight",
                f"metric {self.weighted_by_key!r} is {shown(weight)}: must be from 0 to "
                f"{self.max_weight:g}",
            )
        return float(weight), self.usable(metrics)

    def usable(self, metrics: Metrics) -> Metrics:
        """Return the metrics that can be averaged and written, within the bounds on their size."""
        kept: Metrics = {}
        room = self.most_metric_bytes
        first = [self.weighted_by_key] if self.weighted_by_key in metrics else []
        for name in dict.fromkeys([*first, *metrics]):
            if len(kept) == self.most_metrics:
                break
            value = metrics[name]
            size = len(name) + 8 * (len(value) if isinstance(value, list) else 1)
            if size <= room and self.is_name(name) and self.is_usable(value):
                kept[name] = value
                room -= size
        return kept

    def is_name(self, name: str) -> bool:
        """Return whether a metric may have this name."""
        return 0 < len(name) <= self.longest_name and name.isprintable()

    def is_usable(self, value: float | list[float]) -> bool:
        """Return whether a metric can be averaged: a finite number, or a short list of them."""
        if isinstance(value, list):
            return len(value) <= self.longest_metric and all(map(is_number, value))
        return is_number(value)

    def decode(self, record: ArrayRecord) -> Arrays:
        """Return the arrays of a record; names, shapes, types and sizes are validated first."""
        schema = self.schema
        if set(record) != set(schema):
            odd = ", ".join(map(shown, sorted(set(record) ^ set(schema))[:8]))
            raise RejectedError("schema", f"arrays {odd} are missing or unknown")
        types = {name: self.check_header(name, record[name]) for name in schema}
        arrays = {}
        for name, (shape, dtype) in schema.items():
            try:
                array = read_payload(record[name].data, shape, types[name])
            except Exception as error:  # whatever a damaged header makes numpy raise
                raise RejectedError(
                    "payload", f"array {name!r} cannot be read: {printable(str(error), 200)}"
                ) from error
            with np.errstate(over="ignore"):  # what is too large is not finite, and found to be
                arrays[name] = array.astype(dtype, copy=False)
        return arrays

    def check_header(self, name: str, sent: Array) -> np.dtype:
        """Return the type of an array that was sent; its shape and size are validated first.

        Another type than that of the initial arrays is taken if it holds no other values: floating
        point for floating point, and what numpy calls a safe cast.
        """
        shape, dtype = self.schema[name]
        held = TYPES.get(sent.dtype) if len(sent.stype) <= LONGEST_TYPE else None
        if held is None or tuple(sent.shape) != shape or not fits(held, dtype):
            raise RejectedError(
                "schema",
                f"array {name!r} is {shown(sent.stype)} of {shown(sent.dtype)}, "
                f"{shown(tuple(sent.shape))}: must be {dtype}{shape}, as in initial_arrays",
            )
        limit = held.itemsize * int(np.prod(shape)) + NPY_HEADER
        if len(sent.data) > limit:
            raise RejectedError(
                "size", f"array {name!r} has {len(sent.data)} bytes: must be at most {limit}"
            )
        return held

    def check_arrays(self, arrays: Arrays, base: np.ndarray) -> tuple[Difference, float]:
        """Return the difference of decoded arrays to their base, and its norm, both bounded."""
        difference = self.difference(arrays, base)
        norm = norm_of(difference, self.layout)
        if norm <= self.max_norm:
            return difference, norm
        for name, array in arrays.items():
            if not np.all(np.isfinite(array)):
                raise RejectedError("finite", f"array {name!r} is not finite")
        raise RejectedError("norm", f"norm is {norm:.4g}: must be at most {self.max_norm:g}")

    def difference(self, arrays: Arrays, base: np.ndarray) -> Difference:
        """Return the difference to their base that arrays encode, without validation."""
        if self.compression is None:
            return ArraysDifference(self.layout, arrays, base)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                return VectorDifference(self.compression.decode(arrays, self.layout))
        except ValueError as error:
            raise RejectedError("payload", str(error)) from error

    def reject(self, check: str, node_id: int) -> None:
        """Count a rejection."""
        self.rejections[check, node_id] += 1
        if check != STALE:
            self.offences[node_id] += 1

    def is_banned(self, node_id: int) -> bool:
        """Return whether a node has offended too often to be sent another message."""
        if node_id not in self.offences:
            return False
        excess = self.offences[node_id] - self.accepted[node_id] / ACCEPTED_PER_OFFENCE
        return excess > self.max_offences

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "rejections": [[*key, count] for key, count in self.rejections.items()],
            "accepted": list(self.accepted.items()),
            "usual": self.usual.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint."""
        self.rejections.update({(check, node): n for check, node, n in state["rejections"]})
        for (check, node), count in self.rejections.items():
            self.offences[node] += count if check != STALE else 0
        self.accepted.update(dict(state["accepted"]))
        self.usual = UsualNorm()
        self.usual.load(state["usual"])


def fits(held: np.dtype, wanted: np.dtype) -> bool:
    """Return whether values of one type may be taken for another."""
    return (held.kind == wanted.kind == "f") or np.can_cast(held, wanted, "safe")


def is_number(value: Any) -> bool:
    """Return whether a value is a number that can be averaged."""
    # Bounded, so that the sum over a buffer is finite too.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -LARGEST_METRIC < value < LARGEST_METRIC
