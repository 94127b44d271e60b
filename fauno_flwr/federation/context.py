"""What the phases of a run share: grid, task, clock, messages, events, identities."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.checkpoints import make_checkpoints, require_own_checkpoints
from fauno_flwr.federation.failures import kind
from fauno_flwr.federation.protocol import (
    AGENT,
    CONFIG,
    CRITIC,
    MESSAGES,
    NODE,
    NODES,
    read,
    schema,
    settings_record,
)
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.results.journal import Journal
from fauno_flwr.tasks.base import Task
from fauno_flwr.tasks.start import first_version
from sim_env.errors import require_whole
from strategies.clock import Clock
from strategies.grid_protocols import all_node_ids, clock_of

QUERY_TIMEOUT = 60.0
MOST_REFUSED = 100  # kinds of reasons that are written: strangers may think of many


@dataclass(frozen=True)
class Introduction:
    """What a node says of itself beside its agent; it may lie.

    Parameters
    ----------
    nodes : int
        Nodes that it knows of; 0 if it knows none.
    messages : int
        Train messages of this training that its agent has answered.
    """

    nodes: int
    messages: int


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
    first_version : dict of str to array
        Version 0 of the shared parameters.
    agent_of : dict of int to int
        Agent of each node id that has, or had, the place of one.
    introduced : dict of int to Introduction
        What nodes have said of themselves.
    last_refusal : str
        Node and reason of the last one that was not let in; empty if there was none.
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
        self.first_version = first_version(config, task.make_population(1))
        self._settings = config.to_yaml()
        self.clock: Clock = clock_of(grid)
        self._started = self.clock.monotonic()
        self.journal: Journal | None = None
        checkpoints = make_checkpoints(config, {})
        if checkpoints is not None:
            require_own_checkpoints(config)
            self.journal = Journal(checkpoints.folder, out, resumes=bool(checkpoints.files()))
        self.agent_of: dict[int, int] = {}
        self.introduced: dict[int, Introduction] = {}
        self.last_refusal, self._refused = "", set[str]()
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
        return schema(self.first_version)

    def identify(self, reply: Message) -> int:
        """Return the agent of a node from its answer to a query, and keep what else it says.

        Raises
        ------
        ValueError
            If it is no agent of this run, or its shared parameters have another schema than ours.
        """
        about = reply.content.config_records.get(NODE)
        if about is None:
            raise ValueError(f"an answer without the record {NODE!r}: must introduce the node")
        critic = read(about, CRITIC, str)
        if critic != self._schema:
            raise ValueError(
                f"a node has the critic {critic:.200}: must be {self._schema:.200}; "
                f"install the same version of fauno-flwr everywhere"
            )
        agent, nodes, messages = (read(about, key, int) for key in (AGENT, NODES, MESSAGES))
        require_whole(AGENT, agent, at_least=0, at_most=len(self.task.names) - 1)
        require_whole(NODES, nodes, at_least=0)
        require_whole(MESSAGES, messages, at_least=0)
        self.introduced[reply.metadata.src_node_id] = Introduction(nodes, messages)
        return agent

    def refuse(self, node_id: int, reason: str) -> None:
        """Write that a node is not let in, and log it; once for each kind of reason."""
        event: dict[str, Any] = {"event": "refused", "node": node_id}
        # A node that knows its agent begins with its name.
        name, _, rest = reason.partition(": ")
        if name in self.task.names:
            reason, event["name"] = rest, name
        self.last_refusal = f"{event.get('name', f'node {node_id}')}: {reason}"
        if kind(reason) not in self._refused and len(self._refused) < MOST_REFUSED:
            self._refused.add(kind(reason))
            log(WARNING, "a node does not take part: %s", self.last_refusal)
            self.write({**event, "reason": reason})

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
