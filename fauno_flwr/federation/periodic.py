"""Evaluation during training: every ``evaluation.every`` versions, and the best of them kept."""

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from logging import INFO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from fauno_flwr.federation.collection import make_trained_agents, read_actors, save_actors
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.members import Members
from fauno_flwr.federation.metric_rows import MetricRows
from fauno_flwr.federation.protocol import ACTOR, ARRAYS, QUERY_ACTOR
from fauno_flwr.federation.sizing import SizedAsync, SizedGuard
from fauno_flwr.results.directory import write_atomically
from fauno_flwr.tasks.trained import BEST
from strategies.arrays import Arrays, to_arrays
from strategies.buffer import Update
from strategies.flights import Flight
from strategies.guard import Metrics, RejectedError

# In the order in which they decide: the sign makes larger better.
MEASURES = {"eval/return": 1, "eval/finished_ratio": 1, "eval/response": -1}


@runtime_checkable
class HoldsActors(Protocol):
    """A simulated grid that holds the agents itself."""

    def get_actors(self) -> dict[int, Arrays]:
        """Return the present actors by agent; no time passes."""


class PeriodicEvaluation:
    """Evaluations of a run during its training.

    In co-simulation the actors are those of the moment at which the version is made. Elsewhere
    every node is queried for its actor when it has answered its message and before it trains again,
    while the others train.

    Parameters
    ----------
    run : RunContext
    rows : MetricRows
        Gets ``eval/...`` of every evaluated version.

    Attributes
    ----------
    best : dict or None
        ``version``, ``measure``, and the numbers of the best evaluation so far.
    """

    def __init__(self, run: RunContext, rows: MetricRows) -> None:
        self._run, self._rows = run, rows
        self._every = run.config.evaluation.every
        self.best: dict[str, Any] | None = None

    def is_due(self, version: int) -> bool:
        """Return whether a version is to be evaluated."""
        return self._every > 0 and version > 0 and version % self._every == 0

    def evaluate(self, version: int, actors: Mapping[int, Arrays], shared: Arrays) -> None:
        """Evaluate actors, write the result, and keep them if they are the best so far.

        Parameters
        ----------
        version : int
        actors : mapping of int to dict of str to array
            By agent; with fewer than all, there is no evaluation.
        shared : dict of str to array
            The shared parameters of that version.
        """
        run = self._run
        population = make_trained_agents(run, actors)
        if population is None:
            return
        found = {f"eval/{name}": x for name, x in run.task.validate(population).items()}
        self._rows.amend(version, found)
        text = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
        log(INFO, "version %s: %s", version, text)
        if self.best is None or score(found) > score(self.best):
            self.best = {"version": version, "measure": measure(found), **found}
            with run.out.tolerating(f"checkpoints/{BEST}"):
                self._save(self.best, actors, shared)

    def _save(self, best: Mapping[str, Any], actors: Mapping[int, Arrays], shared: Arrays) -> None:
        run = self._run
        save_actors(run, actors, f"{BEST}/actors.safetensors")
        run.out.write_arrays(f"{BEST}/critic.safetensors", shared)
        folder = run.out.path / "checkpoints" / BEST
        write_atomically(folder / "best.json", json.dumps(best, indent=2) + "\n")
        if self._saved is not None:
            shutil.copytree(folder, self._saved, dirs_exist_ok=True)

    def restore(self) -> None:
        """Restore the best actors of a run that resumes from its checkpoints."""
        if self._saved is None or not self._every or not (self._saved / "best.json").is_file():
            return
        best = json.loads((self._saved / "best.json").read_text())
        if best["version"] not in self._rows:
            return  # newer than the checkpoint that the run resumes from
        self.best = best
        # The evaluation may have ended after the newest checkpoint was written.
        found = {name: best[name] for name in MEASURES if name in best}
        self._rows.amend(best["version"], found)
        shutil.copytree(self._saved, self._run.out.path / "checkpoints" / BEST)

    @property
    def _saved(self) -> Path | None:
        """Folder of the best actors among the checkpoints of the training."""
        folder = self._run.config.federation.checkpoints
        return Path(folder) / BEST if folder else None


def measure(metrics: Mapping[str, float]) -> str:
    """Return the name of the measure by which evaluations are compared first."""
    return next(name for name in MEASURES if name in metrics)


def score(metrics: Mapping[str, Any]) -> tuple[float, ...]:
    """Return what is compared between evaluations: larger is better, an undefined value worst."""
    values = [sign * metrics[name] for name, sign in MEASURES.items() if name in metrics]
    return tuple(-math.inf if math.isnan(value) else value for value in values)


class EvaluatedAsync(SizedAsync):
    """A strategy whose evaluations on the nodes are queries for their actors.

    Parameters
    ----------
    sizer : Sizer
    buffer_size : int or float
    **settings
        Further parameters of :class:`SizedAsync`.
    """

    run: RunContext
    periodic: PeriodicEvaluation

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a query for every idle node whose actor is still missing."""
        self._arrays = arrays
        messages = super().configure_evaluate(server_round, arrays, config, grid)
        return [self.run.question(QUERY_ACTOR, m.metadata.dst_node_id) for m in messages]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """Evaluate the actors in the replies together."""
        actors = read_actors(self.run, replies)
        self.periodic.evaluate(server_round, actors, to_arrays(self._arrays))


class MemberGuard(SizedGuard):
    """A guard that takes updates of members only, and knows an actor from an update.

    Attributes
    ----------
    members : Members
        The nodes that take part.
    """

    members: Members

    def check(self, reply: Message, flight: Flight, base: np.ndarray, now: float) -> Update:
        """Return the update of a reply; raises as :meth:`SizedGuard.check` does."""
        if self.members.is_replaced(flight.node_id):
            raise RejectedError("member", "the place of this agent belongs to another node again")
        return super().check(reply, flight, base, now)

    def check_metrics(self, reply: Message) -> tuple[float, Metrics]:
        """Return weight and metrics of a reply; none for an actor, which is checked later."""
        records = reply.content.array_records
        if ACTOR in records and ARRAYS not in records:
            return 1.0, {}
        return super().check_metrics(reply)
