"""What deploy/nginx/fauno.conf lets through to a SuperLink; needs nginx, no root."""

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

from fauno_flwr.deployment.engine import free_addresses
from fauno_flwr.deployment.keys import Certificates, write_certificates
from tests.paths import ROOT

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
CONF = ROOT / "deploy" / "nginx" / "fauno.conf"
FLEET = "/v1/fleet/"
KEYS = {FLEET + "register-node", FLEET + "unregister-node"}  # for operators only
ROUTES = {path for method, path in PROTOBUF_REQUEST_TYPES if method == "POST"}
OPEN = {path for path in ROUTES if path.startswith(FLEET)} - KEYS
PULL, RUNS = "/v1/fleet/pull-messages", "/v1/control/list-runs"


class Behind:
    """An HTTPS server in the place of the SuperLink, and the proxy in front of it."""

    def __init__(self, folder: Path, change: Callable[[str], str]) -> None:
        self.seen: list[tuple[str, str]] = []
        self.files = write_certificates(["localhost", "127.0.0.1"], folder / "tls")
        self.server = _superlink(self.files, self.seen)
        self.address = free_addresses(1)[0]
        text = CONF.read_text().replace("/etc/fauno/tls", str(folder / "tls"))
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{self.server.server_port}")
        text = change(text.replace("listen 9092", f"listen {self.address}"))
        user = "user root;" if os.geteuid() == 0 else ""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = " ".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
        main = folder / "nginx.conf"
        main.write_text(
            f"{user} daemon off; pid {folder / 'pid'}; error_log {folder / 'log'}; events {{}}\n"
            f"http {{ access_log off; {paths}\n{text} }}\n"
        )
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        assert NGINX is not None
        self.nginx = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(main)])
        end = time.monotonic() + 20
        while not (folder / "pid").exists() and self.nginx.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.05)

    def close(self) -> None:
        self.nginx.terminate()
        self.nginx.wait()
        self.server.shutdown()
        self.server.server_close()

    def connect(self) -> ssl.SSLSocket:
        host, port = self.address.split(":")
        trust = ssl.create_default_context(cafile=self.files.authority)
        raw = socket.create_connection((host, int(port)), timeout=20)
        return trust.wrap_socket(raw, server_hostname="localhost")

    def send(self, request: bytes) -> bytes:
        """Send bytes; return all of the answer."""
        answer = b""
        with self.connect() as connection, suppress(OSError):  # it may be kept open, or cut off
            connection.settimeout(2)
            connection.sendall(request)
            while part := connection.recv(65536):
                answer += part
        return answer

    def post(self, path: str, method: str = "POST", headers: str = "") -> int:
        """Send a request in which the path stands as it is; return the status."""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}"
        return int(self.send(f"{head}Content-Length: 2\r\n\r\nab".encode()).split()[1])


def _superlink(files: Certificates, seen: list[tuple[str, str]]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            super().handle_one_request()
            if getattr(self, "requestline", ""):
                seen.append((self.command, self.path))
                self.requestline = ""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


@contextmanager
def proxied(folder: Path, change: Callable[[str], str] = str) -> Iterator[Behind]:
    behind = Behind(folder, change)
    try:
        yield behind
    finally:
        behind.close()


def knock(behind: Behind) -> None:
    """Assert that no request but those of a SuperNode's work reaches the SuperLink."""
    for path in sorted(OPEN):
        assert behind.post(path) == 200, path
    assert {path for _, path in behind.seen} == OPEN
    behind.seen.clear()
    for path in [*sorted(ROUTES - OPEN), "/", "/health", "/docs", "/openapi.json", "/v1/responses"]:
        assert behind.post(path) == 403, path
    for method in ("GET", "PUT", "DELETE"):
        assert behind.post(PULL, method) == 403, method
    assert behind.seen == []
    for path in DISGUISES:
        behind.post(path)
        behind.post(f"https://localhost{path}")
    for headers in ("X-Original-URL: ", "X-Rewrite-URL: ", "X-Forwarded-Prefix: "):
        behind.post(PULL, headers=f"{headers}{RUNS}\r\n")
    for request in SMUGGLED:
        behind.send(request)
    assert set(behind.seen) <= {("POST", path) for path in OPEN}


# nginx resolves these, the SuperLink would not: one of them might see another path.
DISGUISES = [
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/pull-messages/../../control/list-runs",
    "/v1/fleet/pull-messages%2f..%2f..%2fcontrol/list-runs",
    "/v1/control/list-runs/../../fleet/pull-messages",
    "/v1/control/list-runs%3f/../../fleet/pull-messages",
    "/v1/control/list-runs%23/../../fleet/pull-messages",
    "/v1/control/list-runs;/../../fleet/pull-messages",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages%0a",
    "/v1/fleet/pull-messages%00",
    "/v1/fleet/pull-messages?/v1/control/list-runs",
    "//v1/control/list-runs",
    "/V1/CONTROL/LIST-RUNS",
    "/v1/control/list-runs",
]
INNER = f"POST {RUNS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
HEAD = f"POST {PULL} HTTP/1.1\r\nHost: localhost\r\n".encode()
SMUGGLED = [
    HEAD + b"Content-Length: 0\r\nConnection: close\r\n\r\n" + INNER,
    HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    HEAD + b"Transfer-Encoding: chunked, identity\r\nConnection: close\r\n\r\n0\r\n\r\n" + INNER,
    HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n" + INNER,
    INNER.replace(b"POST", b"POST\t"),
]


def everything_passes(text: str) -> str:
    assert "return 403;" in text
    return text.replace("return 403;", "proxy_pass https://fauno_superlink;")


def any_method(text: str) -> str:
    assert "deny all;" in text
    return text.replace("deny all;", "allow all;")


def as_sent(text: str) -> str:
    assert "/v1/fleet/$1;" in text
    text = text.replace("/v1/fleet/$1;", ";")
    return text.replace("register-node", "[^/]*")


def test_a_stranger_reaches_the_work_of_a_supernode_only(tmp_path: Path) -> None:
    with proxied(tmp_path) as behind:
        knock(behind)


@pytest.mark.parametrize("change", [everything_passes, any_method, as_sent])
def test_without_a_guard_of_the_proxy_more_is_reached(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    with proxied(tmp_path, change) as behind, pytest.raises(AssertionError):
        knock(behind)


def unbuffered(text: str) -> str:
    assert "limit_conn " in text
    return text.replace("limit_conn ", "proxy_request_buffering off; limit_conn ")


@pytest.mark.parametrize("change", [str, unbuffered])
def test_a_half_request_does_not_reach_the_superlink(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    with proxied(tmp_path, change) as behind, behind.connect() as half:
        accepted = threading.active_count()
        half.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 1000)
        time.sleep(0.5)
        # A thread of the server in the SuperLink's place.
        assert (threading.active_count() > accepted) == (change is unbuffered)
        assert behind.post(PULL) == 200


def test_a_body_larger_than_a_piece_of_an_array_is_refused(tmp_path: Path) -> None:
    with proxied(tmp_path) as behind:
        large = HEAD + b"Connection: close\r\nContent-Length: 100000000\r\n\r\n"
        assert b" 413 " in behind.send(large).splitlines()[0]
        assert behind.seen == []
