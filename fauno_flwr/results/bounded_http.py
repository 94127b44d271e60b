"""A small HTTP server that strangers cannot fill: bounded threads, a deadline per request."""

import io
import socket
import threading
import time
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

MOST_CONNECTIONS = 16
DEADLINE = 5.0  # seconds for a request and its answer


class _Reader(io.RawIOBase):
    """The bytes of a connection, until a moment; a timeout of the socket is one per read."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        self._connection, self._end = connection, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(self._end - time.monotonic(), 1e-3))
        return self._connection.recv_into(buffer)


class _Handler(WSGIRequestHandler):
    def setup(self) -> None:
        """Give the whole request one deadline."""
        super().setup()
        self.connection.settimeout(DEADLINE)
        self.rfile = io.BufferedReader(_Reader(self.connection, time.monotonic() + DEADLINE))

    def handle(self) -> None:
        """Answer one request; one that does not come in time is dropped."""
        with suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: there is a request every few seconds."""


class BoundedServer(WSGIServer):
    """A WSGI server with at most :data:`MOST_CONNECTIONS` connections, each with a thread.

    One more closes the oldest: an honest request takes milliseconds, a half one waits.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._open: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a request in a thread of its own."""
        self._make_room()
        thread = threading.Thread(
            target=self._answer, args=(request, client_address), name="metrics", daemon=True
        )
        with self._lock:
            self._open[request] = thread
        thread.start()

    def _make_room(self) -> None:
        with self._lock:
            if len(self._open) < MOST_CONNECTIONS:
                return
            oldest, thread = next(iter(self._open.items()))
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        thread.join()  # its reads and writes have ended with the connection

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)
            self.shutdown_request(request)

    def server_close(self) -> None:
        """Close the port and all connections."""
        super().server_close()
        with self._lock:
            left = dict(self._open)
            for connection in left:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in left.values():
            thread.join()
