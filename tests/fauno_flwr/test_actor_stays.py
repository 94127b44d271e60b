"""``share-actor=false``: whatever the server sets, no byte of the actor leaves the node."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fauno_flwr import client_app
from fauno_flwr.config.consent import Consent
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.protocol import ARRAYS, BASE_VERSION, CONFIG, settings_record
from fauno_flwr.learning.agents import AgentStack, get
from fauno_flwr.shared_world.host import WorldHost
from fauno_flwr.shared_world.server import Credentials, WorldService
from fauno_flwr.tasks.registry import make_task
from strategies.arrays import to_record
from strategies.flower_internals import message_to_bytes, set_identity, set_metadata

NETWORK = ["topology=full20", "topology.nodes=3"]
SMALL = ["training.worlds=2", "training.ticks=40", "training.rollouts=1"]
KINDS = ("query", "query.actor", "train", "train", "query.actor", "evaluate", "train.actor")
SHARES = ("critic", "model", "nothing")
AGENTS = {"action": [], "state": ["agent=state"], "ddqn": ["agent=ddqn"]}
WORLDS = ("own", "gym", "shared")
SETTINGS = [
    *product(SHARES, AGENTS, WORLDS, ["none"]),
    *product(SHARES, ["state"], ["own"], ["8-bit", "top-k"]),
]
# ddqn has no critic that it could share.
SETTINGS = [each for each in SETTINGS if each[:2] != ("critic", "ddqn")]


class Wire:
    """Connections to a service, by way of a proxy that keeps all that is sent to it."""

    def __init__(self, target: str) -> None:
        self.sent, self._target = bytearray(), target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            host, port = self._target.split(":")
            server = socket.create_connection((host, int(port)))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        outwards = sink.getpeername()[1] == int(self._target.split(":")[1])
        try:
            while data := source.recv(65536):
                if outwards:
                    self.sent += data
                sink.sendall(data)
        except OSError:
            pass
        finally:
            sink.close()

    def close(self) -> None:
        self._listener.close()


@contextmanager
def world_service() -> Iterator[Wire]:
    config = load_config("ether2", [*NETWORK, "world=shared", "world.address=127.0.0.1:1"])
    host = WorldHost(config, config.build_scenario(), 0.0)
    with WorldService(host, "127.0.0.1:0", Credentials()) as service:
        wire = Wire(service.address)
        try:
            yield wire
        finally:
            wire.close()


def settings(share: str, agent: str, world: str, compression: str, wire: Wire) -> RunConfig:
    """Return settings of a server that wants all."""
    where = {
        "own": NETWORK,
        "shared": [*NETWORK, "world=shared", f"world.address={wire.address}", "world.patience=1"],
        "gym": ["world=gym", "world.env_id=CartPole-v1", "world.nodes=3"],
    }
    overrides = [
        *where[world],
        *AGENTS[agent],
        *SMALL,
        f"federation.share={share}",
        f"federation.compression={compression}",
        "federation.collect_actors=true",
    ]
    return load_config("ether2", overrides)


def exchange(config: RunConfig, **owner: bool) -> tuple[bytes, list[AgentStack]]:
    """Send every kind of message to one node; return all that it answers, and its agents."""
    set_identity(run_id=1, node_id=1, task_id=1)
    context = Context(1, 1000, {"partition-id": 0, **owner}, RecordDict(), {})
    task = make_task(config)
    shared = task.make_population(1).get_shared(config.federation.share)
    agents, answers = [task.make_population(1)], b""
    for version, kind in enumerate(KINDS):
        record = ConfigRecord({**settings_record(config.to_yaml()), BASE_VERSION: version})
        content = RecordDict({ARRAYS: to_record(shared), CONFIG: record})
        message = Message(content, 1000, kind, ttl=60)
        set_metadata(message, message_id=f"message-{version}")
        try:
            reply = client_app.app(message, context)
        except ValueError:  # of Flower: there is no such kind of message
            continue
        answers += message_to_bytes(reply)
        agents.append(task.make_population(1))
        if "agent" in context.state.config_records:
            agents[-1].load(context.state.config_records["agent"]["parameters"])
    return answers, agents


def traces(agents: list[AgentStack]) -> set[bytes]:
    """Four numbers in a row, wherever they stand in the actors, along either axis."""
    found = set()
    for agent in agents:
        for array in get(agent.actor, 0).values():
            for turned in (array, array.T, -array, array.astype(np.float64)):
                flat = np.ascontiguousarray(turned).ravel()
                for start in range(0, flat.size - 3, 4):
                    four = flat[start : start + 4]
                    if np.unique(four).size == 4:  # not those that anything has, such as zeros
                        found.add(four.tobytes())
    return found


def count(sent: bytes, agents: list[AgentStack]) -> int:
    return sum(trace in sent for trace in traces(agents))


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with world_service() as made:
        yield made


@pytest.mark.parametrize("wanted", SETTINGS, ids="-".join)
def test_no_byte_of_the_actor_leaves(wanted: tuple[str, str, str, str], wire: Wire) -> None:
    config = settings(*wanted, wire)
    wire.sent.clear()
    answers, agents = exchange(config, **{"share-actor": False})
    assert answers
    assert count(answers, agents) == 0
    assert not wire.sent  # nothing at all


@pytest.mark.parametrize(
    ("wanted", "connects"),
    [
        (("model", "state", "own", "none"), False),
        (("critic", "action", "gym", "none"), False),
        (("nothing", "ddqn", "own", "none"), False),
        (("critic", "action", "shared", "none"), True),
    ],
    ids=["model", "query", "ddqn", "shared"],
)
def test_the_search_finds_an_actor_that_may_leave(
    wanted: tuple[str, str, str, str], connects: bool, wire: Wire
) -> None:
    wire.sent.clear()
    answers, agents = exchange(settings(*wanted, wire))
    assert count(answers, agents) > 20
    assert (count(bytes(wire.sent), agents) > 20) == connects


def test_it_leaves_without_the_guards(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each guard by itself: the settings, the parameters of the algorithm, the world."""
    off = {"share-actor": False}
    model = settings("model", "state", "own", "none", wire)
    ddqn = settings("nothing", "ddqn", "own", "none", wire)
    monkeypatch.setattr(client_app, "require_own_actor", lambda *_: None)
    assert count(*exchange(model, **off)) == 0  # the settings are refused
    assert count(*exchange(ddqn, **off)) > 20
    monkeypatch.setattr(Consent, "require", lambda *_: None)
    client_app.compile_settings.cache_clear()
    assert count(*exchange(model, **off)) > 20
    shared = settings("critic", "action", "shared", "none", wire)
    wire.sent.clear()
    exchange(shared, **off)
    assert not wire.sent  # refused once more where the connection would be made
    monkeypatch.setattr(Consent, "require_world", lambda *_: None)
    _, agents = exchange(shared, **off)
    assert count(bytes(wire.sent), agents) > 20
    client_app.compile_settings.cache_clear()
