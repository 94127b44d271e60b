"""A whole deployment on loopback: SuperLink, SuperExec and SuperNodes, each a process of its own.

A process that ends is restarted, as by ``Restart=always`` of systemd, so that failures can be tried
here.
"""

import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from fauno_flwr.config.consent import ALLOW_FILES, ALLOW_MODULES, ALLOW_WORLDS, ANY
from fauno_flwr.deployment.engine import Engine, free_addresses
from fauno_flwr.deployment.keys import (
    PRIVATE_FILE,
    Certificates,
    make_private_folder,
    write_certificates,
    write_new,
    write_node_key,
)
from fauno_flwr.shared_world.tokens import token_of
from strategies.flower_internals import FlowerVersionError, require_superexec

RESTART_PAUSE = 2.0
# Seconds between two polls of a SuperExec for tasks; the default is 1.
TASK_POLL = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}


@dataclass
class Service:
    """A process that is restarted when it ends.

    Parameters
    ----------
    name : str
        Also of its log.
    command : list of str
    environment : dict of str to str
        Added to the engine's.
    process : subprocess.Popen
    restarts : int
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    restarts: int = 0
    ended_at: float | None = field(default=None, repr=False)


class Deployment(Engine):
    """A private deployment on free ports of loopback; use it as a context manager.

    The SuperLink keeps its state in a database and the ServerApp runs below a SuperExec of its own:
    a run survives a restart of the SuperLink.

    Parameters
    ----------
    nodes : int
        SuperNodes, with ``partition-id`` 0 to `nodes` - 1.
    tls : bool, default False
        Encrypt, with certificates made for this deployment.
    auth : bool, default False
        Admit only SuperNodes whose keys are registered; needs `tls`.
    world : sequence of str, default empty
        Arguments of ``fauno world serve`` with ``--port``, if the nodes share a world; it runs as a
        process of this deployment then, with a token for each node and, with `tls`, a certificate.
    warm : bool, default True
        Run each node's messages in forks of a worker, see :mod:`fauno_flwr.deployment.warm_worker`;
        without it, or if Flower's internals are not those that were tested, in new processes.
    agents : Path, optional
        Folder in which the nodes save their agents, so that a later deployment can resume the
        training. Default: a folder that is removed with this deployment.
    report : callable, optional
        Called with a sentence whenever a process is restarted, and if there can be no worker.
    """

    def __init__(
        self,
        nodes: int,
        *,
        tls: bool = False,
        auth: bool = False,
        world: Sequence[str] = (),
        warm: bool = True,
        agents: Path | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        if auth and not tls:
            raise ValueError("auth is on and tls is off: keys of SuperNodes need TLS, add it")
        self.nodes, self.tls, self.auth, self.world = nodes, tls, auth, list(world)
        self.agents = agents
        self.report = report or (lambda sentence: None)
        self.warm = warm and self._can_be_warm()
        self.services: dict[str, Service] = {}
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._restart_ended, daemon=True)

    def __enter__(self) -> Self:
        entered = super().__enter__()
        self._watch.start()
        return entered

    def _can_be_warm(self) -> bool:
        try:
            require_superexec()
        except FlowerVersionError as error:
            self.report(f"a new process for each message, as with --no-warm: {error}")
            return False
        return True

    def submit_run(self, app: Path, run_config: Mapping[str, str]) -> str:
        """Submit a run; return its id."""
        return self._submit(app, run_config)

    # ---- start ---------------------------------------------------------------------------------

    def _start(self) -> None:
        self.address, *self.node_addresses = free_addresses(1 + self.nodes)
        certificates = None
        if self.tls:
            certificates = write_certificates(["localhost", "127.0.0.1"], self.home / "tls")
            self.root_certificate = certificates.authority
        self.secret = self.home / "superexec.secret"
        write_new(self.secret, secrets.token_hex(32).encode(), PRIVATE_FILE)
        superlink = self._serve("superlink", self._superlink(*self._options(certificates)))
        self._await_superlink(superlink.process)
        runtime = ["--runtime-api-address", self.address, *self._trust, *self._share_secret]
        self._serve("superexec", ["flower-superexec", *runtime])
        if self.world:
            self._serve_world(certificates)
        for node in range(self.nodes):
            self._serve_node(node)

    def _options(self, certificates: Certificates | None) -> list[str]:
        options = ["--isolation", "process", "--database", str(self.home / "state.db")]
        options += self._share_secret
        if certificates is not None:
            options += ["--ssl-ca-certfile", str(certificates.authority)]
            options += ["--ssl-certfile", str(certificates.certificate)]
            options += ["--ssl-keyfile", str(certificates.key)]
        return [*options, "--enable-supernode-auth"] if self.auth else options

    @property
    def _trust(self) -> list[str]:
        if self.root_certificate is None:
            return ["--insecure"]
        return ["--root-certificates", str(self.root_certificate)]

    @property
    def _share_secret(self) -> list[str]:
        return ["--superexec-auth-secret-file", str(self.secret)]

    def node_folder(self, node: int) -> Path:
        """Return the folder of a SuperNode: its agent, its key, Flower's copies of apps."""
        return self.home / f"node-{node}"

    def node_config(self, node: int) -> str:
        """Return the node config of a SuperNode: its owner, that of the server, allows all."""
        state = self.agents or self.node_folder(node) / "state"
        config = f'partition-id={node} num-partitions={self.nodes} state-dir="{state}"'
        config += "".join(f' {key}="{ANY}"' for key in (ALLOW_WORLDS, ALLOW_FILES, ALLOW_MODULES))
        if self.world:
            config += f' world-token-file="{self.world_token(node)}"'
        if self.world and self.root_certificate is not None:
            config += f' world-ca="{self.root_certificate}"'
        return config

    def node_command(self, node: int, address: str, key: Path | None = None) -> list[str]:
        """Return the command of a SuperNode.

        Parameters
        ----------
        node : int
            Its partition-id.
        address : str
            On which it serves its own ClientApps.
        key : Path, optional
            Its private key.
        """
        host, port = address.split(":")
        command = ["flower-supernode", *self._trust, "--superlink", self.address]
        command += ["--host", host, "--port", port, "--node-config", self.node_config(node)]
        if self.warm:
            command += ["--isolation", "process", *self._share_secret]
        return command if key is None else [*command, "--auth-supernode-private-key", str(key)]

    @property
    def world_secret(self) -> Path:
        """File with the secret of the shared world."""
        return self.home / "world.secret"

    def world_token(self, node: int) -> Path:
        """Return the file with a node's token for the shared world."""
        return self.node_folder(node) / "world.token"

    def _serve_world(self, certificates: Certificates | None) -> None:
        secret = secrets.token_hex(32)
        write_new(self.world_secret, secret.encode(), PRIVATE_FILE)
        for node in range(self.nodes):
            make_private_folder(self.node_folder(node))
            token = token_of(secret, str(node)).encode()
            write_new(self.world_token(node), token, PRIVATE_FILE)
        options = ["--secret-file", str(self.world_secret)]
        if certificates is not None:
            options += ["--certificates", str(certificates.key.parent)]
        self._serve("world", ["fauno", "world", "serve", *options, *self.world])

    def _serve_node(self, node: int) -> None:
        folder = make_private_folder(self.node_folder(node))
        key = None
        if self.auth:
            key = folder / "key"
            self.flwr("supernode", "register", str(write_node_key(key)), "private")
        address, home = self.node_addresses[node], {"FLWR_HOME": str(folder), **TASK_POLL}
        self._serve(f"supernode-{node}", self.node_command(node, address, key), **home)
        if self.warm:
            worker = ["fauno", "deploy", "worker", address, "--secret-file", str(self.secret)]
            self._serve(f"worker-{node}", worker, **home)

    def _serve(self, name: str, command: list[str], **environment: str) -> Service:
        process = self.spawn(name, *command, **environment)
        service = self.services[name] = Service(name, command, environment, process)
        return service

    # ---- restart and stop ----------------------------------------------------------------------

    def _restart_ended(self) -> None:
        while not self._stopping.wait(0.2):
            for service in self.services.values():
                code = service.process.poll()
                if code is None:
                    continue
                if service.ended_at is None:
                    service.ended_at = time.monotonic()
                    self.report(
                        f"{service.name} has ended with code {code}: "
                        f"restarting it in {RESTART_PAUSE:g} s"
                    )
                elif time.monotonic() - service.ended_at >= RESTART_PAUSE:
                    service.ended_at = None
                    service.restarts += 1
                    service.process = self.spawn(
                        service.name, *service.command, **service.environment
                    )

    def _stop(self) -> None:
        self._stopping.set()
        if self._watch.is_alive():
            self._watch.join()
        super()._stop()
