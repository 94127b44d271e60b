"""Strangers and hostile nodes at a shared world; each guard is shown to be needed.

A scenario asserts what must hold. `test_holds` runs it; `test_falls_without_its_guard` removes the
guard by the mutation registered with the scenario, and expects the scenario to fail.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fauno_flwr.shared_world import server, tokens, wire
from fauno_flwr.shared_world.client import Access, RefusedError, UnreachableError, WorldClient
from fauno_flwr.shared_world.server import ANYONE, Credentials, WorldService
from fauno_flwr.shared_world.tokens import OPERATOR, bearer_of, token_of
from tests.fauno_flwr.shared_world.helpers import (
    AGENTS,
    actor_of,
    hello,
    opinionated,
    serving,
    settings,
)

SECRET = "a-secret-that-nobody-guesses"
OWNER, HOSTILE = (token_of(SECRET, str(agent)) for agent in (0, 1))
PACE = 200.0  # ticks per second: the calls have the processor
PATIENCE = 6.0  # seconds
Mutation = Callable[[pytest.MonkeyPatch], None]
SCENARIOS: dict[str, tuple[Callable[[], None], Mutation]] = {}


def threat(mutation: Mutation) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a scenario and the mutation that it must detect."""

    def register(scenario: Callable[[], None]) -> Callable[[], None]:
        SCENARIOS[scenario.__name__] = (scenario, mutation)
        return scenario

    return register


@contextmanager
def half_calls(
    service: WorldService, count: int, token: str | None = None
) -> Iterator[list[grpc.Future]]:
    """Send the headers of calls, and never their bodies."""
    over = threading.Event()

    def body() -> Iterator[bytes]:
        over.wait()
        yield from ()

    metadata = [] if token is None else [(wire.AUTHORIZATION, wire.SCHEME + token)]
    with ExitStack() as stack:
        stack.callback(over.set)
        calls = []
        for number in range(count):
            if number % server.MOST_WAITING == 0:
                own = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
                channel = stack.enter_context(grpc.insecure_channel(service.address, own))
            stub = channel.stream_unary(f"/{wire.SERVICE}/{wire.JOIN}")
            calls.append(stub.future(body(), metadata=metadata))
        time.sleep(0.5)  # they arrive
        yield calls


def ended(calls: list[grpc.Future], but: int = 0) -> bool:
    """Wait until calls have ended, all but so many; return whether they have."""
    end = time.monotonic() + PATIENCE
    while (left := sum(not call.done() for call in calls)) > but and time.monotonic() < end:
        time.sleep(0.05)
    return left <= but


def joins(service: WorldService, token: str, agent: int = 0) -> wire.Head:
    """Join as an honest node does, but with little patience."""
    with WorldClient(Access(service.address, token), PATIENCE) as client:
        try:
            return client.call(wire.JOIN, hello(settings(), agent))[0]
        except UnreachableError as error:
            raise AssertionError("an honest node gets no answer") from error


def body_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let gRPC read the body before the token is looked at, as its handlers of one message do."""

    def handler(behavior: Callable) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: behavior(iter([request]), context)
        )

    monkeypatch.setattr(server.grpc, "stream_unary_rpc_method_handler", handler)


def wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorldService, "_waits", lambda *_: nullcontext())


def believe_any_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorldService, "_agent", lambda service, bearer, head: head["agent"])


def everyone_is_anyone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "bearer_of", lambda secret, token: ANYONE)


@pytest.mark.parametrize("name", ["half_calls_without_a_token", "half_calls_of_a_node",
    "half_calls_where_no_token_is_asked_for", "a_body_that_never_comes",
    "another_agents_place", "the_table_of_all_nodes"])  # fmt: skip
class TestThreats:
    """Each scenario, with its guard and without."""

    def test_holds(self, name: str) -> None:
        SCENARIOS[name][0]()

    def test_falls_without_its_guard(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        scenario, mutation = SCENARIOS[name]
        mutation(monkeypatch)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            scenario()


@threat(body_first)
def half_calls_without_a_token() -> None:
    """Refuse a stranger when his headers are there: he holds no thread."""
    with (
        serving(settings(), pace=PACE, credentials=Credentials(SECRET)) as service,
        half_calls(service, 64) as calls,
    ):
        assert joins(service, OWNER)["session"]
        assert ended(calls)
        assert {call.code() for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}


@threat(wait_for_ever)
def half_calls_of_a_node() -> None:
    """Let a node with a token hold two threads: the others have theirs."""
    with (
        serving(settings(), pace=PACE, credentials=Credentials(SECRET)) as service,
        half_calls(service, 64, HOSTILE) as calls,
    ):
        assert joins(service, OWNER)["session"]
        assert ended(calls, but=server.MOST_WAITING_EACH)


@threat(wait_for_ever)
def half_calls_where_no_token_is_asked_for() -> None:
    """Answer an honest node beside half calls, where all are anyone."""
    with serving(settings(), pace=PACE) as service, half_calls(service, 64):
        assert joins(service, "")["session"]


@threat(wait_for_ever)
def a_body_that_never_comes() -> None:
    """Wait so long for a body, and no longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "BODY_TIMEOUT", 0.8)
        with (
            serving(settings(), pace=PACE, credentials=Credentials(SECRET)) as service,
            half_calls(service, 1, HOSTILE) as calls,
        ):
            assert ended(calls)


