"""Federated training: the strategy runs until the versions are made."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from logging import INFO, WARNING
from typing import Any, Protocol, runtime_checkable

from flwr.app import ArrayRecord, MetricRecord
from flwr.common.logger import log

from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.failures import RunFailedError, kind
from fauno_flwr.federation.members import Members
from fauno_flwr.federation.metric_rows import MetricRows
from fauno_flwr.federation.periodic import (
    EvaluatedAsync,
    HoldsActors,
    MemberGuard,
    PeriodicEvaluation,
)
from fauno_flwr.federation.sizing import Sizer
from fauno_flwr.federation.strategy import build_strategy
from strategies import TrainingFailedError
from strategies.arrays import Arrays, to_arrays, to_record
from strategies.grid_protocols import poll_interval_of
from strategies.result import MAX_EPSILON

POLL_INTERVAL = 0.02


@runtime_checkable
class MovesServer(Protocol):
    """A simulated grid whose server may move to another node."""

    on_takeover: Callable[[ArrayRecord | None], None]


@dataclass(frozen=True)
class Trained:
    """Outcome of the training.

    Parameters
    ----------
    shared : dict of str to array
        The newest version of the shared parameters.
    versions : int
        Versions made.
    best : dict, optional
        The best evaluation during training: :attr:`PeriodicEvaluation.best`.
    privacy : dict, optional
        Privacy spent: ``epsilon``, ``delta`` and what they protect; None without.
    """

    shared: Arrays
    versions: int
    best: dict[str, Any] | None
    privacy: dict[str, Any] | None = None


class Training:
    """The training of a run.

    Parameters
    ----------
    run : RunContext
    members : Members
        The nodes that take part, after the handshake.
    """

    def __init__(self, run: RunContext, members: Members) -> None:
        self.run, self.members = run, members
        # In virtual time, a node's seconds are not those of the server.
        sized = run.config.training.seconds_per_message if run.clock is time else 0.0
        self._settings = replace(run.config.training, seconds_per_message=sized)
        self._last_failure = ""
        self._kinds: set[str] = set()
        self._strategy: EvaluatedAsync | None = None
        self._rows = MetricRows(run)
        self._periodic = PeriodicEvaluation(run, self._rows)

    def execute(self) -> Trained:
        """Train, and write ``metrics.jsonl`` meanwhile.

        Raises
        ------
        RunFailedError
            If every node keeps failing, or no version was made in time.
        """
        run, federation = self.run, self.run.config.federation
        sizer = Sizer(self._settings, lambda node_id: run.agent_of[node_id], federation.ttl)
        strategy = build_strategy(
            run.config,
            sizer,
            {} if run.journal is None else {"journal": run.journal},
            # Virtual time is of a simulation, whose data is nobody's: the same noise in each run.
            noise_seed=None if run.clock is time else run.config.seed,
            poll_interval=poll_interval_of(run.grid, self._poll_interval),
            nodes=self.members,
            member_of=run.agent_of.__getitem__,
            on_event=self._record,
            on_version=self._on_version,
        )
        strategy.run, strategy.periodic = run, self._periodic
        assert isinstance(strategy.guard, MemberGuard)
        strategy.guard.members = self.members
        self._strategy = strategy
        if isinstance(run.grid, MovesServer):
            run.grid.on_takeover = self._take_over
        try:
            result = strategy.start(
                run.grid,
                to_record(run.first_version),
                num_rounds=federation.versions,
                timeout=None,  # federation.timeout is the limit of all versions together
                train_config=run.message_config,
            )
        except TrainingFailedError as error:
            raise RunFailedError(self._describe(error)) from error
        if strategy.version == 0 and result.ended_by == MAX_EPSILON:
            raise RunFailedError(
                f"no version was made: one would pass federation.privacy.max_epsilon = "
                f"{federation.privacy.max_epsilon:g}"
            )
        if strategy.version == 0:
            raise RunFailedError(
                f"no version was made in federation.timeout = {federation.timeout:g} s; "
                f"the last failure: {self._last_failure or 'no node answered'}"
            )
        unanswered = strategy.drain(run.grid, timeout=federation.ttl)
        if unanswered:
            log(WARNING, "%s nodes have not answered their last message", unanswered)
        privacy = None if result.privacy is None else result.privacy.fields()
        return Trained(to_arrays(result.arrays), strategy.version, self._periodic.best, privacy)

    def _take_over(self, arrays: ArrayRecord | None) -> None:
        """Go on from an older version, as a node that takes over the server does.

        Its number stays, and the buffer is lost.
        """
        session = self._strategy.session if self._strategy is not None else None
        assert session is not None
        known = arrays or to_record(self.run.first_version)
        session.buffer.clear()
        versions = session.versions
        versions.bases[versions.newest] = versions.layout.flatten(to_arrays(known))
        session.result.arrays = known
        session.exchange.emit("takeover", version=versions.newest)

    @property
    def newest(self) -> Trained:
        """The newest version so far."""
        session = self._strategy.session if self._strategy is not None else None
        if session is None:
            return Trained(self.run.first_version, 0, None)
        return Trained(to_arrays(session.result.arrays), session.version, self._periodic.best)

    @property
    def _poll_interval(self) -> float:
        """Seconds between two polls: each costs milliseconds, so about a hundred per message."""
        return max(POLL_INTERVAL, self._settings.seconds_per_message / 100)

    def _describe(self, error: TrainingFailedError) -> str:
        """Return one sentence about nodes that all fail: each reason, with a node that has it."""
        first: dict[str, str] = {}
        for node_id, reason in error.reasons.items():
            first.setdefault(kind(reason), f"{self.run.name_of(node_id)}: {reason}")
        return "; ".join([error.summary, *first.values()])

    def _on_version(self, version: int, arrays: ArrayRecord, metrics: MetricRecord | None) -> None:
        """Write the row of a version, and evaluate its agents if that is due."""
        assert metrics is not None  # of all updates that were merged
        self._rows.add(version, metrics)
        if self._periodic.is_due(version) and isinstance(self.run.grid, HoldsActors):
            self._periodic.evaluate(version, self.run.grid.get_actors(), to_arrays(arrays))

    def _record(self, event: dict[str, Any]) -> None:
        """Write an event of the strategy, with the names of the nodes beside their ids."""
        run, strategy = self.run, self._strategy
        assert strategy is not None
        self._rows.observe(event)
        if event["event"] == "flush" and not isinstance(run.grid, HoldsActors):
            # Before the strategy decides whether to evaluate this version on the nodes.
            due = self._periodic.is_due(event["version"])
            strategy.fraction_evaluate = float(due)
        if event["event"] == "resume":
            assert strategy.session is not None
            self._rows.restore(strategy.session.result.train_metrics_clientapp)
            self._periodic.restore()
        if "reason" in event and event["event"] != "ban":
            self._last_failure = f"{run.name_of(event['node'])}: {event['reason']}"
            if kind(event["reason"]) not in self._kinds:
                self._kinds.add(kind(event["reason"]))
                log(INFO, "the first failure of its kind: %s", self._last_failure)
        if "node" in event:
            event = {**event, "name": run.name_of(event["node"])}
        if "members" in event:
            # By agent: after a resume, a buffered update may be of a node id that is gone.
            event = {**event, "names": [run.task.names[agent] for agent in event["members"]]}
        run.write(event)
