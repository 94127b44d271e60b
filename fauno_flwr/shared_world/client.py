"""A node's end of a shared world."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from logging import INFO, WARNING
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
from flwr.common.logger import log

from fauno_flwr.config.consent import Consent
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.metrics import task_metrics
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.shared_world import wire
from fauno_flwr.shared_world.tokens import read_file, read_token
from sim_env.scenario import Scenario

TOKEN_FILE, AUTHORITY = "world-token-file", "world-ca"  # keys of a node config
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds of back-off between two tries
CALL_TIMEOUT = 60.0
SHORTEST_WAIT, LONGEST_WAIT = 0.01, 5.0  # seconds between two polls for a rollout
MOST_LIVES = 10  # restarts of the world in the course of one rollout


class UnreachableError(ConnectionError):
    """The service did not answer within the patience of the node."""


class RefusedError(ValueError):
    """The service refused a request; the text gives the reason."""


class RestartedError(Exception):
    """The world that was joined has been replaced by a new one."""


@dataclass(frozen=True)
class Access:
    """Address and credentials of a service.

    Parameters
    ----------
    address : str
    token : str, default ""
    authority : bytes, default empty
        PEM of the authority that signed the service's certificate; empty for plain text.
    """

    address: str
    token: str = ""
    authority: bytes = b""

    @classmethod
    def read(cls, address: str, token_file: Any = None, authority: Any = None) -> Self:
        """Read token and authority from files.

        Parameters
        ----------
        address : str
        token_file, authority : str, optional
            Absolute paths.

        Raises
        ------
        ValueError
            If a path is not absolute, or a file cannot be read.
        """
        for name, path in ((TOKEN_FILE, token_file), (AUTHORITY, authority)):
            if path is not None and not (isinstance(path, str) and Path(path).is_absolute()):
                raise ValueError(f"{name} is {path!r}: must be an absolute path")
        return cls(
            address,
            "" if token_file is None else read_token(Path(token_file)),
            b"" if authority is None else read_file(Path(authority)),
        )


def access_of(config: RunConfig, node_config: Mapping[str, Any]) -> Access:
    """Return the address of the settings with the credentials of a node config.

    Raises
    ------
    ValueError
        As :meth:`Access.read`; if the node config does not allow the address, or its token would
        travel in plain text.
    """
    consent, address = Consent.read(node_config), config.world.address
    consent.require_world(address)
    files = node_config.get(TOKEN_FILE), node_config.get(AUTHORITY)
    access = Access.read(address, *files)
    consent.require_secrecy(address, token=bool(access.token), encrypted=bool(access.authority))
    return access


class WorldClient:
    """Calls to a service, retried while it does not answer; use it as a context manager.

    Parameters
    ----------
    access : Access
    patience : float
        Seconds for which a call is retried.
    """

    def __init__(self, access: Access, patience: float) -> None:
        self.address, self.patience = access.address, patience
        options = [
            ("grpc.max_receive_message_length", wire.LARGEST_ANSWER),
            ("grpc.max_send_message_length", wire.LARGEST_ANSWER),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if access.authority:
            trust = grpc.ssl_channel_credentials(access.authority)
            self._channel = grpc.secure_channel(access.address, trust, options)
        else:
            self._channel = grpc.insecure_channel(access.address, options)
        self._metadata = [(wire.AUTHORIZATION, wire.SCHEME + access.token)] if access.token else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(
        self, method: str, head: wire.Head, arrays: wire.Arrays | None = None
    ) -> tuple[wire.Head, wire.Arrays]:
        """Call the service; return its answer.

        Raises
        ------
        UnreachableError
            If it does not answer.
        RefusedError
            If it refuses the token, the settings or the request.
        RestartedError
            If the world that was joined has been replaced.
        """
        stub = self._channel.unary_unary(f"/{wire.SERVICE}/{method}")
        request, end, pause = wire.pack(head, arrays), time.monotonic() + self.patience, FIRST_PAUSE
        warned = False
        while True:
            try:
                left = max(end - time.monotonic(), 1.0)
                answer = stub(request, timeout=min(left, CALL_TIMEOUT), metadata=self._metadata)
                return wire.unpack(answer)
            except grpc.RpcError as error:
                self._raise_if_final(error)
                reason = error.details()
            if time.monotonic() + pause > end:
                raise UnreachableError(
                    f"the shared world at {self.address} has not answered for {self.patience:g} s "
                    f"(world.patience): {reason}"
                )
            if not warned:
                log(
                    WARNING,
                    "the shared world at %s does not answer, retrying for %g s: %s",
                    self.address,
                    self.patience,
                    reason,
                )
                warned = True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _raise_if_final(self, error: grpc.RpcError) -> None:
        """Raise an error that a retry would not change."""
        code, details = error.code(), error.details()
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return
        if code == grpc.StatusCode.FAILED_PRECONDITION:
            raise RestartedError(details) from None
        raise RefusedError(f"the shared world at {self.address} refuses: {details}") from None


class SharedWorld:
    """One agent in a shared world: its actor acts there, and it collects its own decisions.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
        The compiled world of `config`, which must be that of the service.
    agent : int
    access : Access
    sleep : callable, default time.sleep

    Raises
    ------
    UnreachableError, RefusedError
        As :meth:`WorldClient.call`.
    """

    def __init__(
        self,
        config: RunConfig,
        scenario: Scenario,
        agent: int,
        access: Access,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.agent, self._sleep = agent, sleep
        self._node = np.zeros(0, np.int32)
        self._encoding = scenario.encoding
        self._ticks = config.training.worlds * config.training.ticks
        self._access = access
        self._client = WorldClient(access, config.world.patience)
        self._hello = {
            "agent": agent,
            "protocol": wire.PROTOCOL,
            "fingerprint": wire.fingerprint(config, scenario),
            "settings": wire.world_settings(config),
        }
        self._finished = self._lost = self._response = 0
        self._tick = config.physics.tick
        self._session = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.__exit__()

    def check(self) -> None:
        """Join the world once; one that does not answer yet is not an error.

        Raises
        ------
        RefusedError
            If it refuses the token or the settings.
        """
        with WorldClient(self._access, 0.0) as client, suppress(UnreachableError):
            client.call(wire.JOIN, self._hello)

    def collect(self, population: AgentStack) -> Decisions:
        """Let the first agent of a population act for a rollout; return its decisions.

        The rollout has ``training.worlds * training.ticks`` ticks of the one world.
        """
        weights = population.weights(self._node, greedy=False)
        actor = {
            name: value
            for name, value in weights._asdict().items()
            if isinstance(value, np.ndarray) and name != "agent_of_node"
        }
        one = {name: value[0] for name, value in actor.items()}
        for _ in range(MOST_LIVES):
            try:
                return self._collect(one)
            except RestartedError as error:
                log(INFO, "the shared world at %s: %s", self._client.address, error)
                self._session = ""
        raise RefusedError(
            f"the shared world at {self._client.address} has restarted {MOST_LIVES} times "
            f"within one rollout"
        )

    def metrics(self) -> dict[str, float]:
        """Return metrics of the tasks of the whole world that ended while this agent collected."""
        return task_metrics(self._finished, self._lost, self._response * self._tick)

    def _collect(self, actor: wire.Arrays) -> Decisions:
        if not self._session:
            self._session = str(self._client.call(wire.JOIN, self._hello)[0]["session"])
        me = {"agent": self.agent, "session": self._session}
        self._client.call(wire.DEPLOY, me, actor)
        while True:
            head, arrays = self._client.call(wire.COLLECT, {**me, "ticks": self._ticks})
            if not head["left"]:
                break
            wait = head["left"] / max(head["speed"], 1.0)
            self._sleep(min(max(wait, SHORTEST_WAIT), LONGEST_WAIT))
        self._finished += head["finished"]
        self._lost += head["lost"]
        self._response += head["response"]
        return wire.to_decisions(arrays, self._encoding.local, self._encoding.destinations)
