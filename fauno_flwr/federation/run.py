"""One run of the server: handshake, training, collection, evaluation, summary."""

from collections.abc import Callable
from functools import partial
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.common.logger import log
from flwr.serverapp import Grid

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.collection import collect_actors
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.failures import sentence
from fauno_flwr.federation.gossip_training import GossipTraining, make_training
from fauno_flwr.federation.handshake import handshake
from fauno_flwr.federation.keys import NodeKeys
from fauno_flwr.federation.members import Members
from fauno_flwr.federation.protocol import QUERY
from fauno_flwr.federation.summary import attempt, write_replay, write_summary
from fauno_flwr.federation.training import Training
from fauno_flwr.results import report
from fauno_flwr.results.directory import REPLAY, RunDirectory
from fauno_flwr.results.state import FAILED, FINISHED, INTERRUPTED, State, end_event, write_process
from fauno_flwr.tasks.base import Task

KEYS = "keys.json"  # beside the checkpoints


def make_members(run: RunContext) -> Members:
    """Make the members of a run; nobody has a place yet."""
    federation, keys = run.config.federation, None
    if federation.bind_keys:
        saved = Path(federation.checkpoints) / KEYS if federation.checkpoints else None
        keys = NodeKeys(saved)
    question = partial(run.question, QUERY)
    return Members(run.agent_of, question, run.identify, run.clock, keys=keys, refuse=run.refuse)


class Run:
    """A run, on any grid: Flower's simulation, a deployment, or co-simulation.

    Parameters
    ----------
    grid : Grid
    config : RunConfig
    task : Task
        What the nodes learn.
    out : RunDirectory
    on_event : callable, optional
        Called with every event that is written to ``events.jsonl``.
    """

    def __init__(
        self,
        grid: Grid,
        config: RunConfig,
        task: Task,
        out: RunDirectory,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.context = RunContext(grid, config, task, out, on_event)
        self._training: Training | GossipTraining | None = None

    def execute(self) -> list[dict[str, Any]]:
        """Execute all phases, write the results, and return the rows of the table.

        However it ends, the last event says so, and the newest critic is written.
        """
        write_process(self.context.out.path)
        try:
            rows = self._execute()
        except BaseException as error:
            state = FAILED if isinstance(error, Exception) else INTERRUPTED
            self._end(State(state, sentence(error)))
            self._keep_critic()
            raise
        self._end(State(FINISHED))
        return rows

    def keep_actors(self) -> int:
        """Write the actors of a run that was interrupted; return the version of its critic.

        On a grid whose nodes answer queries at once, as those of a co-simulation.
        """
        if self._training is None:
            return 0
        collect_actors(self.context, self._training.members)
        return self._training.newest.versions

    def _keep_critic(self) -> None:
        if self._training is not None:
            with self.context.out.tolerating("critic.safetensors"):
                self.context.out.write_arrays("critic.safetensors", self._training.newest.shared)

    def _end(self, state: State) -> None:
        self.context.write(end_event(state))

    def _execute(self) -> list[dict[str, Any]]:
        run = self.context
        config, task, out = run.config, run.task, run.out
        out.write_text("config.yaml", config.to_yaml())
        log(INFO, "results go to %s", out.path)
        log(INFO, "%s", task.describe())
        run.stage("handshake")
        members = make_members(run)
        handshake(run, members)
        run.stage("training")
        self._training = training = make_training(run, members)
        trained = training.execute()
        out.write_arrays("critic.safetensors", trained.shared)
        population = None
        if config.federation.collect_actors:
            run.stage("collecting")
            population = collect_actors(run, training.members)
        run.stage("evaluating")
        rows = task.evaluate(population)
        write_summary(run, rows, trained)
        if config.evaluation.replay:
            attempt(REPLAY, lambda: write_replay(run, population))
        if rows:
            rho, worlds = task.facts["rho"], config.evaluation.worlds
            table = attempt("table", lambda: report.format_rows(rows, rho, worlds)) or ""
            for line in table.splitlines():
                log(INFO, line)
        return rows
