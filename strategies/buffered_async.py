"""A buffered, semi-asynchronous strategy: no node waits for a straggler."""

import math
from collections.abc import Callable, Iterable
from logging import INFO

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.arguments import read_length, require_shared
from strategies.buffer import Update, require_buffer_size, updates_needed
from strategies.checkpoint import Checkpoints
from strategies.checks import require_choice, require_number, require_whole
from strategies.clock import Clock
from strategies.compression import Compression
from strategies.deadlines import time_to_live
from strategies.flower_hooks import FlowerHooks
from strategies.guard import STALE, Guard, RejectedError
from strategies.hooks import (
    ON_REPLY,
    ON_VERSION,
    EvaluateFn,
    Event,
    MetricsAggregation,
    ShouldStop,
)
from strategies.merge import BY_COUNT, BY_WEIGHT, Mean, MergeRule, merge_weights
from strategies.optimizers import SGD, ServerOptimizer
from strategies.privacy import CentralPrivacy, Privacy
from strategies.reports import log_start
from strategies.result import TrainingResult
from strategies.rounds import Rounds
from strategies.sampling import sample_size
from strategies.session import Session
from strategies.staleness import Constant, StalenessRule

__all__ = ["ON_REPLY", "ON_VERSION", "BufferedAsync", "Event", "require_buffer_size"]


