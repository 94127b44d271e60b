"""A buffered, semi-asynchronous strategy: no node waits for a straggler."""

import math
from collections.abc import Callable, Iterable
from logging import INFO

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from strategies.buffer import Update, require_buffer_size, updates_needed
from strategies.checkpoint import Checkpoints
from strategies.checks import require_choice, require_number
from strategies.clock import Clock
from strategies.compression import Compression
from strategies.evaluation import mean_metrics
from strategies.guard import STALE, Guard, RejectedError
from strategies.hooks import EvaluateFn, Event
from strategies.merge import BY_COUNT, BY_WEIGHT, Mean, MergeRule, merge_weights
from strategies.optimizers import SGD, ServerOptimizer
from strategies.session import Session
from strategies.staleness import Constant, StalenessRule

__all__ = ["ON_REPLY", "ON_VERSION", "BufferedAsync", "Event", "require_buffer_size"]

ON_REPLY, ON_VERSION = "reply", "version"
ROUND, BASE_VERSION = "server-round", "base-version"


class BufferedAsync(Strategy):
    """Make a version as soon as K distinct nodes have reported; send each node on from the newest.

    A version is made from the buffered updates m, each trained from version ``b_m`` in ``n_m``
    steps::

        tau_m   = v - b_m
        w_m     = n_m s(tau_m) / sum_j n_j s(tau_j)
        delta   = sum_m w_m (theta_m - theta_base(b_m))
        theta   = server_optimizer(theta, delta)

    With ``s = 1`` and the default optimiser, ``theta + delta``, this is the rule of FAuNO (arXiv
    2506.02668); with K = all nodes and equal times it is FedAvg. Base versions are the server's own
    record; what a reply claims about them is ignored. A newer update of a node replaces its older
    one in the buffer and inherits its steps, at most as many as it has itself. Replies are received
    one at a time, so K is exact. A node has at most one message in flight; after a failed or
    rejected reply it pauses, and the training continues; one that offends more often than the guard
    allows, or fails fifty messages in a row, is sent no more.

    Parameters
    ----------
    buffer_size : int or float, default 0.5
        K: an ``int`` is a number of nodes, a ``float`` up to 1.0 a fraction of those that take part
        (1.0: all); see :func:`strategies.buffer.updates_needed`. While fewer than K nodes take
        part, versions are made only by `flush_after`; a warning is logged.
    weighted_by_key : str or None, default "num-examples"
        Metric of a reply that counts its training steps; ``None``: ``n_m = 1``.
    arrayrecord_key, configrecord_key : str, default "arrays", "config"
        Names of the records in the messages.
    staleness : callable, default Constant()
        The function s; see :mod:`strategies.staleness`.
    max_staleness : int, optional
        Updates with a larger staleness are rejected, without a pause for the node.
    normalize : {"weight", "count"}, default "weight"
        Divisor of the weights; see :func:`strategies.merge.merge_weights`.
    relative_to_newest : bool, default False
        Take differences to the newest version instead of the update's base, as FedAsync does.
    weight_factor : float, default 10.0
        Largest weight of an update, in multiples of the median of those that make a version with
        it: of K updates, one counts at most ``weight_factor / (weight_factor + K - 1)`` if the
        others are equal. A node reports its weight itself. Data sets of honest nodes may well
        differ by a factor of ten; where all are asked for the same, set less.
    merge : callable, default Mean()
        Rule that merges the differences; see :mod:`strategies.merge`.
    server_optimizer : ServerOptimizer, default SGD()
        Step from the merged difference to the next version; see :mod:`strategies.optimizers`.
    guard : Guard, default Guard()
        Validation of replies.
    compression : Compression, optional
        Encoding of updates; the nodes must use the same: see :mod:`strategies.compression`.
    ttl : float or callable, default 600.0
        Time-to-live in seconds: an unanswered message fails after it; ``ttl(node_id)`` if nodes
        differ.
    min_available_nodes : int, default 1
        Nodes that must be online before the first message is sent. In a deployment SuperNodes
        connect one by one, and half of the first one would be that one alone.
    concurrency : int, optional
        Most messages in flight at once; the nodes that get one are drawn by `seed`. Default: no
        limit.
    refill : {"reply", "version"}, default "reply"
        When a node that has reported gets its next message: at once, or after the next version.
    flush_after : float, optional
        Seconds in the buffer after which the oldest update makes a version with fewer than K.
    fraction_evaluate : float, default 0.0
        Fraction of the nodes that evaluates a version, each before it trains again. Training
        continues meanwhile; versions made before the evaluation is complete are skipped, except
        the last one.
    poll_interval : float, default 0.02
        Seconds between two polls for replies.
    refresh_interval : float, default 1.0
        Seconds between two queries for the nodes that are online.
    backoff, max_backoff : float, default 2.0, 300.0
        First and longest pause of a node that fails, in seconds.
    max_failures : int, default 3
        Training ends with :class:`strategies.TrainingFailedError` when each node that takes part
        has failed this many messages in a row and `patience` has run out.
    patience : float, default 600.0
        Seconds since the last accepted update for which such failures are tolerated. Before the
        first update they are not.
    nodes : callable, optional
        ``nodes(grid)`` returns the ids of the nodes that take part; default: all that are online.
    member_of : callable, optional
        ``member_of(node_id)`` returns an ``int`` that stays when a SuperNode returns under a new
        id, as it does without a key: a member has one place in the buffer. Default: the id.
    on_event : callable, optional
        Called with a dict for every dispatch, reply, error, rejection and flush.
    on_version : callable, optional
        ``on_version(version, arrays, train_metrics)`` is called for each new version.
    checkpoint : Checkpoints, optional
        Where to save, and whether to resume from it.
    clock : Clock, optional
        Default: that of the grid, see :func:`strategies.grid_protocols.clock_of`.
    seed : int, default 0
        Seed of the draws of nodes.
    """

    def __init__(
        self,
        buffer_size: float = 0.5,
        *,
        weighted_by_key: str | None = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        staleness: StalenessRule | None = None,
        max_staleness: int | None = None,
        normalize: str = BY_WEIGHT,
        relative_to_newest: bool = False,
        weight_factor: float = 10.0,
        merge: MergeRule | None = None,
        server_optimizer: ServerOptimizer | None = None,
        guard: Guard | None = None,
        compression: Compression | None = None,
        ttl: float | Callable[[int], float] = 600.0,
        min_available_nodes: int = 1,
        concurrency: int | None = None,
        refill: str = ON_REPLY,
        flush_after: float | None = None,
        fraction_evaluate: float = 0.0,
        poll_interval: float = 0.02,
        refresh_interval: float = 1.0,
        backoff: float = 2.0,
        max_backoff: float = 300.0,
        max_failures: int = 3,
        patience: float = 600.0,
        nodes: Callable[[Grid], Iterable[int]] | None = None,
        member_of: Callable[[int], int] | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_version: Callable[[int, ArrayRecord, MetricRecord | None], None] | None = None,
        checkpoint: Checkpoints | None = None,
        clock: Clock | None = None,
        seed: int = 0,
    ) -> None:
        require_buffer_size(buffer_size)
        require_choice("normalize", normalize, (BY_WEIGHT, BY_COUNT))
        require_choice("refill", refill, (ON_REPLY, ON_VERSION))
        if not callable(ttl):
            require_number("ttl", ttl, above=0)
        require_number("weight_factor", weight_factor, at_least=1)
        require_number("poll_interval", poll_interval, above=0)
        require_number("refresh_interval", refresh_interval, at_least=0)
        require_number("backoff", backoff, at_least=0)
        require_number("max_backoff", max_backoff, at_least=backoff)
        require_number("max_failures", max_failures, at_least=1)
        require_number("patience", patience, at_least=0)
        require_number("fraction_evaluate", fraction_evaluate, at_least=0, at_most=1)
        require_number("min_available_nodes", min_available_nodes, at_least=1)
        for name, least, value in (
            ("max_staleness", 0, max_staleness),
            ("concurrency", 1, concurrency),
            ("flush_after", 0, flush_after),
        ):
            if value is not None:
                require_number(name, value, at_least=least)
        self.buffer_size = buffer_size
        self.weighted_by_key = weighted_by_key
        self.arrayrecord_key, self.configrecord_key = arrayrecord_key, configrecord_key
        self.staleness, self.max_staleness = staleness or Constant(), max_staleness
        self.normalize, self.relative_to_newest = normalize, relative_to_newest
        self.weight_factor, self.merge = weight_factor, merge or Mean()
        self.server_optimizer = server_optimizer or SGD()
        self.guard, self.compression = guard or Guard(), compression
        self.ttl, self.concurrency, self.refill = ttl, concurrency, refill
        self.min_available_nodes = min_available_nodes
        self.flush_after, self.fraction_evaluate = flush_after, fraction_evaluate
        self.poll_interval, self.refresh_interval = poll_interval, refresh_interval
        self.backoff, self.max_backoff = backoff, max_backoff
        self.max_failures, self.patience = max_failures, patience
        self.nodes = nodes or (lambda grid: grid.get_node_ids())
        self.member_of = member_of or (lambda node_id: node_id)
        self.on_event = on_event or (lambda event: None)
        self.on_version = on_version or (lambda version, arrays, metrics: None)
        self.checkpoint, self.clock, self.seed = checkpoint, clock, seed
        self.session: Session | None = None

    # ---- rules -------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The newest version of the last training."""
        return self.session.version if self.session else 0

    def time_to_live(self, node_id: int) -> float:
        """Return the time-to-live of messages to a node, in seconds."""
        return self.ttl(node_id) if callable(self.ttl) else self.ttl

    def updates_needed(self, nodes: int) -> int:
        """Return K, when `nodes` nodes take part."""
        return updates_needed(self.buffer_size, nodes)

    def check_staleness(self, staleness: int) -> None:
        """Raise :class:`RejectedError` for an update that is too stale."""
        if self.max_staleness is not None and staleness > self.max_staleness:
            raise RejectedError(
                STALE, f"staleness is {staleness}: must be at most {self.max_staleness}"
            )
        if not self.staleness(staleness) > 0:
            raise RejectedError(STALE, f"{self.staleness} gives staleness {staleness} no weight")

    def weights(self, updates: list[Update], version: int) -> np.ndarray:
        """Compute the weights of updates that are merged into the version after `version`."""
        staleness = [self.staleness(version - update.base_version) for update in updates]
        # Unweighted, a node that reported twice still counts once.
        steps = [1.0 if self.weighted_by_key is None else update.steps for update in updates]
        return merge_weights(steps, staleness, self.normalize)

    def summary(self) -> None:
        """Log the settings."""
        log(INFO, "\t├──> Asynchronous settings:")
        log(INFO, "\t│\t├── Buffer size K: %s, refill on each %s", self.buffer_size, self.refill)
        log(INFO, "\t│\t├── Weighted by: %s, by %s", self.weighted_by_key, self.normalize)
        log(INFO, "\t│\t├── Largest weight: %g times the median", self.weight_factor)
        log(INFO, "\t│\t├── Staleness: %s, at most %s", self.staleness, self.max_staleness)
        log(INFO, "\t│\t├── Merge: %s, then %s", self.merge, self.server_optimizer)
        log(INFO, "\t│\t├── Guard: %s, compression: %s", self.guard, self.compression)
        ttl = "one per node" if callable(self.ttl) else f"{self.ttl:g} s"
        log(INFO, "\t│\t└── Time-to-live of a message: %s", ttl)

    # ---- Flower's hooks ----------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a train message for every idle node that is to start now.

        Parameters
        ----------
        server_round : int
            The version to make, one more than that of `arrays`. It becomes ``server-round`` in the
            config of the message, that of `arrays` becomes ``base-version``.
        arrays : ArrayRecord
        config : ConfigRecord
        grid : Grid
        """
        session = self._running()
        idle = session.exchange.idle(session.present)
        idle.sort(key=lambda node_id: session.flights.place(self.member_of(node_id)))
        if self.refill == ON_VERSION:
            idle = [i for i in idle if self.member_of(i) not in session.buffer]
        if self.concurrency is not None:
            free = max(0, self.concurrency - len(session.flights))
            if len(idle) > free:
                drawn = session.rng.permutation(len(idle))[:free]
                idle = sorted(idle[i] for i in drawn)
        return [
            self._message(
                MessageType.TRAIN, node_id, server_round, server_round - 1, arrays, config
            )
            for node_id in idle
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
            The newest reply of each member, all of them validated and in the buffer.

        Returns
        -------
        ArrayRecord or None, MetricRecord or None
            The new arrays, None if they would not be finite; and the mean of each metric, weighted
            like the arrays, over the nodes that sent it.
        """
        session = self._running()
        updates = session.buffer.find(replies)
        weights = self.weights(updates, server_round - 1)
        arrays = session.versions.merge(
            updates, weights, self.merge, self.server_optimizer, self.relative_to_newest
        )
        if arrays is None:
            return None, None
        return arrays, mean_metrics([update.metrics for update in updates], weights)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return an evaluate message for every idle node that was drawn for this version."""
        session = self._running()
        waiting = session.evaluation.waiting if session.evaluation else set()
        return [
            self._message(MessageType.EVALUATE, node_id, server_round, server_round, arrays, config)
            for node_id in session.exchange.idle(sorted(waiting))
        ]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return the mean of each metric, weighted by ``weighted_by_key``; None without replies."""
        ordered = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        checked = [self.guard.check_metrics(reply) for reply in ordered]
        if not checked:
            return None
        weights = np.array([weight for weight, _ in checked])
        return mean_metrics([metrics for _, metrics in checked], weights / weights.sum())

    def _message(
        self,
        message_type: str,
        node_id: int,
        server_round: int,
        base_version: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
    ) -> Message:
        sent_config = ConfigRecord({**config, ROUND: server_round, BASE_VERSION: base_version})
        return Message(
            RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: sent_config}),
            dst_node_id=node_id,
            message_type=message_type,
            ttl=self.time_to_live(node_id),
            group_id=str(server_round),
        )

    # ---- training ----------------------------------------------------------------------------

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float | None = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Train until `num_rounds` versions have been made or `timeout` seconds have passed.

        Messages may be in flight when it returns: see :meth:`drain`.

        Parameters
        ----------
        grid : Grid
        initial_arrays : ArrayRecord
            Version 0; every reply must have the same names, shapes and types.
        num_rounds : int, default 3
            Versions to make.
        timeout : float or None, default 3600
            Seconds for all versions together (not for each round, as in Flower); ``None``: no
            limit.
        train_config : ConfigRecord, optional
            Sent with every message to train.
        evaluate_config : ConfigRecord, optional
            Sent with every message to evaluate.
        evaluate_fn : callable, optional
            ``evaluate_fn(version, arrays)`` is called for version 0 and each new one.

        Returns
        -------
        Result
            Rounds are versions.

        Raises
        ------
        ValueError
            If the initial arrays are empty, not finite, or not of real numbers; if the folder holds
            checkpoints of another run.
        CheckpointError
            If training is to resume, but no checkpoint can be used.
        TrainingFailedError
            If every node keeps failing; see `max_failures`.
        """
        self.summary()
        self.session = Session(
            self, grid, initial_arrays, train_config, evaluate_config, evaluate_fn
        )
        self.session.resume()
        return self.session.run(num_rounds, math.inf if timeout is None else timeout)

    def drain(self, grid: Grid, timeout: float) -> int:
        """Wait for the messages in flight and discard their replies, after :meth:`start`.

        Parameters
        ----------
        grid : Grid
            The grid that was given to :meth:`start`.
        timeout : float
            Longest wait in seconds.

        Returns
        -------
        int
            Messages that are still unanswered.
        """
        session = self._running()
        session.exchange.grid = grid
        return session.drain(timeout)

    def _running(self) -> Session:
        if self.session is None:
            raise RuntimeError("training has not begun: call start() first")
        return self.session
