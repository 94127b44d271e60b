"""What a shared world refuses, and what its settings cannot be: one sentence each."""

import contextlib
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.deployment.keys import write_certificates
from fauno_flwr.shared_world import wire
from fauno_flwr.shared_world.client import (
    Access,
    RefusedError,
    RestartedError,
    SharedWorld,
    UnreachableError,
    WorldClient,
)
from fauno_flwr.shared_world.server import Credentials, WorldService
from fauno_flwr.tasks.edge import EdgeTask
from tests.fauno_flwr.shared_world.helpers import (
    SECRET,
    TOKEN,
    actor_of,
    client,
    hello,
    make_host,
    node,
    opinionated,
    serving,
    settings,
)


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
