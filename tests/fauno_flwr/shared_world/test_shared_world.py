"""A shared world: what each node collects, what is refused, restarts and the end."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import Message, MessageType, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fauno_flwr import client_app
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.deployment.keys import write_certificates
from fauno_flwr.federation.protocol import ARRAYS, CONFIG, METRICS, settings_record
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.learning.ppo import Population
from fauno_flwr.learning.recorder import Recorder
from fauno_flwr.learning.registry import make_population
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.shared_world import host as host_module
from fauno_flwr.shared_world import wire
from fauno_flwr.shared_world.client import (
    Access,
    RefusedError,
    RestartedError,
    SharedWorld,
    UnreachableError,
    WorldClient,
)
from fauno_flwr.shared_world.host import SessionError, WorldHost
from fauno_flwr.shared_world.server import Credentials, WorldService
from fauno_flwr.shared_world.table import format_status
from fauno_flwr.shared_world.tokens import token_of
from fauno_flwr.tasks.edge import EdgeTask
from sim_env.policies.heuristics import POLICIES
from sim_env.world import World
from strategies.arrays import to_record
from strategies.grids import InMemoryGrid

AGENTS = 3
SMALL = [
    "topology=full20",
    f"topology.nodes={AGENTS}",
    "workload.rate=10",
    "world=shared",
    "world.keep=2000",
    "world.patience=20",
    "training.worlds=2",
    "training.ticks=150",
]
TICKS = 300  # of a rollout
SECRET = "a-secret-that-nobody-guesses"
TOKEN = token_of(SECRET, "0")
IS_SELF = 6  # feature of a destination under the default observation


def settings(*overrides: str, address: str = "127.0.0.1:1") -> RunConfig:
    return load_config("ether2", [*SMALL, f"world.address={address}", *overrides])


def make_host(config: RunConfig, pace: float = 0.0) -> WorldHost:
    return WorldHost(config, config.build_scenario(), pace)


@contextlib.contextmanager
def serving(
    config: RunConfig,
    address: str = "127.0.0.1:0",
    pace: float = 0.0,
    credentials: Credentials = Credentials(),  # noqa: B008
) -> Iterator[WorldService]:
    with WorldService(make_host(config, pace), address, credentials) as service:
        yield service


@pytest.fixture
def service() -> Iterator[WorldService]:
    with serving(settings()) as service:
        yield service


def actor_of(population: AgentStack) -> wire.Arrays:
    weights = population.weights(np.zeros(0, np.int32), greedy=False)._asdict()
    return {
        name: value[0]
        for name, value in weights.items()
        if isinstance(value, np.ndarray) and name != "agent_of_node"
    }


def opinionated(config: RunConfig, keeps: bool, agents: int = 1) -> AgentStack:
    """Make agents that keep every task, or offload every one they can."""
    population = make_population(agents, config, config.build_scenario())
    local = population.encoding.local
    for agent in range(agents):
        actor = {name: np.zeros_like(array) for name, array in population.get_actor().items()}
        of = "actor." if len(population.acting) > 1 else ""
        actor[f"{of}weights.0"][local + IS_SELF, 0] = 5.0
        actor[f"{of}weights.1"][0, 0] = 5.0
        actor[f"{of}weights.2"][0, 0] = 100.0 if keeps else -100.0
        population.set_actor(actor, agent)
    return population


def node(service: WorldService, agent: int = 0, *overrides: str, **access: str) -> SharedWorld:
    config = settings(*overrides, address=service.address)
    return SharedWorld(config, config.build_scenario(), agent, Access(service.address, **access))


def client(service: WorldService, patience: float = 5.0) -> WorldClient:
    return WorldClient(Access(service.address), patience)


def hello(config: RunConfig, agent: int = 0) -> wire.Head:
    return {
        "agent": agent,
        "protocol": wire.PROTOCOL,
        "fingerprint": wire.fingerprint(config, config.build_scenario()),
        "settings": wire.world_settings(config),
    }


def assert_equal(one: Decisions, two: Decisions) -> None:
    for name, column in vars(one).items():
        np.testing.assert_array_equal(column, getattr(two, name), err_msg=name)


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


# ---- what is refused -----------------------------------------------------------------------------


def test_a_wrong_token_gets_nowhere() -> None:
    config = settings()
    with serving(config, credentials=Credentials(SECRET)) as service:
        for token in ("", "wrong", TOKEN + "x", TOKEN[:-1]):
            with WorldClient(Access(service.address, token), 5.0) as stranger:
                for method in (wire.JOIN, wire.DEPLOY, wire.COLLECT, wire.STATUS):
                    with pytest.raises(RefusedError, match="token is missing or wrong") as refused:
                        stranger.call(method, hello(config))
                    assert TOKEN not in str(refused.value)
        with node(service, token=TOKEN) as own:
            assert len(own.collect(opinionated(config, keeps=True))) > 0


def test_different_settings_are_one_sentence(service: WorldService) -> None:
    with (
        node(service, 0, "workload.rate=7", "agent.hidden=16") as own,
        pytest.raises(RefusedError, match=r"agent\.hidden is 16 in the run, 32 in the") as no,
    ):
        own.collect(opinionated(settings(), keeps=True))
    assert "workload.rate is 7.0 in the run, 10.0 in the world" in str(no.value)


def test_a_node_that_cannot_join_says_so_before_any_training(service: WorldService) -> None:
    def task(**settings_of_world: str) -> EdgeTask:
        changed = [f"{key}={value}" for key, value in settings_of_world.items()]
        config = settings(f"world.address={service.address}", *changed)
        return EdgeTask(config, config.build_scenario())

    task().check(0, {})
    with pytest.raises(RefusedError, match=r"the world have different settings: workload\.rate"):
        task(**{"workload.rate": "7"}).check(0, {})
    with pytest.raises(ValueError, match="must be an absolute path"):
        task().check(0, {"world-token-file": "token"})
    task(**{"world.address": "127.0.0.1:9"}).check(0, {})  # it may be started later


def test_other_files_behind_the_same_settings_are_found_out(service: WorldService) -> None:
    claims = {**hello(settings()), "fingerprint": "0" * 64}
    with client(service) as own, pytest.raises(RefusedError, match="the files that they name"):
        own.call(wire.JOIN, claims)


def test_the_order_of_patterns_belongs_to_the_fingerprint() -> None:
    """The last one that matches a node applies, and settings are compared by key."""
    for key in (
        "workload.deadline_factors",
        "physics.stated_speed_factors",
        "reward.delay_factors",
        "reward.loss_factors",
    ):
        one, two = (
            hello(settings(f"{key}={some}"))["fingerprint"]
            for some in ("{rpi: 2, rpi_0: 3}", "{rpi_0: 3, rpi: 2}")
        )
        assert one != two


def broken_actors(actor: wire.Arrays) -> dict[str, wire.Arrays]:
    bias = actor["bias"]
    return {
        "missing": {name: array for name, array in actor.items() if name != "bias"},
        "more": {**actor, "another": bias},
        "shape": {**actor, "bias": bias[:-1]},
        "type": {**actor, "bias": bias.astype(np.float64)},
        "finite": {**actor, "bias": np.full_like(bias, np.nan)},
        "infinite": {**actor, "bias": np.full_like(bias, np.inf)},
    }


@pytest.mark.parametrize("fault", ["missing", "more", "shape", "type", "finite", "infinite"])
def test_a_broken_actor_is_refused_and_the_old_one_stays(service: WorldService, fault: str) -> None:
    config = settings()
    actor = actor_of(opinionated(config, keeps=True))
    with client(service) as own:
        me = {"agent": 0, "session": own.call(wire.JOIN, hello(config))[0]["session"]}
        own.call(wire.DEPLOY, me, actor)
        deployed = {name: getattr(service.host.weights, name)[0].copy() for name in actor}
        with pytest.raises(RefusedError, match="an actor"):
            own.call(wire.DEPLOY, me, broken_actors(actor)[fault])
        for name, array in deployed.items():
            np.testing.assert_array_equal(getattr(service.host.weights, name)[0], array)
        assert not own.call(wire.STATUS, {})[0]["nodes"][service.host.names[1]]["deployed"]


BAD_HEADS = [
    {},
    {"agent": -1, "session": "", "ticks": 5},
    {"agent": 10**30, "session": "x", "ticks": 5},
    {"agent": True, "session": "x", "ticks": 5},
    {"agent": "0", "session": "x", "ticks": 5},
    {"agent": 0, "session": 5, "ticks": 5},
    {"agent": 0, "session": "ä.\0", "ticks": -1},
]


def test_bad_requests_do_not_stop_the_world(service: WorldService) -> None:
    config = settings()
    before = service.host.call(lambda: service.host.world.now)
    with grpc.insecure_channel(service.address) as channel, client(service) as own:
        for method in (wire.JOIN, wire.DEPLOY, wire.COLLECT):
            stub = channel.unary_unary(f"/{wire.SERVICE}/{method}")
            for raw in (b"", b"\0", b"\xff" * 64, b"\0\0\0\2{}junk", b"\0\0\0\1[" * 500):
                with pytest.raises(grpc.RpcError) as refused:
                    stub(raw, timeout=10)
                assert refused.value.code() in (
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.FAILED_PRECONDITION,
                )
            for head in BAD_HEADS:
                said = ""
                try:
                    own.call(method, {**hello(config), **head} if head else {})
                except (RefusedError, RestartedError) as error:
                    said = str(error)
                assert "error of the service" not in said
                assert said or method == wire.JOIN
        with pytest.raises(grpc.RpcError) as large:
            channel.unary_unary(f"/{wire.SERVICE}/{wire.DEPLOY}")(bytes(2**24), timeout=10)
        assert large.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with node(service) as good:
        assert len(good.collect(opinionated(config, keeps=True))) > 0
    assert service.host.call(lambda: service.host.world.now) > before
    assert service.host.call(service.host.world.audit) == dict.fromkeys(
        service.host.world.audit(), True
    )


@given(st.binary(max_size=80), st.integers(0, 60))
def test_no_bytes_break_the_reader(junk: bytes, cut: int) -> None:
    whole = wire.pack({"a": 1}, {"x": np.ones((2, 3), np.float32)})
    for data in (junk, whole[:cut], whole[:cut] + junk, b"\0\0\0\2{}" + junk):
        with contextlib.suppress(ValueError):
            head, arrays = wire.unpack(data)
            assert isinstance(head, dict)
            assert all(isinstance(array, np.ndarray) for array in arrays.values())


def test_a_port_is_not_shared(service: WorldService) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        WorldService(make_host(settings()), service.address, Credentials())


def test_a_token_does_not_travel_in_plain_text_between_machines() -> None:
    with pytest.raises(ConfigError, match="a token needs TLS"):
        WorldService(make_host(settings()), "0.0.0.0:0", Credentials(SECRET))


def test_a_secret_is_long_enough(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short")
    with pytest.raises(ConfigError, match="holds 5 characters: a secret must have at least 16"):
        Credentials.read(tmp_path / "secret", None)


def test_tls_is_spoken_to_those_who_trust_it(tmp_path: Path) -> None:
    made = write_certificates(["localhost", "127.0.0.1"], tmp_path / "tls")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    credentials = Credentials.read(tmp_path / "secret", tmp_path / "tls")
    config = settings()
    with serving(config, credentials=credentials) as service:
        files = str(tmp_path / "token"), str(made.authority)
        config = settings(address=service.address)
        access = Access.read(service.address, *files)
        with SharedWorld(config, config.build_scenario(), 0, access) as own:
            assert len(own.collect(opinionated(config, keeps=True))) > 0
        with (
            WorldClient(Access(service.address, TOKEN), 1.0) as plain,
            pytest.raises(UnreachableError),
        ):
            plain.call(wire.STATUS, {})


@pytest.mark.parametrize("value", ["relative/token", 7, ""])
def test_files_of_a_node_are_absolute_paths(value: object) -> None:
    with pytest.raises(ValueError, match=r"world-token-file is .*: must be an absolute path"):
        Access.read("127.0.0.1:1", value)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["world=shared"], "world.address is '': must be HOST:PORT"),
        (["world=shared", "world.address=somewhere"], "must be HOST:PORT"),
        (["world=shared", "world.address=host:99999"], "must be HOST:PORT"),
        (["world.kind=mine"], "world.kind is 'mine': must be one of own, shared"),
        (["world=shared", "world.address=h:1", "world.keep=9"], "world.keep is 9: must be at lea"),
    ],
)
def test_settings_of_a_shared_world_are_checked(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace(".", r"\.")):
        load_config("ether2", overrides).build_scenario()


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
    record["server-round"] = 0
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
