"""What a training session requires of its strategy."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from strategies.checkpoint import Checkpoints
from strategies.clock import Clock
from strategies.compression import Compression
from strategies.guard import Guard
from strategies.merge import MergeRule
from strategies.optimizers import ServerOptimizer
from strategies.privacy import Privacy

Event = dict[str, Any]
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]
ShouldStop = Callable[[int, Result], bool]
MetricsAggregation = Callable[[list[RecordDict], str], MetricRecord]

ON_REPLY, ON_VERSION = "reply", "version"  # when a node gets its next message


class ExchangeStrategy(Protocol):
    """Settings of a strategy, as :class:`strategies.exchange.Exchange` uses them."""

    guard: Guard
    ttl: float | Callable[[int], float] | None
    poll_interval: float
    backoff: float
    max_backoff: float
    nodes: Callable[[Grid], Iterable[int]]
    member_of: Callable[[int], int]
    on_event: Callable[[Event], None]
    clock: Clock | None


class SessionStrategy(ExchangeStrategy, Protocol):
    """Settings and hooks of a strategy, as :class:`strategies.session.Session` uses them.

    The attributes are described in :class:`strategies.BufferedAsync`, the hooks that begin with
    ``configure`` and ``aggregate`` in Flower's ``Strategy``.
    """

    arrayrecord_key: str
    weighted_by_key: str | None
    merge: MergeRule
    weight_factor: float
    compression: Compression | None
    privacy: Privacy | None
    server_optimizer: ServerOptimizer
    time_limit: float
    concurrency: int | None
    refill: str
    flush_after: float | None
    flush_at_end: bool
    fraction_train: float
    fraction_evaluate: float
    min_evaluate_nodes: int
    refresh_interval: float
    max_failures: int
    patience: float
    on_version: Callable[[int, ArrayRecord, MetricRecord | None], bool | None]
    on_evaluation: Callable[[int, MetricRecord], None]
    checkpoint: Checkpoints | None
    seed: int

    @property
    def nodes_to_begin(self) -> int:
        """Nodes that must be online before the first message is sent."""

    def nodes_at_once(self, nodes: int) -> int:
        """Return how many may train at once, when `nodes` nodes take part."""

    def updates_needed(self, nodes: int) -> int:
        """Return K, when `nodes` nodes take part."""

    def time_to_live(self, node_id: int) -> float:
        """Return the time-to-live of messages to a node, in seconds."""

    def check_staleness(self, staleness: int) -> None:
        """Raise :class:`strategies.guard.RejectedError` for an update that is too stale."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the train messages to send now."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the arrays of the next version and its metrics; no arrays: discard the replies."""

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the evaluate messages to send now."""

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return the metrics of an evaluated version."""
