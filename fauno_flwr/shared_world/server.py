"""The service: gRPC and TLS in front of a world, and what a call must have to reach it.

The token is checked when the headers are there, before any of the body is read, and no thread waits
longer than :data:`BODY_TIMEOUT` for a body.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from logging import ERROR, WARNING
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from flwr.common.logger import log

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import is_loopback
from fauno_flwr.shared_world import wire
from fauno_flwr.shared_world.host import SessionError, StoppedError, WorldHost
from fauno_flwr.shared_world.tokens import OPERATOR, bearer_of, read_file, read_secret

THREADS, MOST_CALLS = 16, 256
MOST_WAITING, MOST_WAITING_EACH = 12, 2  # calls without their body: of anyone, of a token's bearer
BODY_TIMEOUT = 10.0  # seconds from the headers of a call to the end of its body
GRACE = 1.0  # seconds for calls that are being answered when the service stops
CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (SessionError, grpc.StatusCode.FAILED_PRECONDITION),
    (PermissionError, grpc.StatusCode.PERMISSION_DENIED),
    (StoppedError, grpc.StatusCode.UNAVAILABLE),
    (TimeoutError, grpc.StatusCode.UNAVAILABLE),
    (ValueError, grpc.StatusCode.INVALID_ARGUMENT),
)
CONNECTIONS = (
    ("grpc.server_handshake_timeout_ms", 10_000),  # TLS, and the first frame of HTTP/2
    ("grpc.max_connection_idle_ms", 60_000),  # without a call; a node connects again by itself
    ("grpc.max_concurrent_streams", 16),
    ("grpc.keepalive_time_ms", 60_000),  # finds peers that are gone
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.so_reuseport", 0),  # or a second service could share the port
)
ANYONE = ""  # the bearer of every call where there is no secret
Handler = Callable[[str, wire.Head, wire.Arrays], bytes]


@dataclass(frozen=True)
class Credentials:
    """The secret and certificate of a service.

    Parameters
    ----------
    secret : str, default ""
        From which the tokens are derived that callers must send; empty for none.
    certificate, key : bytes, default empty
        PEM of a TLS server; empty for plain text.
    """

    secret: str = ""
    certificate: bytes = b""
    key: bytes = b""

    @classmethod
    def read(cls, secret_file: Path | None, certificates: Path | None) -> Self:
        """Read secret and certificate from files.

        Parameters
        ----------
        secret_file : Path, optional
        certificates : Path, optional
            Folder with ``server.pem`` and ``server.key``, as ``fauno deploy certificates`` makes.

        Raises
        ------
        ConfigError
            If a file cannot be read, or the secret is too short.
        """
        return cls(
            secret="" if secret_file is None else read_secret(secret_file),
            certificate=b"" if certificates is None else read_file(certificates / "server.pem"),
            key=b"" if certificates is None else read_file(certificates / "server.key"),
        )


class WorldService:
    """A world served over gRPC; use it as a context manager.

    Parameters
    ----------
    host : WorldHost
        Started and stopped with this.
    address : str
        To listen on; port 0 takes a free one.
    credentials : Credentials

    Attributes
    ----------
    address : str
        It listens on.

    Raises
    ------
    ConfigError
        If it cannot listen there, or if a token would travel between machines in plain text.
    """

    def __init__(self, host: WorldHost, address: str, credentials: Credentials) -> None:
        self.host, self._secret = host, credentials.secret
        self._settings = wire.world_settings(host.config)
        self._fingerprint = wire.fingerprint(host.config, host.scenario)
        name = address.rpartition(":")[0]
        if credentials.secret and not credentials.key and not is_loopback(name):
            raise ConfigError(
                f"host is {name!r} and there are no certificates: a token needs TLS "
                f"(--certificates) on any host but loopback"
            )
        if not credentials.secret and not is_loopback(name):
            log(WARNING, "without a token any client of %s may act in this world", address)
        actor = sum(array.nbytes for array in host.weights if hasattr(array, "nbytes"))
        self._waiting: dict[str, list[grpc.ServicerContext]] = {}  # by bearer, the oldest first
        self._lock = threading.Lock()
        # No set of nodes can keep every thread waiting.
        threads = THREADS + MOST_WAITING_EACH * len(host.members)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="world-service")
        self._server = grpc.server(
            self._pool,
            maximum_concurrent_rpcs=MOST_CALLS,
            options=[
                ("grpc.max_receive_message_length", wire.LARGEST_REQUEST + actor),
                ("grpc.max_send_message_length", wire.LARGEST_ANSWER),
                *CONNECTIONS,
            ],
        )
        handlers: dict[str, Handler] = {
            wire.JOIN: self._join,
            wire.DEPLOY: self._deploy,
            wire.COLLECT: self._collect,
            wire.STATUS: self._status,
        }
        self._handlers = {f"/{wire.SERVICE}/{name}": each for name, each in handlers.items()}
        self._server.add_generic_rpc_handlers((_Gate(self.admit),))
        try:
            if credentials.key:
                pair = [(credentials.key, credentials.certificate)]
                port = self._server.add_secure_port(address, grpc.ssl_server_credentials(pair))
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if not port:
            raise ConfigError(f"cannot listen on {address!r}: is the port in use, is it this host?")
        self.address = f"{name}:{port}"

    def __enter__(self) -> Self:
        self.host.start()
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(GRACE).wait()
        self.host.stop()
        self._pool.shutdown()

    # ---- calls -----------------------------------------------------------------------------------

    def admit(self, method: str, metadata: Iterable[tuple[str, Any]]) -> grpc.RpcMethodHandler:
        """Return what answers a call with these headers; None for a method that there is not."""
        handler = self._handlers.get(method)
        if handler is None:
            return None
        given = dict(metadata).get(wire.AUTHORIZATION, "")
        text = given.decode(errors="replace") if isinstance(given, bytes) else str(given)
        bearer: str | None = ANYONE
        if self._secret:
            bearer = bearer_of(self._secret, text.removeprefix(wire.SCHEME))
        # A handler of one message would be given it: this one may answer before it has come.
        return grpc.stream_unary_rpc_method_handler(
            _refuse if bearer is None else partial(self._answer, method, handler, bearer)
        )

    def _answer(
        self,
        method: str,
        handler: Handler,
        bearer: str,
        requests: Iterator[bytes],
        context: grpc.ServicerContext,
    ) -> bytes:
        """Receive the request and answer it; errors become one sentence for the caller."""
        with self._waits(bearer, context):
            request = next(requests, b"")
        try:
            return handler(bearer, *wire.unpack(request))
        except Exception as error:
            for kind, code in CODES:
                if isinstance(error, kind):
                    context.abort(code, str(error) or "the world does not answer")
            log(ERROR, "%s failed: %r", method, error)
            context.abort(grpc.StatusCode.INTERNAL, "an error of the service, see its log")
        raise AssertionError("abort raises")

    @contextmanager
    def _waits(self, bearer: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Bound how long a call may wait for its body, and how many of one bearer do.

        One more cancels the oldest: the body of an honest call follows its headers at once.
        """
        most = MOST_WAITING if bearer == ANYONE else MOST_WAITING_EACH
        end = threading.Timer(BODY_TIMEOUT, context.cancel)
        end.daemon = True
        with self._lock:
            waiting = self._waiting.setdefault(bearer, [])
            waiting.append(context)
            oldest = waiting.pop(0) if len(waiting) > most else None
        if oldest is not None:
            oldest.cancel()
        end.start()
        try:
            yield
        finally:
            end.cancel()
            with self._lock:
                if context in waiting:
                    waiting.remove(context)

    @staticmethod
    def _agent(bearer: str, head: wire.Head) -> int:
        """Return the agent of a request; raise ``PermissionError`` if the token is another's."""
        agent: int = wire.field(head, "agent", int)
        if bearer not in (ANYONE, str(agent)):
            raise PermissionError(
                f"the token is that of {'agent ' * (bearer != OPERATOR)}{bearer}: agent {agent} "
                f"has one of its own (fauno world token {agent})"
            )
        return agent

    def _join(self, bearer: str, head: wire.Head, arrays: wire.Arrays) -> bytes:
        agent = self._agent(bearer, head)
        if wire.field(head, "protocol", int) != wire.PROTOCOL:
            raise ValueError(
                f"the node speaks protocol {head['protocol']}, the world {wire.PROTOCOL}: install "
                f"the same version of fauno-flwr on both"
            )
        if wire.field(head, "fingerprint", str) != self._fingerprint:
            differs = wire.difference(wire.field(head, "settings", dict), self._settings)
            raise ValueError(f"the run and the world have different settings: {differs}")
        return wire.pack(self.host.call(lambda: self.host.join(agent)))

    def _deploy(self, bearer: str, head: wire.Head, arrays: wire.Arrays) -> bytes:
        agent, session = self._agent(bearer, head), wire.field(head, "session", str)
        return wire.pack(self.host.call(lambda: self.host.deploy(agent, session, arrays)))

    def _collect(self, bearer: str, head: wire.Head, arrays: wire.Arrays) -> bytes:
        agent, session = self._agent(bearer, head), wire.field(head, "session", str)
        ticks = wire.field(head, "ticks", int)
        answer, decisions = self.host.call(lambda: self.host.collect(agent, session, ticks))
        return wire.pack(answer, None if decisions is None else wire.to_arrays(decisions))

    def _status(self, bearer: str, head: wire.Head, arrays: wire.Arrays) -> bytes:
        if bearer not in (ANYONE, OPERATOR):
            raise PermissionError(
                f"the token is that of agent {bearer}: the table of all nodes is the operator's"
            )
        status: dict[str, Any] = self.host.call(self.host.status)
        return wire.pack(status)


class _Gate(grpc.GenericRpcHandler):
    """Ask a function for the handler of each call, as soon as its headers are there."""

    def __init__(
        self, admit: Callable[[str, Iterable[tuple[str, Any]]], grpc.RpcMethodHandler]
    ) -> None:
        self._admit = admit

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return the handler of a call."""
        return self._admit(
            handler_call_details.method, handler_call_details.invocation_metadata or ()
        )


def _refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")
    raise AssertionError("abort raises")
