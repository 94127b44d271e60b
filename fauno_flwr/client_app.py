"""Flower's client end: a node that trains its own agent and shares only what the settings say.

A message may be handled by another process than the one before, in a deployment always by a new
one: the agent is kept in ``context.state``, written once and last, and the worlds are rebuilt from
(seed, agent, number of the message). A SuperNode that ends forgets its state: with ``state-dir`` in
the node config, the agent is also saved to a file of the node, and resumes from there. So it is in
Flower's simulation, beside the checkpoints of the server.

The settings of a message are a stranger's: they are read as data, and what the owner of the node
has not allowed (:mod:`fauno_flwr.config.consent`) is refused before they have any effect.
"""

import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from logging import ERROR

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.logger import log

from fauno_flwr.config.consent import FILES, SHARE_ACTOR, Consent, value_of
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import from_yaml
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.checkpoints import agents_folder
from fauno_flwr.federation.failures import answer_errors, sentence
from fauno_flwr.federation.local_training import LocalTraining, Progress
from fauno_flwr.federation.logs import set_up_logging
from fauno_flwr.federation.node_state import STATE_DIR, NodeState
from fauno_flwr.federation.protocol import (
    ACTOR,
    AGENT,
    ARRAYS,
    CONFIG,
    METRICS,
    NODE,
    PROTOCOL,
    PROTOCOL_KEY,
    SETTINGS,
    TRAINING,
    node_record,
    read,
)
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.tasks.base import Task
from fauno_flwr.tasks.registry import make_task
from sim_env import plugins
from strategies.arrays import to_record
from strategies.flower_internals import in_simulation

torch.set_num_threads(1)
set_up_logging()
STATE = "agent"


