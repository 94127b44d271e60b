"""The service: gRPC, TLS and the token in front of a world."""

import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

THREADS, MOST_CALLS = 16, 256
GRACE = 1.0  # seconds for calls that are being answered when the service stops
CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (SessionError, grpc.StatusCode.FAILED_PRECONDITION),
    (PermissionError, grpc.StatusCode.PERMISSION_DENIED),
    (StoppedError, grpc.StatusCode.UNAVAILABLE),
    (TimeoutError, grpc.StatusCode.UNAVAILABLE),
    (ValueError, grpc.StatusCode.INVALID_ARGUMENT),
)
Handler = Callable[[wire.Head, wire.Arrays], bytes]


@dataclass(frozen=True)
class Credentials:
    """The token and certificate of a service.

    Parameters
    ----------
    token : str, default ""
        That callers must send; empty for none.
    certificate, key : bytes, default empty
        PEM of a TLS server; empty for plain text.
    """

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""

    @classmethod
    def read(cls, token_file: Path | None, certificates: Path | None) -> Self:
        """Read token and certificate from files.

        Parameters
        ----------
        token_file : Path, optional
        certificates : Path, optional
            Folder with ``server.pem`` and ``server.key``, as ``fauno deploy certificates`` makes.

        Raises
        ------
        ConfigError
            If a file cannot be read.
        """
        return cls(
            token="" if token_file is None else read_token(token_file),
            certificate=b"" if certificates is None else read_file(certificates / "server.pem"),
            key=b"" if certificates is None else read_file(certificates / "server.key"),
        )


def read_file(path: Path) -> bytes:
    """Return the bytes of a file; raise ``ConfigError`` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror})") from error


def read_token(path: Path) -> str:
    """Return the token in a file; raise ``ConfigError`` unless it is valid in a header."""
    token = read_file(path).strip()
    if not token or not all(0x21 <= byte < 0x7F for byte in token):
        raise ConfigError(f"{str(path)!r} holds no token: must be one line of printable ASCII")
    return token.decode()


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
        self.host, self._token = host, credentials.token.encode()
        self._settings = wire.world_settings(host.config)
        self._fingerprint = wire.fingerprint(host.config, host.scenario)
        name = address.rpartition(":")[0]
        if credentials.token and not credentials.key and not is_loopback(name):
            raise ConfigError(
                f"host is {name!r} and there are no certificates: a token needs TLS "
                f"(--certificates) on any host but loopback"
            )
        if not credentials.token and not is_loopback(name):
            log(WARNING, "without a token any client of %s may act in this world", address)
        actor = sum(array.nbytes for array in host.weights if hasattr(array, "nbytes"))
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="world-service")
        self._server = grpc.server(
            self._pool,
            maximum_concurrent_rpcs=MOST_CALLS,
            options=[
                ("grpc.max_receive_message_length", wire.LARGEST_REQUEST + actor),
                ("grpc.max_send_message_length", wire.LARGEST_ANSWER),
                ("grpc.so_reuseport", 0),  # or a second service could share the port
            ],
        )
        handlers = {
            wire.JOIN: self._join,
            wire.DEPLOY: self._deploy,
            wire.COLLECT: self._collect,
            wire.STATUS: self._status,
        }
        methods = {
            method: grpc.unary_unary_rpc_method_handler(self._guarded(method, handler))
            for method, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.SERVICE, methods),)
        )
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

    def _guarded(
        self, method: str, handler: Handler
    ) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        """Wrap a handler: require the token, and turn errors into one sentence for the caller."""

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if not self._knows(context):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")
            try:
                return handler(*wire.unpack(request))
            except Exception as error:
                for kind, code in CODES:
                    if isinstance(error, kind):
                        context.abort(code, str(error) or "the world does not answer")
                log(ERROR, "%s failed: %r", method, error)
                context.abort(grpc.StatusCode.INTERNAL, "an error of the service, see its log")
            raise AssertionError("abort raises")

        return answer

    def _knows(self, context: grpc.ServicerContext) -> bool:
        given = dict(context.invocation_metadata()).get(wire.AUTHORIZATION, "")
        text = given if isinstance(given, bytes) else str(given).encode()
        return not self._token or hmac.compare_digest(text, wire.SCHEME.encode() + self._token)

    def _join(self, head: wire.Head, arrays: wire.Arrays) -> bytes:
        agent = wire.field(head, "agent", int)
        if wire.field(head, "protocol", int) != wire.PROTOCOL:
            raise ValueError(
                f"the node speaks protocol {head['protocol']}, the world {wire.PROTOCOL}: install "
                f"the same version of fauno-flwr on both"
            )
        if wire.field(head, "fingerprint", str) != self._fingerprint:
            differs = wire.difference(wire.field(head, "settings", dict), self._settings)
            raise ValueError(f"the run and the world have different settings: {differs}")
        return wire.pack(self.host.call(lambda: self.host.join(agent)))

    def _deploy(self, head: wire.Head, arrays: wire.Arrays) -> bytes:
        agent, session = wire.field(head, "agent", int), wire.field(head, "session", str)
        return wire.pack(self.host.call(lambda: self.host.deploy(agent, session, arrays)))

    def _collect(self, head: wire.Head, arrays: wire.Arrays) -> bytes:
        agent, session = wire.field(head, "agent", int), wire.field(head, "session", str)
        ticks = wire.field(head, "ticks", int)
        answer, decisions = self.host.call(lambda: self.host.collect(agent, session, ticks))
        return wire.pack(answer, None if decisions is None else wire.to_arrays(decisions))

    def _status(self, head: wire.Head, arrays: wire.Arrays) -> bytes:
        status: dict[str, Any] = self.host.call(self.host.status)
        return wire.pack(status)
