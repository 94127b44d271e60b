"""The nodes' end of the Flower app, on the in-memory grid: what travels, what is kept."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fauno_flwr import client_app
from fauno_flwr.config import rules
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.protocol import (
    ACTOR,
    ARRAYS,
    CONFIG,
    METRICS,
    QUERY,
    QUERY_ACTOR,
    settings_record,
)
from fauno_flwr.learning.agents import get
from fauno_flwr.learning.ppo import Population
from strategies.arrays import Layout, to_arrays, to_record
from strategies.flower_internals import message_to_bytes
from strategies.grids import InMemoryGrid
from tests.fauno_flwr.tiny import AGENTS, TINY, ask, train_message


def test_only_the_critic_is_in_a_training_reply(grid: InMemoryGrid, config: RunConfig) -> None:
    """Open the message: it has the critic of actions, and no array of the actor."""
    reply = ask(grid, train_message(grid, config, 0, 0))
    fresh = Population(1, config.agent, config.seed)
    fresh.load(grid.contexts[1000].state.config_records["agent"]["parameters"])
    assert set(reply.content) == {ARRAYS, METRICS}
    assert not reply.content.config_records
    sent = to_arrays(reply.content.array_records[ARRAYS])
    assert sent.keys() == fresh.get_critic().keys()
    for name, array in fresh.get_critic().items():
        np.testing.assert_array_equal(sent[name], array)
    content = message_to_bytes(reply)
    assert sent["weights.0"].tobytes() in content
    for array in get(fresh.actor, 0).values():
        assert array.any() or array.size == 1
        assert array.size == 1 or array.tobytes() not in content
    for value in reply.content.metric_records[METRICS].values():
        assert isinstance(value, int | float)


def test_the_agent_lives_in_the_state_of_the_node(grid: InMemoryGrid, config: RunConfig) -> None:
    first = ask(grid, train_message(grid, config, 0, 0)).content.metric_records[METRICS]
    second = ask(grid, train_message(grid, config, 0, 0)).content.metric_records[METRICS]
    other = ask(grid, train_message(grid, config, 1, 0)).content.metric_records[METRICS]
    assert (first["messages"], second["messages"], other["messages"]) == (1, 2, 1)
    assert first["reward"] != second["reward"]


def test_a_node_keeps_its_critic_until_there_is_a_newer_one(config: RunConfig) -> None:
    """Three messages of one version go on from each other; a new version is taken over."""
    frozen = load_config("ether2", [*TINY, "agent.learning_rate=1e-30"])
    grid = InMemoryGrid(client_app.app, AGENTS)
    critic = {k: v + 1 for k, v in Population(1, config.agent, 1).get_critic().items()}

    def report(version: int, settings: RunConfig, arrays: dict) -> dict:
        message = train_message(grid, settings, 0, version)
        message.content[ARRAYS] = to_record(arrays)
        return to_arrays(ask(grid, message).content.array_records[ARRAYS])

    learned = report(0, config, Population(1, config.agent, 1).get_critic())
    kept = report(0, frozen, critic)
    taken = report(1, frozen, critic)
    for name in critic:
        np.testing.assert_allclose(kept[name], learned[name])
        np.testing.assert_allclose(taken[name], critic[name])


@pytest.mark.parametrize("compression", ["top-k", "8-bit"])
def test_what_compression_leaves_out_is_kept_by_the_node(compression: str) -> None:
    """What the server has read and what the node keeps are all that the critic has learned."""
    config = load_config("ether2", [*TINY, f"federation.compression={compression}"])
    grid = InMemoryGrid(client_app.app, AGENTS)
    method = rules.build(rules.COMPRESSION, config.federation.compression)
    agent = Population(1, config.agent, config.seed)
    base, layout = agent.get_critic(), Layout(agent.get_critic())
    learned, read = np.zeros(layout.size), np.zeros(layout.size)
    for version in (0, 1, 1):
        reply = ask(grid, train_message(grid, config, 0, version))
        read += method.decode(to_arrays(reply.content.array_records[ARRAYS]), layout)
        state = grid.contexts[1000].state.config_records["agent"]
        agent.load(state["parameters"])
        learned += layout.flatten(agent.get_critic()).astype(float) - layout.flatten(base)
    residual = np.frombuffer(state["residual"])
    assert np.any(residual)
    np.testing.assert_allclose(read + residual, learned, atol=1e-9)


def test_the_same_seed_gives_the_same_reply(config: RunConfig) -> None:
    def once() -> dict[str, np.ndarray]:
        grid = InMemoryGrid(client_app.app, AGENTS)
        ask(grid, train_message(grid, config, 5, 0))
        reply = ask(grid, train_message(grid, config, 5, 1))
        return to_arrays(reply.content.array_records[ARRAYS])

    first, second = once(), once()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def query(grid: InMemoryGrid, config: RunConfig, kind: str, **changes: int) -> Message:
    record = ConfigRecord({**settings_record(config.to_yaml()), **changes})
    return ask(grid, Message(RecordDict({CONFIG: record}), 1000, kind, ttl=60))


def test_an_owner_can_keep_the_actor(grid: InMemoryGrid, config: RunConfig) -> None:
    assert ACTOR in query(grid, config, QUERY_ACTOR).content
    grid.contexts[1000].node_config["share-actor"] = False
    reply = query(grid, config, QUERY_ACTOR)
    assert reply.has_error()
    assert "share-actor=false" in reply.error.reason


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda grid: grid.contexts[1000].node_config.pop("partition-id"), "partition-id"),
        (lambda grid: grid.contexts[1000].node_config.update({"partition-id": 6}), "from 0 to 5"),
    ],
)
def test_a_node_that_is_no_agent_says_so(
    grid: InMemoryGrid, config: RunConfig, change: Callable, sentence: str
) -> None:
    grid.faults = lambda i, k: None
    grid.duration = lambda i, k: 1.0
    message = Message(RecordDict({CONFIG: settings_record(config.to_yaml())}), 1000, QUERY, ttl=60)
    context = grid.contexts[1000]
    change(grid)
    reply = client_app.app(message, context)
    assert reply.has_error()
    assert sentence in reply.error.reason


def test_another_protocol_is_refused(grid: InMemoryGrid, config: RunConfig) -> None:
    reply = query(grid, config, QUERY, protocol=99)
    assert reply.has_error()
    assert "protocol 99" in reply.error.reason


def test_a_node_answers_an_exception_with_one_line_and_logs_its_traceback(
    grid: InMemoryGrid, config: RunConfig, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    def unplugged(*_: object) -> None:
        raise RuntimeError("sensor 7\nis unplugged")

    message = train_message(grid, config, 0, 0)
    monkeypatch.setattr(client_app, "read_message", unplugged)
    reply = ask(grid, message)
    assert reply.error.reason == "RuntimeError: sensor 7 is unplugged"
    assert "in unplugged" in caplog.text


def test_the_learning_rate_falls_with_the_versions(config: RunConfig) -> None:
    """At the last version it is 0: nothing changes any more."""
    grid = InMemoryGrid(client_app.app, AGENTS)
    message = train_message(grid, config, 0, config.federation.versions)
    sent = to_arrays(message.content.array_records[ARRAYS])
    reply = to_arrays(ask(grid, message).content.array_records[ARRAYS])
    assert all(np.array_equal(sent[name], reply[name]) for name in sent)


def test_a_node_starts_without_what_only_the_server_needs() -> None:
    """In a deployment every message is a new process: what it imports is paid each time."""
    script = "import sys, fauno_flwr.client_app as c; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"matplotlib", "networkx", "scipy.stats", "scipy.spatial", "torch._dynamo"}
