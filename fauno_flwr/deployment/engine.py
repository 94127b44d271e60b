"""A private Flower engine, started for one run and stopped with it.

``flwr run`` alone reuses any SuperLink that is up, with its Python and environment, lets it
reinstall the dependencies for each run, and exits with 0 even if the run has failed.
"""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fauno_flwr.config.loading import conf_dir
from fauno_flwr.deployment import processes

PACKAGE = Path(__file__).parents[1]  # fauno_flwr
ENVIRONMENT = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "OMP_NUM_THREADS": "1",
}
START_TIMEOUT = 60.0
STOP_TIMEOUT = processes.PATIENCE


def free_addresses(count: int) -> list[str]:
    """Return different addresses on loopback on which nothing listens."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{probe.getsockname()[1]}" for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class EngineError(RuntimeError):
    """The engine failed; the text includes its output."""


def stage_app(folder: Path) -> Path:
    """Assemble a Flower app from the installed packages; no checkout is needed.

    Parameters
    ----------
    folder : Path
        Of the app; must not exist.
    """
    beside, inside = PACKAGE.parent / "pyproject.toml", PACKAGE / "app" / "pyproject.toml"
    project = inside if inside.exists() else beside
    for package in (PACKAGE, PACKAGE.parent / "sim_env", PACKAGE.parent / "strategies"):
        shutil.copytree(package, folder / package.name, ignore=_not_staged)
    shutil.copytree(conf_dir(), folder / "conf")
    # Flower raises an error for a pattern that excludes nothing, and there is nothing to exclude.
    text = re.sub(r"^fab-exclude = .*\n", "", project.read_text(), flags=re.MULTILINE)
    (folder / "pyproject.toml").write_text(text)
    (folder / "README.md").write_text("A staged copy of fauno-flwr.\n")
    shutil.copy(project.with_name("LICENSE"), folder / "LICENSE")
    return folder


def _not_staged(folder: str, names: list[str]) -> set[str]:
    """Return the names to leave out: caches and, if installed, the copies of other files."""
    copies = {"app", "conf"} if Path(folder) == PACKAGE else set()
    return {"__pycache__", *copies} & set(names)


class Engine:
    """A private SuperLink in simulation mode; use it as a context manager.

    All processes that it starts are stopped when the context ends, for whatever reason, and when
    the process that entered it is killed.
    """

    root_certificate: Path | None = None  # of a SuperLink that speaks TLS

    def __enter__(self) -> Self:
        self.home = processes.make_folder()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.mark = uuid.uuid4().hex
        bin_dir = Path(sys.executable).parent
        self.environment = {
            **os.environ,
            **ENVIRONMENT,
            processes.MARK: self.mark,
            "FLWR_HOME": str(self.home),
            "RAY_TMPDIR": str(self.home),
            "PATH": f"{bin_dir}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        self.log = self.home / "superlink.log"
        # Stops all if this process is killed and cannot do so itself.
        self._guardian = subprocess.Popen(
            [sys.executable, processes.__file__, self.mark, str(self.home)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self) -> None:
        (self.address,) = free_addresses(1)
        process = self.spawn("superlink", *self._superlink("--simulation"))
        self._await_superlink(process)

    def _superlink(self, *arguments: str) -> list[str]:
        """Return the command of the SuperLink; write the configuration of ``flwr`` for it."""
        secure = self.root_certificate is not None
        trust = f"root-certificates = {json.dumps(str(self.root_certificate))}"
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "private"\n\n[superlink.private]\n'
            f'address = "{self.address}"\n{trust if secure else "insecure = true"}\n'
        )
        host, port = self.address.split(":")
        where = ["--host", host, "--port", port]
        return ["flower-superlink", *([] if secure else ["--insecure"]), *where, *arguments]

    def spawn(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process that is stopped with this engine; its output goes to a log."""
        with (self.home / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                command,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes = [each for each in self.processes if each.poll() is None] + [process]
        return process

    def _await_superlink(self, process: subprocess.Popen[bytes]) -> None:
        scheme, trust = "http", None
        if self.root_certificate is not None:
            scheme, trust = "https", ssl.create_default_context(cafile=self.root_certificate)
        url = f"{scheme}://{self.address}/health"
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end and process.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=1.0, context=trust).close()
                return
            except OSError:
                time.sleep(0.1)
        raise EngineError(f"the SuperLink did not start:\n{self.tail()}")

    def submit(self, app: Path, run_config: Mapping[str, str], nodes: int, workers: int) -> str:
        """Submit a run; return its id.

        Parameters
        ----------
        app : Path
            Folder of the Flower app.
        run_config : mapping of str to str
        nodes : int
            Virtual SuperNodes.
        workers : int
            Nodes that train at once.
        """
        return self._submit(
            app,
            run_config,
            "--federation-config",
            f"num-supernodes={nodes} client-resources-num-cpus=1 init-args-num-cpus={workers}",
        )

    def _submit(self, app: Path, run_config: Mapping[str, str], *options: str) -> str:
        # In a file: Flower does not parse nested quotes on the command line.
        overrides = self.home / "run.toml"
        lines = [
            f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in run_config.items()
        ]
        overrides.write_text("\n".join(lines) + "\n", encoding="utf-8")
        answer = self.flwr("run", str(app), "private", "--run-config", str(overrides), *options)
        if not answer.get("success"):
            raise EngineError(f"Flower refused the run: {answer.get('error-message', answer)}")
        return str(answer["run-id"])

    def status(self, run_id: str) -> tuple[str, str]:
        """Return status (``finished:completed`` on success) and details of a run."""
        answer = self.flwr("list", "private", "--run-id", run_id)
        runs = answer.get("runs") or []
        if not runs:
            return "unknown", str(answer.get("error-message", answer))
        return str(runs[0]["status"]), str(runs[0].get("status-details", ""))

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """Run a command of Flower; return its answer."""
        done = subprocess.run(
            ["flwr", *arguments, "--format", "json"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            return dict(json.loads(done.stdout))
        except ValueError:
            output = done.stdout + done.stderr
            raise EngineError(f"flwr {' '.join(arguments[:2])} said: {output}") from None

    def run_log(self, run_id: str) -> str:
        """Return the log of a run: lines of the ServerApp and of Ray."""
        done = subprocess.run(
            ["flwr", "log", run_id, "private", "--show"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of the engine's log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _stop(self) -> None:
        """Terminate, then kill, all that this engine has started; signals are ignored meanwhile."""
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        main_thread = threading.current_thread() is threading.main_thread()
        before = [(each, signal.signal(each, signal.SIG_IGN)) for each in signals if main_thread]
        try:
            self._kill()
        finally:
            for each, handler in before:
                signal.signal(each, handler)

    def _kill(self) -> None:
        processes.stop(self.mark, self.home, STOP_TIMEOUT)
        for each in self.processes:
            each.wait()
        shutil.rmtree(self.home, ignore_errors=True)
        self._guardian.communicate()  # it exits when its input is closed
