"""Machines that share a kernel only: each has a network and folders of its own."""

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

OWN = ("/etc", "/opt", "/var")  # folders of each machine


def can_be_made() -> bool:
    """Return whether this user may make namespaces, networks and mounts."""
    tried = "ip link add fauno-try type veth && ip link delete fauno-try && mount -t tmpfs t /opt"
    command = ["unshare", "--net", "--mount", "sh", "-c", tried]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


class Machine:
    """A namespace for the network and one for mounts, with a process that keeps them.

    Parameters
    ----------
    folder : Path
        Empty; for the logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: list[subprocess.Popen[bytes]] = []
        command = ["unshare", "--net", "--mount", "sh", "-c", "echo up; exec sleep infinity"]
        self.keeper = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.keeper.stdout is not None
        assert self.keeper.stdout.readline() == b"up\n"
        # An upper layer may not itself lie on a layered file system, as it does in a container.
        layers = ["L=$(mktemp -d)", "mount -t tmpfs layers $L"]
        for place in OWN:
            up, work = f"$L{place}/up", f"$L{place}/work"
            layers.append(f"mkdir -p {up} {work}")
            options = f"lowerdir={place},upperdir={up},workdir={work}"
            layers.append(f"mount -t overlay overlay -o {options} {place}")
        self.run(" && ".join([*layers, "ip link set lo up"]))

    def _enter(self, script: str) -> list[str]:
        target = ["--target", str(self.keeper.pid), "--net", "--mount"]
        return ["nsenter", *target, "bash", "-euc", script]

    def run(self, script: str, **environment: str) -> str:
        """Run a script on this machine, which must succeed; return its output."""
        done = subprocess.run(
            self._enter(script),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, name: str, script: str) -> None:
        """Start a script that runs until the machines are stopped."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.services.append(
                subprocess.Popen(
                    self._enter(script), stdout=log, stderr=log, start_new_session=True
                )
            )

    def read(self, path: str) -> str:
        """Read a file of this machine."""
        return self.run(f"cat {shlex.quote(path)}")

    def write(self, path: str, text: str) -> None:
        """Write a file of this machine."""
        self.run(f"mkdir -p $(dirname {shlex.quote(path)}); printf %s {shlex.quote(text)} > {path}")

    def stop(self) -> None:
        """Kill all processes of this machine; its namespaces end with them."""
        for service in self.services:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(service.pid, signal.SIGKILL)
            service.wait()
        here = self._enter(f"readlink /proc/{self.keeper.pid}/ns/net")
        network = subprocess.run(here, capture_output=True, text=True, check=False).stdout.strip()
        for entry in Path("/proc").glob("[0-9]*/ns/net"):
            pid = int(entry.parts[2])
            with contextlib.suppress(OSError):
                if pid != self.keeper.pid and os.readlink(entry) == network:
                    os.kill(pid, signal.SIGKILL)
        self.keeper.kill()
        self.keeper.communicate()


class Machines:
    """Some machines on one switch; use it as a context manager.

    Parameters
    ----------
    addresses : mapping of str to str
        IPv4 address of each machine, in one network of 24 bits.
    folder : Path, optional
        For the logs.
    """

    def __init__(self, addresses: Mapping[str, str], folder: Path | None = None) -> None:
        self.addresses = addresses
        self.folder = folder or Path(tempfile.mkdtemp(prefix="machines-"))
        self.switch: subprocess.Popen[bytes] | None = None
        self.machines: dict[str, Machine] = {}

    def __enter__(self) -> Self:
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

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def _start(self) -> None:
        bridge = "ip link add switch type bridge && ip link set switch up && echo up"
        command = ["unshare", "--net", "sh", "-c", f"{bridge} && exec sleep infinity"]
        self.switch = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.switch.stdout is not None
        assert self.switch.stdout.readline() == b"up\n"
        at_switch = ["nsenter", "--target", str(self.switch.pid), "--net", "sh", "-euc"]
        hosts = "".join(f"{address} {name}\n" for name, address in self.addresses.items())
        for number, (name, address) in enumerate(self.addresses.items()):
            folder = self.folder / name
            folder.mkdir()
            machine = self.machines[name] = Machine(folder)
            port, pid = f"port{number}", machine.keeper.pid
            plug = f"ip link add {port} type veth peer name eth0 netns {pid}"
            wire = f"{plug}; ip link set {port} master switch; ip link set {port} up"
            subprocess.run([*at_switch, wire], check=True)
            machine.run(f"ip address add {address}/24 dev eth0; ip link set eth0 up")
            machine.run(f"printf %s {shlex.quote(hosts)} >> /etc/hosts")

    def _stop(self) -> None:
        for machine in self.machines.values():
            machine.stop()
        if self.switch is not None:
            self.switch.kill()
            self.switch.communicate()
