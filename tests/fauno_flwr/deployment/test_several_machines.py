"""The commands of docs/deployment.md on four machines; four minutes, as root."""

import re
import time
from pathlib import Path

import pytest

from sim_env.engine.compilation import cache_root
from tests.fauno_flwr.cli.test_main import FAUNO
from tests.fauno_flwr.deployment.conftest import LITTLE
from tests.fauno_flwr.deployment.machines import Machine, Machines, can_be_made
from tests.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_be_made(), reason="namespaces, networks and mounts need root"),
]
BY_HAND, AS_SERVICES = "## Several machines, plain commands", "## As services"
SERVER, NODES = "server.example", ("node-0", "node-1", "node-2")


def commands(heading: str) -> list[str]:
    """Return the command blocks of a section of the page."""
    page = (ROOT / "docs" / "deployment.md").read_text()
    section = page.partition(heading)[2].partition("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


def test_the_page_works_word_for_word(tmp_path: Path) -> None:
    everywhere, server_side, make_key, register, serve_node, submit = commands(BY_HAND)
    install, *rest = everywhere.splitlines()
    assert "python3 -m venv /opt/fauno" in install
    installed = Path(FAUNO).parents[1]
    shell = f"cd {ROOT}\n" + "\n".join(line for line in rest if not line.startswith("fauno "))
    # The kernel is the same everywhere: it need not be compiled four times.
    shell += f"\nexport NUMBA_CACHE_DIR={cache_root()}\n"

    def do(machine: Machine, block: str) -> str:
        return machine.run(f"{shell}\n{block}")

    addresses = {SERVER: "192.0.2.10", **{n: f"192.0.2.{20 + i}" for i, n in enumerate(NODES)}}
    with Machines(addresses, tmp_path) as machines:
        server = machines[SERVER]
        for name in addresses:
            machines[name].run(f"mkdir -p /opt; ln -sfn {installed} /opt/fauno")
            do(machines[name], "fauno prepare")
        server.start("server", f"{shell}\n{server_side}\nwait")
        for i, name in enumerate(NODES):
            do(machines[name], make_key)
            # What the page says in words: to bring two files from one machine to the other.
            authority = wait_for(server, "/etc/fauno/tls/ca.crt")
            machines[name].write("/etc/fauno/tls/ca.crt", authority)
            public_key = machines[name].read("/etc/fauno/node.key.pub")
            server.write(f"/etc/keys/{name}/node.key.pub", public_key)
            wait_for(server, "/var/lib/fauno/flwr/config.toml")
            again(server, f"{shell}\ncd /etc/keys/{name}\n{register}")
            machines[name].start("node", f"{shell}\n{serve_node.replace('=0 ', f'={i} ')}")
        settings = " ".join([*LITTLE, "federation.versions=3"])
        small = submit.replace("topology.nodes=3 ", f"topology.nodes=3 {settings} ")
        assert settings in small
        # The last two lines show a run that has only started.
        run, look = small.split("flwr list fauno")
        do(server, run)
        end = time.monotonic() + 300
        while "finished:" not in (listed := do(server, f"flwr list fauno{look.splitlines()[0]}")):
            assert time.monotonic() < end, listed
            time.sleep(5)
        assert "finished:completed" in listed
        said = do(server, look.splitlines()[1])
        assert "version 3/3" in said
        assert all(len(name) and name in said for name in ("rpi_0", "rpi_1", "nuc_0"))
        print(said)


def test_systemd_takes_the_units_as_the_page_installs_them(tmp_path: Path) -> None:
    install, *_ = commands(AS_SERVICES)
    prepare, start = install.rsplit("\n", 2)[:2]
    assert "systemctl enable" in start
    with Machines({SERVER: "192.0.2.10"}, tmp_path) as machines:
        machine = machines[SERVER]
        machine.run(f"mkdir -p /opt; ln -sfn {Path(FAUNO).parents[1]} /opt/fauno")
        machine.run(f"cd {ROOT}\n{prepare}\ncp deploy/systemd/* /etc/systemd/system/")
        said = machine.run("systemd-analyze verify /etc/systemd/system/fauno-*.service 2>&1")
        assert said == ""


def wait_for(machine: Machine, path: str, patience: float = 60.0) -> str:
    """Wait for a file that another script makes; return its text."""
    return machine.run(
        f"timeout {patience:g} sh -c 'until test -s {path}; do sleep 0.2; done'; cat {path}"
    )


def again(machine: Machine, script: str, patience: float = 60.0) -> str:
    """Run a script until it succeeds: the SuperLink is still starting."""
    end = time.monotonic() + patience
    while True:
        try:
            return machine.run(script)
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(1)
