"""What the phases of a run share: grid, task, clock, messages, events, identities."""

import uuid
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.checkpoints import make_checkpoints, require_own_checkpoints
from fauno_flwr.federation.protocol import (
    AGENT,
    CONFIG,
    CRITIC,
    NODE,
    read,
    schema,
    settings_record,
)
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.results.journal import Journal
from fauno_flwr.tasks.base import Task
from strategies.clock import Clock
from strategies.grid_protocols import all_node_ids, clock_of

QUERY_TIMEOUT = 60.0


class RunContext:
    """A run as its phases see it.

    Parameters
    ----------
    grid : Grid
    config : RunConfig
    task : Task
    out : RunDirectory
    on_event : callable, optional
        Called with every event that is written to ``events.jsonl``.

    Attributes
    ----------
    agent_of : dict of int to int
        Agent of each node id; filled by the handshake.
    journal : Journal or None
        Events beside the checkpoints.
    clock : Clock
        Clock of the grid, if it simulates time, or else :mod:`time`.
    stages : dict of str to float
        Start of each stage, in seconds since the start of the run.
    """

    def __init__(
        self,
        grid: Grid,
        config: RunConfig,
        task: Task,
        out: RunDirectory,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.grid, self.config, self.task, self.out = grid, config, task, out
        self._on_event = on_event
        self._settings = config.to_yaml()
        self.clock: Clock = clock_of(grid)
        self._started = self.clock.monotonic()
        self.journal: Journal | None = None
        checkpoints = make_checkpoints(config, {})
        if checkpoints is not None:
            require_own_checkpoints(config)
            self.journal = Journal(checkpoints.folder, out, resumes=bool(checkpoints.files()))
        self.agent_of: dict[int, int] = {}
        self.stages: dict[str, float] = {}

    # ---- events --------------------------------------------------------------------------------

    def stage(self, name: str) -> None:
        """Enter a stage of the run."""
        self.stages[name] = self.clock.monotonic() - self._started
        self.write({"event": "stage", "stage": name, "since_start": self.stages[name]})

    def write(self, event: dict[str, Any]) -> None:
        """Append an event to ``events.jsonl``."""
        line = self.out.append("events.jsonl", event)
        if self.journal is not None:
            with self.out.tolerating("the events beside the checkpoints"):
                self.journal.append(line)
        if self._on_event is not None:
            self._on_event(event)

    # ---- identities ----------------------------------------------------------------------------

    def name_of(self, node_id: int) -> str:
        """Return the name of the node with that id."""
        return self.task.names[self.agent_of[node_id]]

    def node_ids(self) -> list[int]:
        """Return the ids of all nodes that can be queried.

        In a simulated network these include the nodes that are down.
        """
        return all_node_ids(self.grid)

    @cached_property
    def training_id(self) -> str:
        """Id of this training; a run that resumes from its checkpoints has the same."""
        new = uuid.uuid4().hex
        if not self.config.federation.checkpoints:
            return new
        path = Path(self.config.federation.checkpoints) / "training"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(new)
        return path.read_text()

    @cached_property
    def _schema(self) -> str:
        untrained = self.task.make_population(1)
        return schema(untrained.get_shared(self.config.federation.share))

    def identify(self, reply: Message) -> int:
        """Return the agent of a node from its answer to a query.

        Raises
        ------
        ConfigError
            If its shared parameters have another schema than ours.
        """
        about = reply.content.config_records[NODE]
        critic = read(about, CRITIC, str)
        if critic != self._schema:
            raise ConfigError(
                f"a node has the critic {critic}: must be {self._schema}; "
                f"install the same version of fauno-flwr everywhere"
            )
        return read(about, AGENT, int)

    # ---- messages ------------------------------------------------------------------------------

    @property
    def message_config(self) -> Any:
        """Config record of every message."""
        return settings_record(self._settings, self.training_id)

    def question(self, message_type: str, node_id: int) -> Message:
        """Make a query for a node."""
        content = RecordDict({CONFIG: self.message_config})
        return Message(content, dst_node_id=node_id, message_type=message_type, ttl=QUERY_TIMEOUT)

    def query(self, message_type: str, node_ids: list[int]) -> list[Message]:
        """Send a query to nodes and return the replies that arrive in time."""
        messages = [self.question(message_type, node_id) for node_id in node_ids]
        return list(self.grid.send_and_receive(messages, timeout=QUERY_TIMEOUT)) if messages else []