@threat(believe_any_agent)
def another_agents_place() -> None:
    """Let a node act with its token as one agent only: the owner of another keeps his session."""
    config = settings()
    actor = actor_of(opinionated(config, keeps=True))
    with serving(config, pace=PACE, credentials=Credentials(SECRET)) as service:
        session = joins(service, OWNER)["session"]
        with WorldClient(Access(service.address, HOSTILE), PATIENCE) as thief:
            as_owner = {**hello(config), "session": session, "ticks": 10}
            for method in (wire.JOIN, wire.DEPLOY, wire.COLLECT):
                with pytest.raises(RefusedError, match="the token is that of agent 1: agent 0"):
                    thief.call(method, as_owner, actor if method == wire.DEPLOY else None)
            assert thief.call(wire.JOIN, hello(config, 1))[0]["session"]
        with WorldClient(Access(service.address, OWNER), PATIENCE) as owner:
            owner.call(wire.DEPLOY, {"agent": 0, "session": session}, actor)
        with (
            WorldClient(Access(service.address, token_of(SECRET, OPERATOR)), PATIENCE) as operator,
            pytest.raises(RefusedError, match="the token is that of operator: agent 0"),
        ):
            operator.call(wire.JOIN, hello(config))


@threat(everyone_is_anyone)
def the_table_of_all_nodes() -> None:
    """Show it to the operator and to no node."""
    with serving(settings(), pace=PACE, credentials=Credentials(SECRET)) as service:
        with WorldClient(Access(service.address, token_of(SECRET, OPERATOR)), PATIENCE) as operator:
            assert operator.call(wire.STATUS, {})[0]["table"]
        with (
            WorldClient(Access(service.address, HOSTILE), PATIENCE) as node,
            pytest.raises(RefusedError, match="the table of all nodes is the operator's"),
        ):
            node.call(wire.STATUS, {})


# ---- tokens --------------------------------------------------------------------------------------


@given(
    st.text("abcdef0123456789", min_size=tokens.SHORTEST_SECRET),
    st.integers(0, 10**tokens.LONGEST_NUMBER - 1),
    st.integers(0, 10**tokens.LONGEST_NUMBER - 1),
)
def test_a_token_is_that_of_its_agent_and_of_no_other(secret: str, one: int, two: int) -> None:
    token = token_of(secret, str(one))
    assert bearer_of(secret, token) == str(one)
    assert bearer_of(secret + "x", token) is None
    renamed = f"{two}.{token.partition('.')[2]}"
    assert (bearer_of(secret, renamed) is None) == (one != two)


@given(st.text())
def test_no_text_is_a_token_by_chance(text: str) -> None:
    assert bearer_of(SECRET, text) is None
    assert bearer_of(SECRET, f"0.{text}") is None


def test_the_threads_of_a_service_are_bounded_by_its_agents() -> None:
    with serving(settings(), pace=PACE, credentials=Credentials(SECRET)) as service:
        assert service._pool._max_workers == server.THREADS + server.MOST_WAITING_EACH * AGENTS
