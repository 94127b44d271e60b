"""The server: handshake, asynchronous training, one joint evaluation, results."""

import platform
import shlex
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid.http_grid import HttpGrid

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import MERGE_RULES, ConfigError, RunConfig
from fauno_flwr.federation.logs import set_up_logging
from fauno_flwr.federation.members import Members
from fauno_flwr.federation.protocol import (
    ACTOR,
    ARRAYS,
    CONFIG,
    NODE,
    QUERY,
    QUERY_ACTOR,
    read,
    schema,
    settings_record,
)
from fauno_flwr.federation.sizing import SizedAsync, SizedGuard, Sizer
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.results import report
from fauno_flwr.results.directory import SCHEMA_VERSION, RunDirectory, read_lines
from fauno_flwr.results.status import failures, node_statistics
from fauno_flwr.tasks.registry import EdgeTask, Task, make_task
from sim_env.scenario import Scenario
from strategies import SGD, Checkpoints, Guard, Polynomial
from strategies.arrays import Arrays, Layout, to_arrays, to_record
from strategies.background import BackgroundGrid
from strategies.clock import Clock
from strategies.guard import RejectedError

QUERY_TIMEOUT = 60.0
POLL_INTERVAL = 0.02
LARGEST_REPLY = 2**26  # bytes; a model has about a hundredth of that
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run with the settings of ``context.run_config``: ``conf``, ``overrides``, ``out``."""
    torch.set_num_threads(1)
    set_up_logging()
    settings = context.run_config
    overrides = shlex.split(str(settings["overrides"]))
    if settings["env-id"]:
        overrides = ["world=gym", f"world.env_id={settings['env-id']}", *overrides]
    config = load_config(str(settings["conf"]), overrides)
    task = make_task(config)
    if isinstance(grid, HttpGrid):
        grid = BackgroundGrid(grid, LARGEST_REPLY)
    default_out = Path.home() / "fauno-flwr-results" / f"run-{context.run_id}"
    Run(grid, config, task, RunDirectory(str(settings["out"]) or default_out)).execute()


class Run:
    """One run from the handshake to the summary.

    Parameters
    ----------
    grid : Grid
    config : RunConfig
    task : Task or Scenario
        What the nodes learn; a compiled world of `config` stands for offloading in it.
    out : RunDirectory
    tell : callable, optional
        Gets every event that is written down.
    """

    def __init__(
        self,
        grid: Grid,
        config: RunConfig,
        task: Task | Scenario,
        out: RunDirectory,
        tell: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.tell = tell or (lambda event: None)
        self.grid, self.config, self.out = grid, config, out
        self.task: Task = EdgeTask(config, task) if isinstance(task, Scenario) else task
        self.settings = config.to_yaml()
        # A grid that simulates brings its own time.
        self.clock: Clock = getattr(grid, "clock", None) or time
        self.started = self.clock.monotonic()
        self.agent_of: dict[int, int] = {}
        # Under virtual time the seconds of a node are not those that the server waits.
        sized = config.training.seconds_per_message if self.clock is time else 0.0
        training = replace(config.training, seconds_per_message=sized)
        self.sizer = Sizer(training, lambda node_id: self.agent_of[node_id], config.federation.ttl)
        self.stages: dict[str, float] = {}
        self.last_failure = ""

    def execute(self) -> list[dict[str, Any]]:
        """Handshake, train, evaluate, write; returns the rows of the table."""
        self.out.write_text("config.yaml", self.settings)
        log(INFO, "results go to %s", self.out.path)
        log(INFO, "%s", self.task.describe())
        self._stage("handshake")
        self.agent_of = self._handshake()
        ask = partial(self._question, QUERY)
        self.members = Members(self.agent_of, ask, self._identify, self.clock)
        self._stage("training")
        critic, versions = self._train()
        self.out.write_arrays("critic.safetensors", critic)
        actors: dict[int, Arrays] = {}
        if self.config.federation.collect_actors:
            self._stage("collecting")
            actors = self._collect_actors()
        self._stage("evaluating")
        rows = self._evaluate(actors)
        self._write_summary(rows, versions)
        worlds = self.config.evaluation.worlds
        if rows:
            for line in report.format_rows(rows, self.task.facts["rho"], worlds).splitlines():
                log(INFO, line)
        return rows

    def _stage(self, name: str) -> None:
        self.stages[name] = self.clock.monotonic() - self.started
        self._write({"event": "stage", "stage": name, "since_start": self.stages[name]})

    def _write(self, event: dict[str, Any]) -> None:
        self.out.append("events.jsonl", event)
        self.tell(event)

    def _population(self, agents: int) -> AgentStack:
        return self.task.make_population(agents)

    # ---- handshake -----------------------------------------------------------------------------

    def _handshake(self) -> dict[int, int]:
        """Which agent each node is; every agent has exactly one node."""
        needed = len(self.task.names)
        agent_of: dict[int, int] = {}
        refusal = ""
        end = self.clock.monotonic() + self.config.federation.wait_for_nodes
        while len(agent_of) < needed:
            new = [node_id for node_id in self._everybody() if node_id not in agent_of]
            for reply in self._query(QUERY, new):
                try:
                    if reply.has_error():
                        raise ValueError(reply.error.reason)
                    agent = self._identify(reply)
                    nodes = read(reply.content.config_records[NODE], "nodes", int)
                except ConfigError:
                    raise
                except (ValueError, KeyError) as error:
                    if refusal != str(error):
                        log(WARNING, "a node does not take part: %s", error)
                    refusal = str(error)
                    continue
                if agent in agent_of.values():
                    raise ConfigError(f"two nodes have the partition-id {agent}: must be different")
                agent_of[reply.metadata.src_node_id] = agent
                if 0 < nodes < needed:
                    raise ConfigError(
                        f"num-supernodes is {nodes}: must be at least {needed}, one for "
                        f"each node that learns in this network (--federation-config "
                        f'"num-supernodes={needed} client-resources-num-cpus=1")'
                    )
            if len(agent_of) < needed:
                if self.clock.monotonic() > end:
                    raise ConfigError(
                        f"{len(agent_of)} of {needed} SuperNodes answered within "
                        f"federation.wait_for_nodes = {self.config.federation.wait_for_nodes:g} s: "
                        f"start one for each node that learns, with partition-id 0 to {needed - 1}"
                        + (f" (the last refusal: {refusal})" if refusal else "")
                    )
                self.clock.sleep(1.0)
        log(INFO, "%s nodes take part: %s", needed, ", ".join(self.task.names))
        return agent_of

    def _everybody(self) -> list[int]:
        """Nodes that can be asked: in a simulated network, also those that are down."""
        ask = getattr(self.grid, "get_all_node_ids", self.grid.get_node_ids)
        return sorted(ask())

    @cached_property
    def _training(self) -> str:
        """Name of this training; a run that resumes from its checkpoints has the same."""
        name = uuid.uuid4().hex
        if not self.config.federation.checkpoints:
            return name
        path = Path(self.config.federation.checkpoints) / "training"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(name)
        return path.read_text()

    @property
    def _poll_interval(self) -> float:
        """A look costs a deployment milliseconds of both its ends: a hundred for a message do."""
        return max(POLL_INTERVAL, self.sizer.training.seconds_per_message / 100)

    @cached_property
    def _critic_schema(self) -> str:
        return schema(self._population(1).get_shared(self.config.federation.share))

    def _identify(self, reply: Message) -> int:
        """The agent that a node says it is; ``ConfigError`` if its critic is not ours."""
        about = reply.content.config_records[NODE]
        critic = read(about, "critic", str)
        if critic != self._critic_schema:
            raise ConfigError(
                f"a node has the critic {critic}: must be {self._critic_schema}; "
                f"install the same version of fauno-flwr everywhere"
            )
        return read(about, "agent", int)

    def _question(self, message_type: str, node_id: int) -> Message:
        content = RecordDict({CONFIG: settings_record(self.settings, self._training)})
        return Message(content, dst_node_id=node_id, message_type=message_type, ttl=QUERY_TIMEOUT)

    def _query(self, message_type: str, node_ids: list[int]) -> list[Message]:
        messages = [self._question(message_type, node_id) for node_id in node_ids]
        return list(self.grid.send_and_receive(messages, timeout=QUERY_TIMEOUT)) if messages else []

    # ---- training ------------------------------------------------------------------------------

    def _train(self) -> tuple[Arrays, int]:
        federation = self.config.federation
        initial = self._population(1).get_shared(federation.share)
        checkpoint = None
        if federation.checkpoints:
            checkpoint = Checkpoints(federation.checkpoints, resume=True)
        # In YAML all numbers of this field are floats: from 1 on, they count nodes.
        size = federation.buffer_size
        buffer_size = size if size < 1 else int(size)
        strategy = SizedAsync(
            self.sizer,
            buffer_size,
            weighted_by_key=STEPS,
            arrayrecord_key=ARRAYS,
            configrecord_key=CONFIG,
            staleness=Polynomial(federation.staleness_exponent),
            merge=MERGE_RULES[federation.merge],
            server_optimizer=SGD(federation.server_rate),
            guard=SizedGuard(self.sizer),
            compression=federation.build_compression(),
            checkpoint=checkpoint,
            refill=federation.refill,
            poll_interval=getattr(self.grid, "poll_interval", self._poll_interval),
            nodes=self.members,
            member_of=self.agent_of.__getitem__,
            on_event=self._record,
        )
        result = strategy.start(
            self.grid,
            to_record(initial),
            num_rounds=federation.versions,
            timeout=federation.timeout,
            train_config=settings_record(self.settings, self._training),
        )
        if strategy.version == 0:
            raise RuntimeError(
                f"no version was made in federation.timeout = {federation.timeout:g} s; "
                f"the last failure: {self.last_failure or 'no node answered'}"
            )
        for made, metrics in result.train_metrics_clientapp.items():
            self.out.append("metrics.jsonl", {"version": made, **metrics})
        left = strategy.drain(self.grid, timeout=federation.ttl)
        if left:
            log(WARNING, "%s nodes have not answered their last message", left)
        return to_arrays(result.arrays), strategy.version

    def _record(self, event: dict[str, Any]) -> None:
        """Write an event down, with the names of the nodes beside their ids."""
        if "reason" in event:
            self.last_failure = f"{self._name(event['node'])}: {event['reason']}"
        if "node" in event:
            event = {**event, "name": self._name(event["node"])}
        if "members" in event:
            # By agent: after a resume, an update in the buffer may be of a node id that is gone.
            event = {**event, "names": [self.task.names[agent] for agent in event["members"]]}
        self._write(event)

    def _name(self, node_id: int) -> str:
        return self.task.names[self.agent_of[node_id]]

    # ---- evaluation ----------------------------------------------------------------------------

    def _collect_actors(self) -> dict[int, Arrays]:
        """Actors by agent, of the nodes that hand theirs over."""
        actors: dict[int, Arrays] = {}
        known = set(self.members(self.grid)) | (set(self._everybody()) & self.agent_of.keys())
        latest = {self.agent_of[node_id]: node_id for node_id in sorted(known)}
        untrained = self._population(1).get_actor()
        layout, guard = Layout(untrained), Guard()
        guard.begin(layout, ACTOR, None)
        for reply in self._query(QUERY_ACTOR, sorted(latest.values())):
            node_id = reply.metadata.src_node_id
            if reply.has_error():
                log(WARNING, "an actor was not handed over: %s", reply.error.reason)
                continue
            try:
                actor = guard.decode(reply.content.array_records[ACTOR])
                guard.check_arrays(actor, layout.flatten(untrained))
                actors[self.agent_of[node_id]] = actor
            except (RejectedError, KeyError) as error:
                log(WARNING, "the actor of %s is left out: %s", self._name(node_id), error)
        flat = {
            f"{self.task.names[agent]}.{name}": array
            for agent, actor in sorted(actors.items())
            for name, array in actor.items()
        }
        self.out.write_arrays("actors.safetensors", flat)
        return actors

    def _evaluate(self, actors: dict[int, Arrays]) -> list[dict[str, Any]]:
        """The table: the agents, if all their actors are here, and what they are compared with."""
        agents = len(self.task.names)
        if len(actors) == agents:
            population = self._population(agents)
            for agent, actor in actors.items():
                population.set_actor(actor, agent)
            return self.task.evaluate(population)
        if actors:
            log(WARNING, "%s of %s actors: no joint evaluation", len(actors), agents)
        return self.task.evaluate(None)

    # ---- results -------------------------------------------------------------------------------

    def _write_summary(self, rows: list[dict[str, Any]], versions: int) -> None:
        events = read_lines(self.out.path / "events.jsonl")
        replies = [event for event in events if event["event"] == "reply"]
        self._stage("done")
        self.out.write_json(
            "summary.json",
            {
                "schema_version": SCHEMA_VERSION,
                "software": software_versions(),
                "seed": self.config.seed,
                "evaluation_seeds": list(self.config.evaluation.seeds),
                **self.task.facts,
                "versions": versions,
                "versions_wanted": self.config.federation.versions,
                "buffer_size": self.config.federation.buffer_size,
                "seconds": {"since_start": self.stages},
                "nodes": node_statistics(events),
                "failures": failures(events),
                "table": rows,
            },
        )
        if rows:
            figure = self.out.path / "figures" / "comparison.png"
            report.plot_rows(rows, self.task.facts["rho"], figure)
        if replies:
            report.plot_learning(replies, self.out.path / "figures" / "learning.png")


def software_versions() -> dict[str, str]:
    """Versions of what the numbers depend on; in a FAB this package is not installed."""
    found = {"python": platform.python_version()}
    for package in ("fauno-flwr", "flwr", "numba", "numpy", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
