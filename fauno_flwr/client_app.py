"""A node: one Flower client that trains its own agent and reports what the federation shares.

A message may land in another process than the one before, and in a deployment in a new one: the
agent lives in ``context.state``, written once and last, and the worlds are built anew from (seed,
agent, number of the message). A SuperNode that ends forgets that state: with ``state-dir`` in the
node config the agent is in a file of the node's own as well, and goes on from there.
"""

import time
from functools import lru_cache

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fauno_flwr.config.loading import from_yaml
from fauno_flwr.config.settings import NOTHING, RunConfig
from fauno_flwr.federation.logs import set_up_logging
from fauno_flwr.federation.node_state import STATE_DIR, NodeState
from fauno_flwr.federation.protocol import (
    ACTOR,
    ARRAYS,
    CONFIG,
    METRICS,
    NODE,
    PROTOCOL,
    PROTOCOL_KEY,
    ROLLOUTS,
    ROUND,
    SETTINGS,
    TRAINING,
    read,
    report,
    schema,
)
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.metrics import train_metrics
from fauno_flwr.tasks.registry import Task, make_task
from strategies.arrays import to_arrays, to_record

torch.set_num_threads(1)
set_up_logging()
STATE = "agent"
app = ClientApp()


@lru_cache(maxsize=4)
def compile_settings(settings: str) -> tuple[RunConfig, Task]:
    """Settings and task of a message; a cache only, rebuilt wherever it is missing."""
    config = from_yaml(settings)
    return config, make_task(config)


def read_message(message: Message, context: Context) -> tuple[RunConfig, Task, int]:
    """Settings, task, and which of its agents this node is.

    Raises
    ------
    ValueError
        If the server speaks another protocol, or the node config does not name an agent.
    """
    config = message.content.config_records[CONFIG]
    if read(config, PROTOCOL_KEY, int) != PROTOCOL:
        raise ValueError(
            f"the server speaks protocol {read(config, PROTOCOL_KEY, int)}, this node {PROTOCOL}: "
            f"install the same version of fauno-flwr on both"
        )
    settings, task = compile_settings(read(config, SETTINGS, str))
    agents = len(task.names)
    agent = context.node_config.get("partition-id")
    if not isinstance(agent, int) or not 0 <= agent < agents:
        raise ValueError(
            f"partition-id in the node config is {agent!r}: must be a whole number "
            f"from 0 to {agents - 1}, one for each node that learns"
        )
    return settings, task, agent


def own_file(message: Message, context: Context, agent: int) -> NodeState | None:
    """Where the node keeps its agent, if its owner named a folder."""
    if STATE_DIR not in context.node_config:
        return None
    training = read(message.content.config_records[CONFIG], TRAINING, str)
    return NodeState(context.node_config[STATE_DIR], agent, training)


def load_agent(
    context: Context, task: Task, file: NodeState | None
) -> tuple[AgentStack, int, int, np.ndarray | None]:
    """The agent, its number of messages, version of its critic and residual; new ones at first."""
    population = task.make_population(1)
    saved: ConfigRecord | None = context.state.config_records.get(STATE)
    if saved is None and file is not None:
        saved = file.load()
    if saved is None:
        return population, 0, -1, None
    population.load(read(saved, "parameters", bytes))
    left_out = np.frombuffer(read(saved, "residual", bytes))
    residual = left_out if left_out.size else None
    return population, read(saved, "messages", int), read(saved, "version", int), residual


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Say who this node is, before any training."""
    config, task, agent = read_message(message, context)
    own_file(message, context, agent)  # a folder that cannot be is named before any training
    population = task.make_population(1)
    critic = population.get_shared(config.federation.share)
    about = ConfigRecord(
        {
            "agent": agent,
            "nodes": int(context.node_config.get("num-partitions", 0)),
            "critic": schema(critic),
        }
    )
    return Message(RecordDict({NODE: about}), reply_to=message)


@app.query("actor")
def share_actor(message: Message, context: Context) -> Message:
    """Hand over the actor, for a joint evaluation, unless the owner of the node said no."""
    if context.node_config.get("share-actor", True) is not True:
        raise PermissionError("share-actor=false in the node config: the actor stays here")
    _, task, agent = read_message(message, context)
    file = own_file(message, context, agent)
    population, *_ = load_agent(context, task, file)
    content = RecordDict(
        {
            NODE: ConfigRecord({"agent": agent}),
            ACTOR: to_record(population.get_actor()),
        }
    )
    return Message(content, reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Take the newest critic, train for some rollouts, report the critic and how it went."""
    started = time.perf_counter()
    config, task, agent = read_message(message, context)
    file = own_file(message, context, agent)
    population, messages, version, residual = load_agent(context, task, file)
    told_by_server = message.content.config_records[CONFIG]
    sent_version = read(told_by_server, ROUND, int)
    share = config.federation.share
    base = to_arrays(message.content.array_records[ARRAYS])
    if sent_version != version and share != NOTHING:
        # Asked to go on from a version it already has, the node keeps what it learned since.
        population.set_shared(base)

    rollouts = config.training.rollouts
    if ROLLOUTS in told_by_server:
        rollouts = read(told_by_server, ROLLOUTS, int)
    rng = np.random.default_rng([config.seed, agent, messages])
    rate = config.agent.learning_rate * (1 - sent_version / config.federation.versions)
    told, rewards = [], []
    with task.open(agent, context.node_config, population, rollouts, rng) as experience:
        for _ in range(rollouts):
            decisions = experience.collect(population)
            told.append(population.update([decisions], rate, [rng])[0])
            rewards.append(float(decisions.reward.mean()) if len(decisions) else 0.0)
        facts = experience.facts()

    seconds = time.perf_counter() - started
    metrics = train_metrics(told, rewards, messages + 1, facts, seconds)
    compression = config.federation.build_compression()
    arrays, residual = report(compression, population.get_shared(share), base, residual)
    content = RecordDict({ARRAYS: arrays, METRICS: metrics})
    reply = Message(content, reply_to=message)
    learned = ConfigRecord(
        {
            "parameters": population.save(),
            "residual": b"" if residual is None else residual.tobytes(),
            "messages": messages + 1,
            "version": sent_version,
        }
    )
    if file is not None:
        file.save(learned)
    context.state[STATE] = learned
    return reply
