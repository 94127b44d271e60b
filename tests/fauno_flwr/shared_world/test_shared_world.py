"""A shared world: what each node collects, restarts and the end."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MessageType, RecordDict

from fauno_flwr import client_app
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.protocol import ARRAYS, CONFIG, METRICS, settings_record
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.learning.ppo import Population
from fauno_flwr.learning.recorder import Recorder
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.shared_world import host as host_module
from fauno_flwr.shared_world import wire
from fauno_flwr.shared_world.client import (
    UnreachableError,
)
from fauno_flwr.shared_world.host import SessionError
from fauno_flwr.shared_world.server import Credentials, WorldService
from fauno_flwr.shared_world.table import format_status
from fauno_flwr.tasks.edge import EdgeTask
from sim_env.policies.heuristics import POLICIES
from sim_env.world import World
from strategies.arrays import to_record
from strategies.grids import InMemoryGrid
from tests.fauno_flwr.shared_world.helpers import (
    AGENTS,
    SECRET,
    TICKS,
    TOKEN,
    actor_of,
    assert_equal,
    client,
    make_host,
    node,
    opinionated,
    serving,
    settings,
)

# ---- what is collected ---------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ppo", "ddqn"])
def test_a_trajectory_and_its_update_are_those_of_the_own_recorder(algorithm: str) -> None:
    """Same world, same actors: the service's decisions, and what is learned of them, are equal."""
    config = settings(f"agent.algorithm={algorithm}", "federation.share=model")
    host, stack = make_host(config), opinionated(config, keeps=False, agents=AGENTS)
    rng = np.random.default_rng(4)
    for agent in range(AGENTS):
        noise = {k: rng.normal(0, 0.3, v.shape) for k, v in stack.get_actor(agent).items()}
        stack.set_actor({k: v.astype(np.float32) for k, v in noise.items()}, agent)
    scenario = config.build_scenario()
    seed = np.random.SeedSequence([config.seed, 5, 0]).generate_state(1, np.uint64)
    ours = Recorder(World(scenario, [int(seed[0])]), AGENTS, 2000)
    nodes = np.full(scenario.topology.num_nodes, -1)
    nodes[scenario.agents] = np.arange(AGENTS)
    ours.roll(stack.weights(nodes, greedy=False), 500)

    sessions = [host.join(agent)["session"] for agent in range(AGENTS)]
    for agent, session in enumerate(sessions):
        host.deploy(agent, session, actor_of(stack.select([agent])))
    host.recorder.roll(host.weights, 500)
    for agent, session in enumerate(sessions):
        head, collected = host.collect(agent, session, TICKS)
        assert collected is not None
        data = wire.pack(head, wire.to_arrays(collected))
        received = wire.to_decisions(
            wire.unpack(data)[1], scenario.encoding.local, scenario.encoding.destinations
        )
        recorded = ours.take(agent, 500 - TICKS)
        assert len(recorded) > 20
        assert_equal(received, recorded)
        learned = []
        for batch in (recorded, received):
            one = stack.select([agent])
            one.update([batch], 1e-3, [np.random.default_rng(0)])
            learned.append(one.save())
        assert learned[0] == learned[1]


def test_a_node_gets_decisions_of_the_actor_that_it_deployed_only(service: WorldService) -> None:
    """An actor that keeps all tasks and one that keeps none take turns while the world runs."""
    config = settings()
    choices = {True: 0, False: 0}
    with node(service) as own:
        for turn in range(6):
            keeps = turn % 2 == 0
            taken = own.collect(opinionated(config, keeps))
            choice = taken.mask[:, 1:].any(axis=1)
            choices[keeps] += choice.sum()
            assert np.all((taken.action[choice] == 0) == keeps)
            assert taken.last.tolist() == [False] * (len(taken) - 1) + [True]
    # How many fall into one rollout is a matter of chance, and of the clock.
    assert min(choices.values()) > 10
    assert 0 < own.metrics()["finished-of-ended"] <= 1


def test_what_other_nodes_decide_is_not_in_a_trajectory(service: WorldService) -> None:
    config = settings()
    with node(service, 0) as keeper, node(service, 1) as sender:
        sender.collect(opinionated(config, keeps=False))
        taken = keeper.collect(opinionated(config, keeps=True))
        assert np.all(taken.action == 0)
        sent = sender.collect(opinionated(config, keeps=False))
        assert np.all(sent.action[sent.mask[:, 1:].any(axis=1)] > 0)
    status = service.host.call(service.host.status)
    assert status["table"]["served_for_others"] > 0
    assert "served by another node" in format_status(status)


