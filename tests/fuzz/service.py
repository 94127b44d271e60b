"""A fuzzer of the service of a shared world: random requests, damaged ones, and raw bytes.

Agent 0 is an honest node's, whose actor must stay as it is; the fuzzer has the token of agent 1,
and sometimes none, another, or the operator's.
"""

import random
import socket
import time
from collections import Counter
from typing import Any

import grpc
import numpy as np

from fauno_flwr.shared_world import wire
from fauno_flwr.shared_world.client import Access, WorldClient
from fauno_flwr.shared_world.server import Credentials, WorldService
from fauno_flwr.shared_world.tokens import OPERATOR, token_of
from tests.fauno_flwr.shared_world.helpers import (
    actor_of,
    hello,
    opinionated,
    serving,
    settings,
)

SECRET = "a-secret-of-the-fuzzers-world"
PACE = 200.0  # ticks per second: most of the processor is the fuzzer's
METHODS = (wire.JOIN, wire.DEPLOY, wire.COLLECT, wire.STATUS, "Other")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
CRASHES = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)
VALUES = (0, 1, 2, -1, 10**30, 2.5, True, None, "", "0", "ä\0", [], {}, [[1]], float("inf"))
DTYPES = (np.float32, np.float64, np.int64, np.bool_, np.uint8)


def fuzz(seed: int, budget_seconds: float) -> dict[str, int]:
    """Send what a seed says to a service, until the time is over.

    Parameters
    ----------
    seed : int
    budget_seconds : float

    Returns
    -------
    dict
        ``inputs``; how many were ``accepted`` and ``refused``; ``crashes``: errors of the service
        itself, or a world that has stopped or lost count of its tasks; ``poisoned``: actors that
        are not finite, or the honest node's that has changed.
    """
    rng, counts = random.Random(seed), Counter(inputs=0, accepted=0, refused=0, crashes=0)
    config = settings()
    actor = actor_of(opinionated(config, keeps=True))
    greeting = hello(config, 1)
    end = time.monotonic() + budget_seconds
    with (
        serving(config, pace=PACE, credentials=Credentials(SECRET)) as service,
        WorldClient(Access(service.address, token_of(SECRET, "0")), 10.0) as honest,
        grpc.insecure_channel(service.address) as channel,
    ):
        session = honest.call(wire.JOIN, hello(config))[0]["session"]
        honest.call(wire.DEPLOY, {"agent": 0, "session": session}, actor)
        own = ""
        while time.monotonic() < end:
            if rng.random() < 0.01:
                _send_bytes(service, rng)
                counts["inputs"] += 1
                continue
            method = rng.choice(METHODS)
            head = {**greeting, "session": own, "ticks": rng.randint(1, 300)}
            request = _request(rng, head, actor if method == wire.DEPLOY else {})
            over = channel if rng.random() < 0.05 else None
            code, answer = _call(service, over, method, request, _token(rng))
            counts["inputs"] += 1
            counts["accepted" if code is grpc.StatusCode.OK else "refused"] += 1
            counts["crashes"] += code in CRASHES
            if method == wire.JOIN and code is grpc.StatusCode.OK:
                own = str(wire.unpack(answer)[0]["session"])
        counts["crashes"] += not all(service.host.call(service.host.world.audit).values())
        honest.call(wire.COLLECT, {"agent": 0, "session": session, "ticks": 1})
        counts["poisoned"] = service.host.call(lambda: _poisoned(service, actor))
    return dict(counts)


class _AbortedError(Exception):
    """How the service ends a call."""


class _Context:
    """What the service uses of a call of gRPC."""

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise _AbortedError(code)

    def cancel(self) -> None:
        raise AssertionError("the body is here")


def _request(rng: random.Random, head: dict[str, Any], arrays: wire.Arrays) -> bytes:
    """Make a request that is valid, or damaged in one of many ways."""
    kind = rng.randrange(7)
    if kind == 0:
        return rng.randbytes(rng.choice((0, 1, 4, 40, 4000)))
    if kind == 1:
        head[rng.choice(list(head))] = rng.choice(VALUES)
    if kind == 2:
        del head[rng.choice(list(head))]
    if kind == 3 and arrays:
        name = rng.choice(list(arrays))
        shape = tuple(rng.randint(0, 40) for _ in range(rng.randint(0, 3)))
        array = np.full(shape, rng.choice((0, 1, 7))).astype(rng.choice(DTYPES))
        arrays = {**arrays, rng.choice((name, "other", "")): array}
    if kind == 4 and arrays:
        name = rng.choice(list(arrays))
        bad = arrays[name].copy()
        bad.flat[rng.randrange(bad.size)] = rng.choice((np.nan, np.inf, -np.inf, 1e38))
        arrays = {**arrays, name: bad}
    data = bytearray(wire.pack(head, arrays))
    if kind == 5:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    if kind == 6 and rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def _token(rng: random.Random) -> str:
    kind = rng.randrange(10)
    if kind == 0:
        return token_of(SECRET, OPERATOR)
    if kind == 1:
        return "".join(chr(rng.randint(0x20, 0x7E)) for _ in range(rng.randint(0, 80)))
    if kind == 2:
        return token_of("another secret of a service", "1")
    return token_of(SECRET, "1")


def _call(
    service: WorldService, channel: grpc.Channel | None, method: str, request: bytes, token: str
) -> tuple[grpc.StatusCode, bytes]:
    """Call a method, over a channel or, much faster, by the functions that gRPC would call."""
    name = f"/{wire.SERVICE}/{method}"
    metadata = [(wire.AUTHORIZATION, wire.SCHEME + token)] if token else []
    try:
        if channel is not None:
            stub = channel.unary_unary(name)
            return grpc.StatusCode.OK, stub(request, timeout=30, metadata=metadata)
        handler = service.admit(name, metadata)
        if handler is None:
            return grpc.StatusCode.UNIMPLEMENTED, b""
        return grpc.StatusCode.OK, handler.stream_unary(iter([request]), _Context())
    except grpc.RpcError as error:
        return error.code(), b""
    except _AbortedError as aborted:
        return aborted.args[0], b""


def _send_bytes(service: WorldService, rng: random.Random) -> None:
    """Send bytes that are no call, over a connection of their own."""
    host, port = service.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(rng.choice((b"", PREFACE)) + rng.randbytes(rng.choice((1, 9, 500))))


def _poisoned(service: WorldService, actor: wire.Arrays) -> int:
    weights = {name: getattr(service.host.weights, name) for name in actor}
    changed = any((weights[name][0] != array).any() for name, array in actor.items())
    return int(changed) + sum(not np.isfinite(each).all() for each in weights.values())
