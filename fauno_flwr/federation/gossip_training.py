"""Training without a server: the nodes merge each other's updates, and the run only watches."""

import math
from logging import INFO
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import ConfigRecord
from flwr.common.logger import log

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.federation import GOSSIP
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.failures import RunFailedError
from fauno_flwr.federation.members import Members
from fauno_flwr.federation.metric_rows import MetricRows
from fauno_flwr.federation.periodic import HoldsActors, PeriodicEvaluation
from fauno_flwr.federation.training import Trained, Training
from fauno_flwr.learning.metrics import STEPS
from strategies.arrays import Arrays
from strategies.evaluation import mean_metrics
from strategies.gossip import distance, merge_models
from strategies.grid_protocols import poll_interval_of
from strategies.grids import FIRST_NODE_ID

Event = dict[str, Any]


@runtime_checkable
class Gossips(Protocol):
    """A simulated grid whose nodes merge each other's updates."""

    def begin(self, shared: Arrays, record: ConfigRecord, tell: Any) -> None:
        """Begin to train; see :class:`fauno_flwr.cosim.gossip.GossipGrid`."""

    def models(self) -> dict[int, Arrays]:
        """Return the newest shared parameters of each agent."""


class GossipTraining:
    """The training of a run by gossip.

    A version is as many trainings as there are agents. Its shared parameters are the mean of the
    agents', which is computed to be written and has no part in the training.

    Parameters
    ----------
    run : RunContext
    members : Members

    Raises
    ------
    ConfigError
        If the nodes cannot reach each other, as through Flower.
    """

    def __init__(self, run: RunContext, members: Members) -> None:
        if not isinstance(run.grid, Gossips):
            raise ConfigError(
                f"federation.merging is {GOSSIP!r}: must be manager here, the nodes merge each "
                f"other's updates in fauno train only"
            )
        self.run, self.members = run, members
        self._grid: Gossips = run.grid
        self._rows = MetricRows(run)
        self._periodic = PeriodicEvaluation(run, self._rows)
        self._version, self._last_failure = 0, ""
        self._trained: list[Event] = []  # since the last version
        self._stale: dict[int, list[int]] = {}  # by agent, merged before its present training

    def execute(self) -> Trained:
        """Train, and write ``metrics.jsonl`` meanwhile.

        Raises
        ------
        RunFailedError
            If no version was made in time.
        """
        run, federation = self.run, self.run.config.federation
        self._start = run.clock.monotonic()
        self._grid.begin(run.first_version, run.message_config, self._tell)
        pause = poll_interval_of(run.grid, 1.0)
        while self._version < federation.versions and self._now() < federation.timeout:
            run.clock.sleep(pause)
        if self._version == 0:
            raise RunFailedError(
                f"no version was made in federation.timeout = {federation.timeout:g} s; "
                f"the last failure: {self._last_failure or 'no node has trained'}"
            )
        return self.newest

    @property
    def newest(self) -> Trained:
        """The newest version so far: the mean of the agents' parameters."""
        models = list(self._grid.models().values())
        shared = mean_of(models) if models else self.run.first_version
        return Trained(shared, self._version, self._periodic.best)

    def _now(self) -> float:
        return self.run.clock.monotonic() - self._start

    def _tell(self, kind: str, agent: int, fields: Event) -> None:
        """Write an event of a node; a reply may end a version."""
        event = {
            "t": round(self._now(), 4),
            "event": kind,
            "node": FIRST_NODE_ID + agent,
            "name": self.run.task.names[agent],
            "kind": "train",
            **fields,
        }
        if kind == "dispatch":
            self._stale[agent] = event.pop("staleness")
            event["merged"] = self._stale[agent]
        elif kind == "error":
            self._last_failure = f"{event['name']}: {event['reason']}"
        norm = event.pop("norm", 0.0)
        self.run.write(event)
        if kind == "reply":
            stale = self._stale.pop(agent, [])
            self._trained.append({**event, "agent": agent, "norm": norm, "stale": stale})
            if len(self._trained) >= len(self.run.task.names):
                self._end_version()

    def _end_version(self) -> None:
        done, self._trained = self._trained, []
        if self._version >= self.run.config.federation.versions:
            return
        self._version += 1
        models = self._grid.models()
        stale = [tau for event in done for tau in event["stale"]]
        flush = {
            "t": done[-1]["t"],
            "event": "flush",
            "version": self._version,
            "nodes": [event["node"] for event in done],
            "members": [event["agent"] for event in done],
            "names": [event["name"] for event in done],
            "steps": [event["metrics"][STEPS] for event in done],
            # Of the models that a training began with; one that merged none has no staleness.
            "staleness": [float(np.mean(event["stale"] or [0])) for event in done],
            "norms": [float(f"{event['norm']:.4g}") for event in done],
            "scaled_down": 0,
            "merged": len(stale),
            "distance": float(f"{consensus_distance(list(models.values())):.6g}"),
        }
        self._rows.observe(flush)
        self.run.write(flush)
        steps = np.array(flush["steps"], np.float64)
        metrics = mean_metrics([event["metrics"] for event in done], steps / steps.sum())
        self._rows.add(self._version, metrics)
        log(INFO, "version %s: distance %.4g", self._version, flush["distance"])
        if self._periodic.is_due(self._version) and isinstance(self.run.grid, HoldsActors):
            shared = mean_of(list(models.values()))
            self._periodic.evaluate(self._version, self.run.grid.get_actors(), shared)


def make_training(run: RunContext, members: Members) -> Training | GossipTraining:
    """Make the training that ``federation.merging`` asks for."""
    by_gossip = run.config.federation.merging == GOSSIP
    return GossipTraining(run, members) if by_gossip else Training(run, members)


def mean_of(models: list[Arrays]) -> Arrays:
    """Compute the mean of models."""
    return merge_models(models[0], models[1:], [1 / len(models)] * (len(models) - 1))


def consensus_distance(models: list[Arrays]) -> float:
    """Compute the root of the mean squared distance of models to their mean."""
    mean = mean_of(models)
    return math.sqrt(sum(distance(model, mean) ** 2 for model in models) / len(models))