def test_sessions_keep_nodes_apart() -> None:
    config = settings()
    host, actor = make_host(config), actor_of(opinionated(config, keeps=True))
    first, second = host.join(0)["session"], host.join(1)["session"]
    host.deploy(0, first, actor)
    host.recorder.roll(host.weights, TICKS)
    for session in (second, first[:-1] + "x", ""):
        with pytest.raises((PermissionError, SessionError)):
            host.collect(0, session, TICKS)
    with pytest.raises(ValueError, match="deploy one first"):
        host.collect(1, second, TICKS)
    # Whoever joins as agent 0 afterwards sees nothing of what the first node's actor decided.
    usurper = host.join(0)["session"]
    with pytest.raises(ValueError, match="deploy one first"):
        host.collect(0, usurper, TICKS)
    with pytest.raises(PermissionError, match="partition-id of its own"):
        host.collect(0, first, TICKS)
    host.deploy(0, usurper, actor)
    assert host.collect(0, usurper, 1)[1] is None
    host.recorder.roll(host.weights, 10)
    head, taken = host.collect(0, usurper, 10)
    assert head["left"] == 0
    assert taken is not None
    assert len(taken) <= 10


def test_nodes_without_an_actor_follow_the_heuristic() -> None:
    for heuristic in ("sed", "random", "threshold", "local"):
        config = settings(f"world.heuristic={heuristic}")
        host = make_host(config)
        host.recorder.roll(host.weights, 800)
        seed = np.random.SeedSequence([config.seed, 5, 0]).generate_state(1, np.uint64)
        alone = World(config.build_scenario(), [int(seed[0])])
        alone.run(POLICIES[heuristic], 800, np.random.default_rng(0))
        np.testing.assert_array_equal(host.world.state.total, alone.state.total)
        assert host.recorder._rows.used[0] == 0


def test_decisions_that_are_not_collected_are_dropped_and_counted() -> None:
    config = settings("world.keep=400")
    host, actor = make_host(config), actor_of(opinionated(config, keeps=True))
    session = host.join(0)["session"]
    host.deploy(0, session, actor)
    host.recorder.roll(host.weights, 400)
    room, born = host.recorder._rows.world.shape, host.world.state.entries[0]
    host.recorder.roll(host.weights, 8000)
    assert host.recorder._rows.world.shape[0] <= 4 * room[0]
    dropped = host.status()["nodes"][host.names[0]]["dropped"]
    assert 0 < dropped <= host.world.state.entries[0] - born + room[0]
    _, taken = host.collect(0, session, 400)
    assert taken is not None
    assert 0 < len(taken) <= 400
    decided = int(host.recorder.forgotten[0]) + len(taken)
    # All that the node ever decided was either dropped or collected, but for a stretch.
    assert host.world.state.entries[0] >= decided > 0
    with pytest.raises(ValueError, match=r"must be from 1 to world.keep = 400"):
        host.collect(0, session, 401)


# ---- restarts, and the end -----------------------------------------------------------------------


def test_a_node_joins_again_after_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    config = settings()
    with serving(config) as first:
        address = first.address
        own = node(first)
        own.collect(opinionated(config, keeps=True))
    before = first.host.life
    again = threading.Event()
    late = threading.Timer(1.0, again.set)
    late.start()
    taken: list[Decisions] = []
    actor = opinionated(config, keeps=False)
    waiting = threading.Thread(target=lambda: taken.append(own.collect(actor)))
    waiting.start()
    again.wait()
    with own, serving(config, address) as second:
        waiting.join()
        assert second.host.life != before
        assert second.host.members[0].joined == 1
    choice = taken[0].mask[:, 1:].any(axis=1)
    assert np.all(taken[0].action[choice] > 0)
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "does not answer" in line]) == 1
    assert len([line for line in lines if "has restarted" in line]) == 1


def test_patience_ends_in_one_sentence() -> None:
    config = settings("world.patience=0.5")
    with serving(config) as service:
        own = node(service, 0, "world.patience=0.5")
    with own, pytest.raises(UnreachableError, match=r"has not answered for 0.5 s"):
        own.collect(opinionated(config, keeps=True))


