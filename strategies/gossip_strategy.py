"""The strategy without a global model, for any Flower app."""

import math
from collections.abc import Callable, Iterable
from logging import INFO

from flwr.app import ArrayRecord, ConfigRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.arguments import read_length, require_shared
from strategies.clock import Clock
from strategies.deadlines import time_to_live
from strategies.gossip import Neighbours, both_ways, ring
from strategies.guard import Guard
from strategies.hooks import EvaluateFn, Event, ShouldStop
from strategies.post_office import GossipResult, PostOffice
from strategies.reports import log_start


class Gossip:
    """Decentralised training: every node has a model of its own, and merges its neighbours'.

    The server is a post office. It keeps the newest model of each node for the neighbours and
    merges nothing: the nodes do, by :func:`strategies.gossip_mod`. A node trains again as soon as K
    of its neighbours that are online have a newer model than it has merged, so nobody waits for a
    node that is slow or gone, or that keeps failing (`max_failures`). Models are weighted by
    :func:`strategies.gossip.metropolis_weights`.

    A node that joins starts from the mean of its neighbours, one that takes the place of another in
    a given graph from the last model of the place.

    Parameters
    ----------
    buffer_size : int or float, default 0.5
        K: an ``int`` is a number of neighbours, a ``float`` up to 1.0 a fraction of those that are
        online, rounded up.
    graph : mapping or callable, default :func:`strategies.gossip.ring`
        Neighbours of each member: a networkx graph, or another mapping from members, which are
        numbers, to their neighbours; or ``graph(members)``, which returns such a mapping for the
        ids of the nodes that are online. An edge works in both directions.
    member_of : callable, optional
        ``member_of(node_id)`` returns the member of the graph that a node is. Default: its id if
        `graph` is callable; else nodes take the places of the graph in the order of their ids.
    fraction_evaluate : float, default 1.0
        Fraction of the nodes that evaluates a round, rounded down but at least one, each before it
        trains again: its own model merged with the news of its neighbours; 0: none. Training
        continues meanwhile; rounds that end before the evaluation is complete are skipped, except
        the last one.
    min_available_nodes : int, default 2
        Nodes that must be online before the first message is sent.
    weighted_by_key : str or None, default "num-examples"
        Metric of a reply that counts its training steps; ``None``: all count the same.
    arrayrecord_key, configrecord_key : str, default "arrays", "config"
        Names of the records in the messages.
    guard : Guard, default Guard()
        Validation of replies: a model is compared with the one before, of the same member.
    ttl : float or callable, optional
        Time-to-live of messages, as in :class:`strategies.BufferedAsync`.
    poll_interval, refresh_interval, backoff, max_backoff : float
        As in :class:`strategies.BufferedAsync`.
    max_failures : int, default 3
        As in :class:`strategies.BufferedAsync`, with `patience`.
    patience : float, default 600.0
    nodes : callable, optional
        ``nodes(grid)`` returns the ids of the nodes that take part; default: all that are online.
    on_event : callable, optional
        Called with a dict for every dispatch, reply, evaluation, error, rejection and round.
    clock : Clock, optional
        Default: that of the grid.
    seed : int, default 0
        Seed of the draws of the nodes that evaluate.
    """

    def __init__(
        self,
        buffer_size: float = 0.5,
        *,
        graph: Neighbours | Callable[[list[int]], Neighbours] = ring,
        member_of: Callable[[int], int] | None = None,
        fraction_evaluate: float = 1.0,
        min_available_nodes: int = 2,
        weighted_by_key: str | None = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        guard: Guard | None = None,
        ttl: float | Callable[[int], float] | None = None,
        poll_interval: float = 0.02,
        refresh_interval: float = 1.0,
        backoff: float = 2.0,
        max_backoff: float = 300.0,
        max_failures: int = 3,
        patience: float = 600.0,
        nodes: Callable[[Grid], Iterable[int]] | None = None,
        on_event: Callable[[Event], None] | None = None,
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
        members = math.inf if callable(graph) else len(both_ways(graph))
        if members < min_available_nodes:
            raise ValueError(
                f"graph has {members} members: must have min_available_nodes = "
                f"{min_available_nodes} or more"
            )
        self.buffer_size, self.graph, self.identify = buffer_size, graph, member_of
        self.fraction_evaluate, self.min_available_nodes = fraction_evaluate, min_available_nodes
        self.weighted_by_key = weighted_by_key
        self.arrayrecord_key, self.configrecord_key = arrayrecord_key, configrecord_key
        self.guard, self.ttl = guard or Guard(), ttl
        self.poll_interval, self.refresh_interval = poll_interval, refresh_interval
        self.backoff, self.max_backoff = backoff, max_backoff
        self.max_failures, self.patience = max_failures, patience
        self.nodes = nodes or (lambda grid: grid.get_node_ids())
        self.on_event = on_event or (lambda event: None)
        self.clock, self.seed = clock, seed
        self.office: PostOffice | None = None
        self.member_of: Callable[[int], int] = self._member_of

    def _member_of(self, node_id: int) -> int:
        """Return the member that a node is now."""
        return node_id if self.office is None else self.office.places.member_at[node_id]

    def time_to_live(self, node_id: int) -> float:
        """Return the time-to-live of messages to a node, in seconds."""
        learned = self.office.exchange.deadlines if self.office else None
        return time_to_live(self.ttl, node_id, learned)

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
    ) -> GossipResult:
        """Train until there have been `num_rounds` rounds, or `should_stop` ends it.

        Messages may be in flight when it returns: see :meth:`drain`.

        A round is as many trainings as nodes take part; fast nodes train more often than slow ones.

        Parameters
        ----------
        grid : Grid
        initial_arrays : ArrayRecord
            The model from which every node starts.
        num_rounds : int, default 3
        timeout : float or None, default 3600
            Seconds without an accepted model after which nodes that wait for others train with what
            news there is, with a warning; if there are none, training fails. Also the longest wait
            for an evaluation. ``None``: no limit.
        train_config, evaluate_config : ConfigRecord, optional
            Sent with every message, with ``server-round``: which training of the node it is, or
            the round that is evaluated.
        evaluate_fn : callable, optional
            ``evaluate_fn(round, arrays)`` is called for the initial model, and after each round
            for the mean of the models, which is computed for it and has no part in the training.
        should_stop : callable, optional
            ``should_stop(round, result)`` is called for each round that is complete; training ends
            if it returns True. With `fraction_evaluate` these are the rounds that the nodes have
            evaluated.

        Returns
        -------
        GossipResult

        Raises
        ------
        ValueError
            If `num_rounds` or `timeout` is impossible; if the initial arrays are empty, not finite,
            or not of real numbers; if a callable `graph` returns no graph.
        TrainingFailedError
            If every node keeps failing, or no model has been accepted in `timeout`.
        """
        limit = read_length(num_rounds, timeout)
        train_config = train_config or ConfigRecord()
        evaluate_config = evaluate_config or ConfigRecord()
        log_start("Gossip", num_rounds, initial_arrays, train_config, evaluate_config)
        log(INFO, "\t└──> K: %s of the neighbours; %s", self.buffer_size, self.guard)
        log(INFO, "")
        self.office = PostOffice(
            self, grid, initial_arrays, train_config, evaluate_config, evaluate_fn
        )
        return self.office.run(num_rounds, limit, should_stop)

    def drain(self, grid: Grid, timeout: float) -> int:
        """Wait for the messages in flight and discard their replies, after :meth:`start`.

        The result of :meth:`start` does not change: a model that arrives later is not in it.

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
        if self.office is None:
            return 0
        self.office.exchange.grid = grid
        return self.office.drain(timeout)
