"""The state of a training: what checkpoints hold of it, and how it is restored."""

import math
from dataclasses import replace
from logging import ERROR, WARNING
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord
from flwr.common.logger import log

from strategies.arrays import to_arrays, to_record
from strategies.buffer import Buffer
from strategies.checkpoint import State, Tensors, as_tensor, inside, pack, under, unpack
from strategies.evaluation import Evaluation
from strategies.exchange import Exchange
from strategies.flights import Flight, Flights
from strategies.grid_protocols import Resumable
from strategies.guard import RejectedError
from strategies.hooks import SessionStrategy
from strategies.result import TrainingResult
from strategies.versions import Versions

HISTORIES = (
    "train_metrics_clientapp",
    "evaluate_metrics_clientapp",
    "evaluate_metrics_serverapp",
)


class SessionState:
    """What the future of a training depends on; :class:`strategies.session.Session` changes it.

    Parameters
    ----------
    strategy : SessionStrategy
    exchange : Exchange
    versions : Versions
    result : TrainingResult

    Attributes
    ----------
    present, banned : list of int
        Nodes that take part, and those that are online but sent no more messages; as of the last
        look.
    idle : list of int
        Nodes that take part and may be sent a message, in rising order.
    ledger : Ledger or None
        Privacy spent so far; None in a training without.
    in_force : Privacy or None
        That of the strategy, with the clip of the next version.
    """

    def __init__(
        self,
        strategy: SessionStrategy,
        exchange: Exchange,
        versions: Versions,
        result: TrainingResult,
    ) -> None:
        self.strategy, self.exchange, self.versions = strategy, exchange, versions
        self.result = result
        self.flights: Flights = exchange.flights
        self.buffer = Buffer()
        self.rng = np.random.default_rng(strategy.seed)
        self.evaluation: Evaluation | None = None
        self.evaluated = 0
        self.needed = 0
        self.present: list[int] = []
        self.banned: list[int] = []
        self.taking_part: set[int] = set()
        self.idle: list[int] = []
        self.wake, self.last_refresh = True, -math.inf
        self.last_success = -math.inf
        self.waiting_since = 0.0  # when the version before was made, or nodes were there at last
        self._unsaved = False
        self.ledger = None if strategy.privacy is None else strategy.privacy.ledger()
        self.in_force = strategy.privacy

    @property
    def version(self) -> int:
        """The newest version."""
        return self.versions.newest

    def save(self, before: int) -> None:
        """Save the state if that has become due since version `before`."""
        checkpoints = self.strategy.checkpoint
        # One poll may make several versions.
        if (
            checkpoints is not None
            and self.version // checkpoints.every > before // checkpoints.every
        ):
            state, tensors = self.state()
            try:
                state["parts"] = {name: part.state() for name, part in checkpoints.parts.items()}
                checkpoints.save(self.version, state, tensors, self.versions.layout.describe())
            except OSError as error:
                self._pause_checkpoints(error)
            else:
                self._unsaved = False

    def _pause_checkpoints(self, error: OSError) -> None:
        """Say once that checkpoints cannot be written; each version tries again."""
        if not self._unsaved:
            reason = error.strerror or str(error)
            self.exchange.emit("unsaved", version=self.version, why=reason)
            log(ERROR, "no checkpoints until they can be written again: %s", reason)
        self._unsaved = True

    def resume(self) -> None:
        """Resume from the newest checkpoint, if that is set and one exists."""
        checkpoints = self.strategy.checkpoint
        if checkpoints is None:
            return
        found = checkpoints.begin(self.versions.layout.describe())
        if found is not None:
            state, tensors = found
            self.load(state, tensors)
            for name, part in checkpoints.parts.items():
                part.load(state["parts"][name])
            self.exchange.emit("resume", version=self.version)

    def state(self) -> tuple[State, Tensors]:
        """Return what the future of the training depends on."""
        grid, evaluation, strategy = self.exchange.grid, self.evaluation, self.strategy
        state: State = {
            "version": self.version,
            "time": self.exchange.now(),
            "last_look": self.last_refresh,
            "wake": self.wake,
            "last_success": self.last_success,
            "waiting_since": self.waiting_since,
            "deadlines": self.exchange.deadlines.state(),
            "needed": self.needed,
            "nodes": [self.present, self.banned, self.idle, sorted(self.flights.freed)],
            "unmatched": self.exchange.unmatched,
            "evaluated": self.evaluated,
            "rng": self.rng.bit_generator.state,
            "guard": strategy.guard.state(),
            "result": {
                name: {str(v): dict(record) for v, record in getattr(self.result, name).items()}
                for name in HISTORIES
            },
            "buffer": self.buffer.state(),
            **self.flights.state(),
            "evaluation": None if evaluation is None else evaluation.state(),
        }
        tensors = inside("base", {str(v): base for v, base in self.versions.bases.items()})
        tensors |= inside("optimizer", strategy.server_optimizer.state)
        tensors |= pack("reply", [update.reply for update in self.buffer])
        if evaluation is not None:
            tensors |= inside("evaluated", to_arrays(evaluation.arrays))
            tensors |= pack("evaluation", evaluation.replies)
        if isinstance(grid, Resumable):
            blobs = grid.save_state()
            tensors |= inside("grid", {name: as_tensor(data) for name, data in blobs.items()})
        return state, tensors

    def load(self, state: State, tensors: Tensors) -> None:
        """Restore :meth:`state` in a new session, and in its grid if that is resumable."""
        grid, strategy = self.exchange.grid, self.strategy
        blobs = {name: tensor.tobytes() for name, tensor in under("grid", tensors).items()}
        in_flight = bool(blobs) and isinstance(grid, Resumable)
        if blobs and isinstance(grid, Resumable):
            grid.load_state(blobs)
        elif state["flights"]:
            count = len(state["flights"])
            log(WARNING, "%s messages in flight are lost: their nodes are sent new ones", count)
        self.exchange.zero = self.exchange.clock.monotonic() - state["time"]
        self.exchange.unmatched = state["unmatched"]
        self.needed, self.evaluated = state["needed"], state["evaluated"]
        self.last_success = state["last_success"]
        self.waiting_since = state["waiting_since"]
        self.exchange.deadlines.load(state["deadlines"])
        self.wake, self.last_refresh = state["wake"], state["last_look"]
        self.rng.bit_generator.state = state["rng"]
        bases = {int(version): base for version, base in under("base", tensors).items()}
        self.result.arrays = self.versions.load(state["version"], bases)
        self.result.versions = self.version
        for name in HISTORIES:
            records = {int(v): MetricRecord(values) for v, values in state["result"][name].items()}
            getattr(self.result, name).update(records)
        self.flights.load(state, in_flight=in_flight)
        if in_flight:
            self.present, self.banned, self.idle, freed = map(list, state["nodes"])
            self.taking_part = set(self.present)
            self.flights.freed.update(freed)
        else:
            self.last_refresh = -math.inf
        strategy.server_optimizer.state.update(under("optimizer", tensors))
        replies = unpack("reply", tensors)
        for reply, values in zip(replies, state["buffer"], strict=True):
            self._load_update(reply, **values)
        strategy.guard.load(state["guard"])
        if state["evaluation"] is not None and in_flight:
            evaluated = to_record(under("evaluated", tensors))
            replies = unpack("evaluation", tensors)
            self.evaluation = Evaluation.load(state["evaluation"], evaluated, replies)
        elif state["evaluation"] is not None:
            self.evaluated = 0  # repeated, at the latest when training is over

    def _load_update(
        self, reply: Message, steps: float, arrived_at: float, **flight_values: Any
    ) -> None:
        flight = Flight(**flight_values)
        base = self.versions.bases[flight.base_version]
        try:
            update = self.strategy.guard.restore(reply, flight, base, arrived_at)
        except RejectedError as error:  # with another guard or compression than before
            log(WARNING, "node %s: its buffered update is discarded: %s", flight.node_id, error)
            return
        self.buffer.put(replace(update, steps=steps))