def test_a_world_that_is_too_old_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks are 32-bit integers: nodes join the next world by themselves."""
    monkeypatch.setattr(host_module, "LONGEST_LIFE", 3000)
    config = settings()
    with serving(config, pace=4000.0) as service, node(service) as own:
        for _ in range(5):
            own.collect(opinionated(config, keeps=True))
            service.host.call(lambda: None)
        end = time.monotonic() + 60
        while service.host._lives < 3 and time.monotonic() < end:
            time.sleep(0.01)
        assert service.host._lives >= 3
        own.collect(opinionated(config, keeps=True))
        assert service.host.call(lambda: service.host.world.now) < 3000 + host_module.STRETCH


def test_nothing_is_left_when_a_service_ends() -> None:
    config = settings()
    with serving(config):  # gRPC starts threads of its own with its first server, and keeps them
        pass
    before = set(threading.enumerate())
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with serving(config) as service, node(service) as own:
            own.collect(opinionated(config, keeps=True))
    end = time.monotonic() + 30  # gRPC's own of a server that has stopped take a moment
    while (left := set(threading.enumerate()) - before) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == set()
    assert len(os.listdir("/proc/self/fd")) <= files + 2
    with pytest.raises(RuntimeError, match="has stopped"):
        service.host.call(service.host.status)


def test_a_world_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(settings()) as service:

        def fail(*_: object) -> None:
            raise MemoryError("no room")

        monkeypatch.setattr(service.host.recorder, "roll", fail)
        with pytest.raises(MemoryError, match="no room"):
            service.host.wait(60)
        with client(service, 1.0) as own, pytest.raises(UnreachableError, match="has stopped"):
            own.call(wire.STATUS, {})


def test_a_world_keeps_its_pace() -> None:
    """It ticks no faster than its pace, and also without any nodes."""
    started = time.monotonic()
    with serving(settings(), pace=500.0) as service:
        end = time.monotonic() + 60
        while (now := service.host.call(lambda: service.host.world.now)) < 200:
            assert now <= 500 * (time.monotonic() - started) + host_module.STRETCH
            assert time.monotonic() < end
            time.sleep(0.02)


# ---- the app -------------------------------------------------------------------------------------


TINY = ["federation.versions=3", "federation.collect_actors=true", "federation.wait_for_nodes=2"]
TINY += ["evaluation.worlds=2", "evaluation.warmup=20", "evaluation.window=60"]


def test_a_federation_trains_in_one_world(service: WorldService, tmp_path: Path) -> None:
    """Through the client app: three nodes, one world, the strategy and the results unchanged."""
    config = settings(*TINY, address=service.address)
    grid = InMemoryGrid(client_app.app, AGENTS)
    rows = Run(
        grid, config, EdgeTask(config, config.build_scenario()), RunDirectory(tmp_path / "run")
    ).execute()
    assert rows[0]["policy"] == "fauno"
    status = service.host.call(service.host.status)
    assert all(each["deployed"] >= 2 for each in status["nodes"].values())
    assert all(each["collected"] > 0 for each in status["nodes"].values())
    served = [len(row) for row in status["table"]["exchange"].values()]
    assert max(served) > 1


def train(config: RunConfig) -> Message:
    """Reply of agent 0 to a train message."""
    grid = InMemoryGrid(client_app.app, AGENTS)
    record = settings_record(config.to_yaml())
    record["base-version"] = 0
    critic = Population(1, config.agent, config.seed).get_critic()
    content = RecordDict({ARRAYS: to_record(critic), CONFIG: record})
    (reply,) = grid.send_and_receive([Message(content, 1000, MessageType.TRAIN, ttl=60)])
    return reply


def test_a_reply_from_a_shared_world_has_what_the_strategy_reads(service: WorldService) -> None:
    config = settings(*TINY, address=service.address)
    metrics = train(config).content.metric_records[METRICS]
    assert 0 < metrics[STEPS] <= TICKS * config.training.rollouts
    assert 0 < metrics["finished-of-ended"] <= 1
    assert metrics["response"] > 0


def test_a_node_with_a_wrong_token_reports_a_failure() -> None:
    with serving(settings(), credentials=Credentials(SECRET)) as service:
        reply = train(settings(*TINY, address=service.address))
    assert reply.has_error()
    assert "token is missing or wrong" in reply.error.reason
    assert TOKEN not in reply.error.reason