def import_what_is_allowed(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Handle a message so that its settings import what the node config allows; a mod of Flower."""
    with plugins.only_from(Consent.read(context.node_config).modules):
        return call_next(message, context)


app = ClientApp(mods=[answer_errors, import_what_is_allowed])


@lru_cache(maxsize=4)
def compile_settings(settings: str, consent: Consent) -> tuple[RunConfig, Task]:
    """Build settings and task of a message; cached within a process.

    Raises
    ------
    ConfigError
        If the settings cannot be used, or are not allowed. Outside of Flower's simulation it tells
        nothing of the files that they name: that stays in the log of the node.
    """
    config = from_yaml(settings)
    consent.require(config)
    named = [key for key in FILES if value_of(config, key)]
    if consent.folders is None or not named:
        return config, make_task(config)
    try:
        return config, make_task(config)
    except Exception as error:
        log(ERROR, "%s", traceback.format_exc())
        raise ConfigError(
            f"the world cannot be built from {' and '.join(named)}: the log of this node says why"
        ) from error


def read_message(message: Message, context: Context) -> tuple[RunConfig, Task, int]:
    """Return settings, task and agent of a message.

    Raises
    ------
    ValueError
        If the server has another protocol, the node config names no agent, or does not allow what
        the settings ask for.
    """
    config = message.content.config_records[CONFIG]
    if read(config, PROTOCOL_KEY, int) != PROTOCOL:
        raise ValueError(
            f"the server speaks protocol {read(config, PROTOCOL_KEY, int)}, this node {PROTOCOL}: "
            f"install the same version of fauno-flwr on both"
        )
    consent = Consent.read(context.node_config)
    settings, task = compile_settings(read(config, SETTINGS, str), consent)
    agents = len(task.names)
    agent = context.node_config.get("partition-id")
    if isinstance(agent, bool) or not isinstance(agent, int) or not 0 <= agent < agents:
        raise ValueError(
            f"partition-id in the node config is {agent!r}: must be a whole number "
            f"from 0 to {agents - 1}, one for each node that learns"
        )
    if not consent.share_actor:
        require_own_actor(task.make_population(1), settings.federation.share)
    return settings, task, agent


def require_own_actor(population: AgentStack, share: str) -> None:
    """Check that no parameter of an agent's actor is among those that it shares.

    Whatever the algorithm: the shared parameters must not change when the actor does.

    Parameters
    ----------
    population : AgentStack
        An untrained agent; its actor is changed.
    share : str
        ``federation.share``.

    Raises
    ------
    ConfigError
        If the actor would leave the node.
    """
    before = population.get_shared(share)
    with torch.no_grad():
        for parameter in population.actor.parameters():
            parameter.add_(1.0)
    after = population.get_shared(share)
    if any(not np.array_equal(before[name], after[name]) for name in before):
        raise ConfigError(
            f"federation.share is {share!r}: with this algorithm it has the actor in it, which "
            f"stays here ({SHARE_ACTOR}=false in the node config)"
        )


def state_file(
    message: Message, context: Context, config: RunConfig, agent: int
) -> NodeState | None:
    """Return the file of the agent, if the owner of the node has set a folder.

    In Flower's simulation, server and nodes have the same owner: there, it is beside the
    checkpoints of the server.
    """
    folder = context.node_config.get(STATE_DIR)
    if folder is None and config.federation.checkpoints and in_simulation():
        folder = str(agents_folder(config))
    if folder is None:
        return None
    training = read(message.content.config_records[CONFIG], TRAINING, str)
    return NodeState(folder, agent, training)


def load_agent(context: Context, task: Task, file: NodeState | None) -> tuple[AgentStack, Progress]:
    """Return the agent and its progress; a new agent if none is saved."""
    population = task.make_population(1)
    saved: ConfigRecord | None = context.state.config_records.get(STATE)
    if saved is None and file is not None:
        saved = file.load()
    if saved is None:
        return population, Progress()
    population.load(read(saved, "parameters", bytes))
    residual = np.frombuffer(read(saved, "residual", bytes))
    return population, Progress(
        read(saved, "messages", int),
        read(saved, "version", int),
        residual if residual.size else None,
    )


def save_agent(
    context: Context, file: NodeState | None, population: AgentStack, progress: Progress
) -> None:
    """Save the agent to the file, if there is one, and to the context."""
    residual = progress.residual
    record = ConfigRecord(
        {
            "parameters": population.save(),
            "residual": b"" if residual is None else residual.tobytes(),
            "messages": progress.messages,
            "version": progress.version,
        }
    )
    if file is not None:
        file.save(record)
    context.state[STATE] = record


def message_rng(config: RunConfig, agent: int, messages: int) -> np.random.Generator:
    """Return the random stream of a message, whichever process handles it."""
    return np.random.default_rng([config.seed, agent, messages])


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Introduce this node in the handshake."""
    config, task, agent = read_message(message, context)
    # An unusable world or folder is reported before any training.
    try:
        task.check(agent, context.node_config)
        file = state_file(message, context, config, agent)
        population, progress = load_agent(context, task, file)
    except ValueError as error:
        raise ConfigError(f"{task.names[agent]}: {sentence(error)}") from error
    shared = population.get_shared(config.federation.share)
    nodes = int(context.node_config.get("num-partitions", 0))
    about = node_record(agent, nodes, shared, progress.messages)
    return Message(RecordDict({NODE: about}), reply_to=message)


@app.query("actor")
def share_actor(message: Message, context: Context) -> Message:
    """Send the actor for a joint evaluation, unless the owner of the node has refused."""
    if not Consent.read(context.node_config).share_actor:
        raise PermissionError(f"{SHARE_ACTOR}=false in the node config: the actor stays here")
    config, task, agent = read_message(message, context)
    population, _ = load_agent(context, task, state_file(message, context, config, agent))
    content = RecordDict(
        {NODE: ConfigRecord({AGENT: agent}), ACTOR: to_record(population.get_actor())}
    )
    return Message(content, reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train from the shared parameters of the message; reply with the update and its metrics."""
    started = time.perf_counter()
    config, task, agent = read_message(message, context)
    file = state_file(message, context, config, agent)
    population, progress = load_agent(context, task, file)
    rng = message_rng(config, agent, progress.messages)
    training = LocalTraining(config, population, 0, progress, message.content)
    training.begin()
    with task.open(agent, context.node_config, population, training.rollouts, rng) as experience:
        while not training.complete:
            rollout = experience.collect(population)
            (update,) = population.update([rollout], training.learning_rate, [rng])
            training.record(rollout, update)
        environment = experience.metrics()
    arrays = training.update_record()
    metrics = training.metrics(environment, time.perf_counter() - started)
    reply = Message(RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=message)
    save_agent(context, file, population, progress)
    return reply