class BufferedAsync(FlowerHooks):
    """Make a version as soon as K distinct nodes have reported; send each node on from the newest.

    The arguments of Flower's ``FedAvg`` have its names, defaults and meanings, with versions for
    rounds; docs/strategies.md has the differences. A version is made from the buffered updates m,
    each trained from version ``b_m`` in ``n_m`` steps::

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
        and may train at once (1.0: all); see :func:`strategies.buffer.updates_needed`. While fewer
        than K nodes take part, versions are made only by `flush_after` or the timeout of
        :meth:`start`; a warning is logged.
    fraction_train : float, default 1.0
        Fraction of the nodes that train at once, rounded down; they are drawn by `seed`.
    fraction_evaluate : float, default 1.0
        Fraction of the nodes that evaluates a version, each before it trains again; 0: none.
        Training continues meanwhile; versions made before the evaluation is complete are skipped,
        except the last one.
    min_train_nodes, min_evaluate_nodes : int, default 2
        Nodes that are drawn whatever the fraction.
    min_available_nodes : int, default 2
        Nodes that must be online before the first message is sent, and at least `min_train_nodes`.
        In a deployment SuperNodes connect one by one.
    weighted_by_key : str or None, default "num-examples"
        Metric of a reply that counts its training steps; ``None``: ``n_m = 1``.
    arrayrecord_key, configrecord_key : str, default "arrays", "config"
        Names of the records in the messages.
    train_metrics_aggr_fn, evaluate_metrics_aggr_fn : callable, optional
        ``f(contents, weighted_by_key)`` aggregates the metrics of the replies, a list of
        ``RecordDict``. Default: the mean of each, by weight.
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
    privacy : CentralPrivacy or LocalPrivacy, optional
        Differential privacy of the versions, or of the updates that leave the nodes, and its
        accounting: see :mod:`strategies.privacy`. Needs ``pip install 'flwr[dp]'``.
    ttl : float or callable, optional
        Time-to-live in seconds: an unanswered message fails after it; ``ttl(node_id)`` if nodes
        differ. Default: learned, from an hour to 12; see :class:`strategies.deadlines.Deadlines`.
    time_limit : float, default inf
        Seconds after which training ends with the versions made so far.
    concurrency : int, optional
        Most messages in flight at once; the nodes that get one are drawn by `seed`. Default: no
        limit.
    refill : {"reply", "version"}, default "reply"
        When a node that has reported gets its next message: at once, or after the next version.
    flush_after : float, optional
        Seconds in the buffer after which the oldest update makes a version with fewer than K.
    flush_at_end : bool, default True
        Whether what is in the buffer when `time_limit` is over makes a last version, in which each
        update moves the model as much as in a full buffer.
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
        ``on_version(version, arrays, train_metrics)`` is called for each new version. If it returns
        True, training ends with this one.
    on_evaluation : callable, optional
        ``on_evaluation(version, metrics)`` is called with the aggregated metrics of each version
        that the nodes have evaluated.
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
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_train_nodes: int = 2,
        min_evaluate_nodes: int = 2,
        min_available_nodes: int = 2,
        weighted_by_key: str | None = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        train_metrics_aggr_fn: MetricsAggregation | None = None,
        evaluate_metrics_aggr_fn: MetricsAggregation | None = None,
        staleness: StalenessRule | None = None,
        max_staleness: int | None = None,
        normalize: str = BY_WEIGHT,
        relative_to_newest: bool = False,
        weight_factor: float = 10.0,
        merge: MergeRule | None = None,
        server_optimizer: ServerOptimizer | None = None,
        guard: Guard | None = None,
        compression: Compression | None = None,
        privacy: Privacy | None = None,
        ttl: float | Callable[[int], float] | None = None,
        time_limit: float = math.inf,
        concurrency: int | None = None,
        refill: str = ON_REPLY,
        flush_after: float | None = None,
        flush_at_end: bool = True,
        poll_interval: float = 0.02,
        refresh_interval: float = 1.0,
        backoff: float = 2.0,
        max_backoff: float = 300.0,
        max_failures: int = 3,
        patience: float = 600.0,
        nodes: Callable[[Grid], Iterable[int]] | None = None,
        member_of: Callable[[int], int] | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_version: Callable[[int, ArrayRecord, MetricRecord | None], bool | None] | None = None,
        on_evaluation: Callable[[int, MetricRecord], None] | None = None,
        checkpoint: Checkpoints | None = None,
        clock: Clock | None = None,
        seed: int = 0,
    ) -> None:
        require_shared(
            buffer_size=buffer_size,
            fraction_evaluate=fraction_evaluate,
            min_available_nodes=min_available_nodes,
            ttl=ttl,
            poll_interval=poll_interval,
            refresh_interval=refresh_interval,
            backoff=backoff,
            max_backoff=max_backoff,
            max_failures=max_failures,
            patience=patience,
        )
        require_choice("normalize", normalize, (BY_WEIGHT, BY_COUNT))
        require_choice("refill", refill, (ON_REPLY, ON_VERSION))
        require_number("fraction_train", fraction_train, above=0, at_most=1)
        require_number("weight_factor", weight_factor, at_least=1)
        for name, least, count in (
            ("min_train_nodes", 1, min_train_nodes),
            ("min_evaluate_nodes", 0, min_evaluate_nodes),
            ("max_staleness", 0, max_staleness),
            ("concurrency", 1, concurrency),
        ):
            if count is not None:
                require_whole(name, count, at_least=least)
        if flush_after is not None:
            require_number("flush_after", flush_after, at_least=0)
        if time_limit != math.inf:
            require_number("time_limit", time_limit, above=0)
        self.buffer_size = buffer_size
        self.fraction_train, self.fraction_evaluate = fraction_train, fraction_evaluate
        self.min_train_nodes, self.min_evaluate_nodes = min_train_nodes, min_evaluate_nodes
        self.min_available_nodes = min_available_nodes
        self.weighted_by_key = weighted_by_key
        self.arrayrecord_key, self.configrecord_key = arrayrecord_key, configrecord_key
        self.train_metrics_aggr_fn = train_metrics_aggr_fn
        self.evaluate_metrics_aggr_fn = evaluate_metrics_aggr_fn
        self.staleness, self.max_staleness = staleness or Constant(), max_staleness
        self.normalize, self.relative_to_newest = normalize, relative_to_newest
        self.weight_factor, self.merge = weight_factor, merge or Mean()
        self.server_optimizer = server_optimizer or SGD()
        self.guard, self.compression = guard or Guard(), compression
        self.privacy = privacy
        if isinstance(privacy, CentralPrivacy):
            privacy.check_rules(weighted_by_key, self.merge)
        self.ttl, self.time_limit = ttl, time_limit
        self.concurrency, self.refill = concurrency, refill
        self.flush_after, self.flush_at_end = flush_after, flush_at_end
        self.poll_interval, self.refresh_interval = poll_interval, refresh_interval
        self.backoff, self.max_backoff = backoff, max_backoff
        self.max_failures, self.patience = max_failures, patience
        self.nodes = nodes or (lambda grid: grid.get_node_ids())
        self.member_of = member_of or (lambda node_id: node_id)
        self.on_event = on_event or (lambda event: None)
        self.on_version = on_version or (lambda version, arrays, metrics: None)
        self.on_evaluation = on_evaluation or (lambda version, metrics: None)
        self.checkpoint, self.clock, self.seed = checkpoint, clock, seed
        self.session: Session | None = None
        self.rounds = Rounds(self)

    # ---- rules -------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The newest version of the last training."""
        return self.session.version if self.session else 0

    def time_to_live(self, node_id: int) -> float:
        """Return the time-to-live of messages to a node, in seconds."""
        learned = self.running.exchange.deadlines if self.running else None
        return time_to_live(self.ttl, node_id, learned)

    @property
    def nodes_to_begin(self) -> int:
        """Nodes that must be online before the first message is sent."""
        return max(self.min_available_nodes, self.min_train_nodes)

    def nodes_at_once(self, nodes: int) -> int:
        """Return how many may train at once, when `nodes` nodes take part."""
        return sample_size(self.fraction_train, self.min_train_nodes, nodes)

    def updates_needed(self, nodes: int) -> int:
        """Return K, when `nodes` nodes take part."""
        return updates_needed(self.buffer_size, self.nodes_at_once(nodes))

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
        log(INFO, "\t│\t├── Privacy: %s", self.privacy)
        ttl = "learned" if self.ttl is None else "one per node" if callable(self.ttl) else self.ttl
        log(INFO, "\t│\t└── Time-to-live of a message: %s", ttl)
        log(INFO, "\t├──> Sampling:")
        fractions = self.fraction_train, self.fraction_evaluate
        log(INFO, "\t│\t├──Fraction: train (%.2f) | evaluate (%.2f)", *fractions)
        least = self.min_train_nodes, self.min_evaluate_nodes
        log(INFO, "\t│\t├──Minimum nodes: train (%d) | evaluate (%d)", *least)
        log(INFO, "\t│\t└──Minimum available nodes: %d", self.min_available_nodes)
        log(INFO, "\t└──> Keys in records:")
        log(INFO, "\t\t├── Weighted by: '%s'", self.weighted_by_key)
        log(INFO, "\t\t├── ArrayRecord key: '%s'", self.arrayrecord_key)
        log(INFO, "\t\t└── ConfigRecord key: '%s'", self.configrecord_key)

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
        should_stop: ShouldStop | None = None,
    ) -> TrainingResult:
        """Train until `num_rounds` versions have been made, or a limit or a callback ends it.

        Messages may be in flight when it returns: see :meth:`drain`.

        Parameters
        ----------
        grid : Grid
        initial_arrays : ArrayRecord
            Version 0; every reply must have the same names, shapes and types.
        num_rounds : int, default 3
            Versions to make.
        timeout : float or None, default 3600
            Seconds to wait for a version, as Flower waits for the replies of a round. Then one is
            made from the updates that have arrived, with a warning, and training goes on; if there
            are none although nodes are online, it fails. ``None``: no limit.
        train_config : ConfigRecord, optional
            Sent with every message to train.
        evaluate_config : ConfigRecord, optional
            Sent with every message to evaluate.
        evaluate_fn : callable, optional
            ``evaluate_fn(version, arrays)`` is called for version 0 and each new one.
        should_stop : callable, optional
            ``should_stop(version, result)`` is called for each version that is complete; training
            ends if it returns True. With `fraction_evaluate` these are the versions that the nodes
            have evaluated. An argument of Flower's own strategies from 1.43 on.

        Returns
        -------
        TrainingResult
            Flower's result, whose rounds are versions, and what ended the training.

        Raises
        ------
        ValueError
            If `num_rounds` or `timeout` is impossible; if the initial arrays are empty, not finite,
            or not of real numbers; if the folder holds checkpoints of another run.
        CheckpointError
            If training is to resume, but no checkpoint can be used; if the privacy that is spent
            cannot be written.
        TrainingFailedError
            If every node keeps failing, see `max_failures`; or no update has been accepted in
            `timeout`.
        """
        limit = read_length(num_rounds, timeout)
        train_config = train_config or ConfigRecord()
        evaluate_config = evaluate_config or ConfigRecord()
        name = type(self).__name__
        log_start(name, num_rounds, initial_arrays, train_config, evaluate_config)
        self.summary()
        log(INFO, "")
        self.session = Session(
            self, grid, initial_arrays, train_config, evaluate_config, evaluate_fn
        )
        self.session.resume()
        return self.session.run(num_rounds, limit, should_stop)

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
        if self.session is None:
            return 0
        self.session.exchange.grid = grid
        return self.session.drain(timeout)
