"""A buffered, semi-asynchronous strategy: nobody waits for a straggler."""

import math
import time
from collections.abc import Callable, Iterable
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from strategies.arrays import to_arrays, to_record
from strategies.buffer import Buffer, Update
from strategies.clock import Clock
from strategies.flights import Flight, Flights
from strategies.guard import Guard, RejectedError
from strategies.merge import merge_updates, merge_weights
from strategies.staleness import StalenessWeight, constant

Event = dict[str, Any]


def require_buffer_size(value: float, name: str = "buffer_size") -> None:
    """Raise ``ValueError`` unless `value` is a number of nodes or a fraction of them."""
    if not (math.isfinite(value) and value > 0) or (value >= 1 and value != int(value)):
        raise ValueError(
            f"{name} is {value!r}: must be a whole number of nodes, or a fraction of them above 0 "
            f"and below 1"
        )


class BufferedAsync(Strategy):
    """Merge as soon as K distinct nodes have reported, and send every node on from the newest.

    A version is made from the buffered updates m, each trained from version ``b_m`` in ``n_m``
    steps::

        tau_m   = v - b_m
        w_m     = n_m s(tau_m) / sum_j n_j s(tau_j)
        delta   = sum_m w_m (theta_m - theta_base(b_m))
        theta   = theta + server_rate * delta

    With ``s = 1`` and ``server_rate = 1`` this is the rule of FAuNO (arXiv 2506.02668); with K =
    all nodes and equal times it is FedAvg. Versions are the server's own record: nothing that a
    reply says about them is read. A newer update of a node replaces its older one in the buffer
    and takes over its steps. Replies are taken one at a time, so K is exact. A node has at most
    one message in flight; a reply that fails or does not pass the guard costs the node a pause,
    never the run its end.

    Parameters
    ----------
    buffer_size : float, default 0.5
        K: a whole number of nodes, or, below 1, a fraction of those that take part now (rounded
        up). While fewer than K take part no version is made; the log says so.
    weighted_by_key : str, default "num-examples"
        Metric of a reply that counts its training steps.
    arrayrecord_key, configrecord_key : str, default "arrays", "config"
        Names of the records in the messages.
    staleness : callable, default constant
        The function s.
    server_rate : float, default 1.0
        Server learning rate.
    ttl : float, default 600.0
        Seconds after which an unanswered message counts as failed.
    poll_interval : float, default 0.02
        Seconds between two looks for replies.
    refresh_interval : float, default 1.0
        Seconds between two looks for nodes.
    backoff, max_backoff : float, default 2.0, 300.0
        First and longest pause of a node that fails, in seconds.
    nodes : callable, optional
        ``nodes(grid)`` gives the ids of the nodes that take part; default: all that are online.
    on_event : callable, optional
        Gets a dict for every dispatch, reply, error, rejection and flush.
    clock : Clock, optional
        Default: the grid's own (``grid.clock``) if it has one, else :mod:`time`.
    """

    def __init__(
        self,
        buffer_size: float = 0.5,
        *,
        weighted_by_key: str = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        staleness: StalenessWeight = constant,
        server_rate: float = 1.0,
        ttl: float = 600.0,
        poll_interval: float = 0.02,
        refresh_interval: float = 1.0,
        backoff: float = 2.0,
        max_backoff: float = 300.0,
        nodes: Callable[[Grid], Iterable[int]] | None = None,
        on_event: Callable[[Event], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        require_buffer_size(buffer_size)
        for name, value in (
            ("ttl", ttl),
            ("poll_interval", poll_interval),
            ("server_rate", server_rate),
        ):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}: must be finite and above 0")
        self.buffer_size = buffer_size
        self.weighted_by_key = weighted_by_key
        self.arrayrecord_key, self.configrecord_key = arrayrecord_key, configrecord_key
        self.staleness, self.server_rate = staleness, server_rate
        self.ttl, self.poll_interval, self.refresh_interval = ttl, poll_interval, refresh_interval
        self.nodes = nodes or (lambda grid: grid.get_node_ids())
        self.on_event = on_event or (lambda event: None)
        self.clock = clock
        self.backoff, self.max_backoff = backoff, max_backoff
        self._merging: dict[str, Update] = {}

    def summary(self) -> None:
        """Log the settings."""
        log(INFO, "\t├──> Asynchronous settings:")
        log(INFO, "\t│\t├── Buffer size K: %s", self.buffer_size)
        log(INFO, "\t│\t├── Server rate: %s", self.server_rate)
        log(INFO, "\t│\t├── Time-to-live of a message: %s s", self.ttl)
        log(
            INFO,
            "\t│\t└── Weighted by: %s, staleness: %s",
            self.weighted_by_key,
            self.staleness.__name__,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One train message for every idle node.

        Parameters
        ----------
        server_round : int
            Version of the arrays; goes into the config as ``server-round``.
        arrays : ArrayRecord
        config : ConfigRecord
        grid : Grid
        """
        now = self._now()
        taking_part = sorted(self.nodes(grid))
        self._count(len(taking_part))
        return [
            Message(
                RecordDict(
                    {
                        self.arrayrecord_key: arrays,
                        self.configrecord_key: ConfigRecord(
                            {**config, "server-round": server_round}
                        ),
                    }
                ),
                dst_node_id=node_id,
                message_type=MessageType.TRAIN,
                ttl=self.ttl,
                group_id=str(server_round),
            )
            for node_id in taking_part
            if self.flights.may_start(node_id, now)
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge the buffered updates that came with `replies` into the next version.

        Parameters
        ----------
        server_round : int
            The version to make.
        replies : iterable of Message
            The newest reply of each node, all of them past the guard.

        Returns
        -------
        ArrayRecord, MetricRecord
            The new arrays, and each metric's mean weighted like the arrays, over the nodes that
            sent it.
        """
        updates = [self._merging[reply.metadata.reply_to_message_id] for reply in replies]
        weights = merge_weights(updates, server_round - 1, self.staleness)
        merged = merge_updates(
            self._bases[server_round - 1], updates, self._bases, weights, self.server_rate
        )
        return to_record(merged), mean_metrics([u.metrics for u in updates], weights)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """No evaluation on the nodes."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """No evaluation on the nodes."""
        return None

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Train until `num_rounds` versions have been made or `timeout` seconds have passed.

        Messages may still be in flight when it returns: see :meth:`drain`.

        Parameters
        ----------
        grid : Grid
        initial_arrays : ArrayRecord
            Version 0; every reply must have the same names, shapes and dtypes.
        num_rounds : int, default 3
            Versions to make.
        timeout : float, default 3600
            Seconds of the strategy's clock.
        train_config : ConfigRecord, optional
            Sent with every message.
        evaluate_config : ConfigRecord, optional
            Not used: nodes are not asked to evaluate.
        evaluate_fn : callable, optional
            ``evaluate_fn(version, arrays)`` is called for version 0 and each new one.

        Returns
        -------
        Result
            Rounds are versions.
        """
        self._begin(grid, initial_arrays)
        config = train_config or ConfigRecord()
        self.summary()
        result = Result(arrays=initial_arrays)
        self._evaluate(evaluate_fn, result)
        last_refresh = -math.inf
        while self.version < num_rounds and self._now() < timeout:
            fresh = self._now() - last_refresh >= self.refresh_interval
            if fresh:
                last_refresh = self._now()
                self._dispatch(grid, result.arrays, config)
            replies = self._pull(grid)
            for reply in replies:
                self._receive(reply)
                if len(self._buffer) >= self._needed and self.version < num_rounds:
                    self._flush(result)
                    self._evaluate(evaluate_fn, result)
            if replies and self.version < num_rounds:
                self._dispatch(grid, result.arrays, config)
            elif not replies and self.version < num_rounds:
                self._clock.sleep(self.poll_interval)
        if self.version < num_rounds:
            log(
                WARNING,
                "timeout after %.0f s: %s of %s versions",
                timeout,
                self.version,
                num_rounds,
            )
        return result

    def drain(self, grid: Grid, timeout: float) -> int:
        """Wait for the messages in flight and leave them out; call it after :meth:`start`.

        Parameters
        ----------
        grid : Grid
        timeout : float
            Seconds to wait at most.

        Returns
        -------
        int
            Messages that have not been answered.
        """
        end = self._now() + timeout
        while len(self.flights) and self._now() < end:
            replies = self._pull(grid)
            for reply in replies:
                self._receive(reply)
            if not replies:
                self._clock.sleep(self.poll_interval)
        self._buffer = Buffer()
        return len(self.flights)

    # ---- the parts of the loop ---------------------------------------------------------------

    def _begin(self, grid: Grid, initial_arrays: ArrayRecord) -> None:
        self._clock: Clock = self.clock or getattr(grid, "clock", None) or time
        self._zero = self._clock.monotonic()
        self.version = 0
        self.flights = Flights(self.backoff, self.max_backoff)
        self._buffer = Buffer()
        self._needed, self._short = 0, (0, 0)
        arrays = to_arrays(initial_arrays)
        self._bases = {0: arrays}
        self.guard = Guard(arrays, self.arrayrecord_key, self.weighted_by_key)

    def _now(self) -> float:
        return self._clock.monotonic() - self._zero

    def _emit(self, kind: str, **values: Any) -> None:
        self.on_event({"t": round(self._now(), 4), "event": kind, **values})

    def _count(self, nodes: int) -> None:
        """Work out K for the nodes that take part."""
        whole = self.buffer_size >= 1
        needed = int(self.buffer_size) if whole else max(1, math.ceil(self.buffer_size * nodes))
        if needed > nodes and (needed, nodes) != self._short:
            log(WARNING, "K is %s, but only %s nodes take part: waiting for more", needed, nodes)
        if needed != self._needed:
            log(INFO, "K is %s of the %s nodes that take part", needed, nodes)
        self._short = (needed, nodes)
        self._needed = needed

    def _dispatch(self, grid: Grid, arrays: ArrayRecord, config: ConfigRecord) -> None:
        """Send every idle node on from the newest version."""
        for message in self.configure_train(self.version, arrays, config, grid):
            node_id = message.metadata.dst_node_id
            # One message per call: the grids disagree on what stands for one that was refused.
            pushed = [message_id for message_id in grid.push_messages([message]) if message_id]
            if not pushed:
                self._fail(node_id, "error", reason="the message could not be sent")
                continue
            self.flights.open(Flight(pushed[0], node_id, self.version, self._now()))
            self._emit("dispatch", node=node_id, version=self.version, message=pushed[0])

    def _pull(self, grid: Grid) -> list[Message]:
        return list(grid.pull_messages(self.flights.message_ids)) if len(self.flights) else []

    def _receive(self, reply: Message) -> None:
        """Buffer one reply, or say why not."""
        # By message: the source of an error reply is the SuperLink, not the node.
        flight = self.flights.close(reply.metadata.reply_to_message_id)
        if flight is None:
            return
        about = {
            "message": flight.message_id,
            "version": flight.base_version,
            "staleness": self.version - flight.base_version,
            "latency": round(self._now() - flight.sent_at, 4),
        }
        if reply.has_error():
            reason = str(reply.error.reason)[:300]
            self._fail(flight.node_id, "error", code=reply.error.code, reason=reason, **about)
            return
        try:
            update = self.guard.check(reply, flight)
        except RejectedError as rejection:
            self._fail(flight.node_id, "reject", reason=str(rejection), **about)
            return
        self.flights.succeeded(flight.node_id)
        replaced = self._buffer.put(update)
        numbers = dict(update.metrics)
        self._emit("reply", node=flight.node_id, replaced=replaced, metrics=numbers, **about)

    def _fail(self, node_id: int, kind: str, **values: Any) -> None:
        pause = self.flights.failed(node_id, self._now())
        self._emit(kind, node=node_id, pause=pause, **values)
        log(WARNING, "node %s: %s (%s); pause %.0f s", node_id, kind, values["reason"], pause)

    def _flush(self, result: Result) -> None:
        """Make the next version from the buffer."""
        updates = self._buffer.take_all()
        staleness = [self.version - update.base_version for update in updates]
        self._merging = {update.reply.metadata.reply_to_message_id: update for update in updates}
        arrays, metrics = self.aggregate_train(self.version + 1, [u.reply for u in updates])
        self.version += 1
        if arrays is not None:
            result.arrays = arrays
        if metrics is not None:
            result.train_metrics_clientapp[self.version] = metrics
        self._bases[self.version] = to_arrays(result.arrays)
        in_use = self.flights.base_versions | {self.version}
        self._bases = {v: base for v, base in self._bases.items() if v in in_use}
        nodes = [update.node_id for update in updates]
        steps = [update.steps for update in updates]
        self._emit("flush", version=self.version, nodes=nodes, steps=steps, staleness=staleness)
        log(INFO, "version %s from %s nodes at %.1f s", self.version, len(updates), self._now())

    def _evaluate(
        self, evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None, result: Result
    ) -> None:
        metrics = evaluate_fn(self.version, result.arrays) if evaluate_fn else None
        if metrics is not None:
            result.evaluate_metrics_serverapp[self.version] = metrics


def mean_metrics(metrics: Iterable[MetricRecord], weights: np.ndarray) -> MetricRecord:
    """Weighted mean of each single-number metric, over the records that have it."""
    sums: dict[str, np.ndarray] = {}
    for record, weight in zip(metrics, weights, strict=True):
        for name, value in record.items():
            if isinstance(value, int | float) and math.isfinite(value):
                sums[name] = sums.get(name, np.zeros(2)) + weight * np.array([value, 1.0])
    return MetricRecord({name: float(total / weight) for name, (total, weight) in sums.items()})
