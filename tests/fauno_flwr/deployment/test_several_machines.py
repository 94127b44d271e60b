"""The commands of docs/deployment.md on six machines; minutes, as root and with nginx."""

import json
import re
import shlex
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from sim_env.engine.compilation import cache_root
from tests.fauno_flwr.cli.test_main import FAUNO
from tests.fauno_flwr.deployment.conftest import LITTLE
from tests.fauno_flwr.deployment.machines import Machine, Machines, can_be_made
from tests.fauno_flwr.deployment.test_proxy import NGINX
from tests.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_be_made(), reason="namespaces, networks and mounts need root"),
]
BY_HAND, AS_SERVICES = "## Several machines, plain commands", "## As services"
SERVER, NODES, STRANGER = "server.example", ("node-0", "node-1", "node-2"), "stranger.example"
WARY = "wary.example"  # a fourth node, which trusts only signed apps


def commands(heading: str) -> list[str]:
    """Return the command blocks of a section of the page."""
    page = (ROOT / "docs" / "deployment.md").read_text()
    section = page.partition(heading)[2].partition("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_the_page_works_word_for_word_and_keeps_strangers_out(tmp_path: Path) -> None:
    everywhere, server_side, proxy, make_key, register, serve_node, submit = commands(BY_HAND)
    install, *rest = everywhere.splitlines()
    assert "python3 -m venv /opt/fauno" in install
    installed = Path(FAUNO).parents[1]
    shell = f"cd {ROOT}\n" + "\n".join(line for line in rest if not line.startswith("fauno "))
    # The kernel is the same everywhere: it need not be compiled four times.
    shell += f"\nexport NUMBA_CACHE_DIR={cache_root()}\n"

    def do(machine: Machine, block: str) -> str:
        return machine.run(f"{shell}\n{block}")

    names = (SERVER, WARY, *NODES, STRANGER)
    with Machines({n: f"192.0.2.{10 + i}" for i, n in enumerate(names)}, tmp_path) as machines:
        server, stranger = machines[SERVER], machines[STRANGER]
        for name in names:
            machines[name].run(f"mkdir -p /opt; ln -sfn {installed} /opt/fauno")
            do(machines[name], "fauno prepare")
        server.start("server", f"{shell}\n{server_side}\nwait")
        authority = wait_for(server, "/etc/fauno/tls/ca.crt")
        server.run("mount -t tmpfs run /run")  # for nginx's process id
        server.start("nginx", "exec nginx -g 'daemon off;'")  # as Debian starts it
        wait_for(server, "/run/nginx.pid")
        do(server, proxy)
        for i, name in enumerate((*NODES, WARY)):
            do(machines[name], make_key)
            # What the page says in words: to bring two files from one machine to the other.
            machines[name].write("/etc/fauno/tls/ca.crt", authority)
            public_key = machines[name].read("/etc/fauno/node.key.pub")
            server.write(f"/etc/keys/{name}/node.key.pub", public_key)
            wait_for(server, "/var/lib/fauno/flwr/config.toml")
            again(server, f"{shell}\ncd /etc/keys/{name}\n{register}")
            command = serve_node.replace("=0 ", f"={i} ")
            if name == WARY:
                machines[name].write("/etc/fauno/trusted.yaml", trusted_entities())
                trust = "--trusted-entities /etc/fauno/trusted.yaml --root"
                command = command.replace("--root", trust)
                assert trust in command
            machines[name].start("node", f"{shell}\n{command}")
        settings = " ".join([*LITTLE, "federation.versions=3"])
        small = submit.replace("topology.nodes=3 ", f"topology.nodes=3 {settings} ")
        assert settings in small
        # The last two lines show a run that has only started.
        run, look = small.split("flwr list fauno")
        do(server, run)
        stranger.write("/etc/fauno/tls/ca.crt", authority)  # it is public
        do(stranger, make_key)
        gets_nowhere(stranger, shell, serve_node)
        end = time.monotonic() + 300
        while "finished:" not in (listed := do(server, f"flwr list fauno{look.splitlines()[0]}")):
            assert time.monotonic() < end, listed
            time.sleep(5)
        assert "finished:completed" in listed, listed
        assert listed.count('"run-id"') == 1  # the stranger's is not among them
        said = do(server, look.splitlines()[1])
        assert "version 3/3" in said
        assert all(len(name) and name in said for name in ("rpi_0", "rpi_1", "nuc_0"))
        print(said)
        # The node that trusts only signed apps has run nothing of this one.
        assert "could not be verified" in do(server, "cat /var/lib/fauno/results-1/events.jsonl")
        assert "The FAB could not be verified" in (tmp_path / WARY / "node.log").read_text()
        known = json.loads(do(server, "flwr supernode list fauno --format json"))
        assert len(known["nodes"]) == len(NODES) + 1
        # Without the proxy's guard the same stranger sees the run.
        everything = "sed -i 's/return 403;/proxy_pass https:\\/\\/fauno_superlink;/'"
        server.run(f"{everything} /etc/nginx/conf.d/fauno.conf; nginx -s reload; sleep 2")
        with pytest.raises(AssertionError, match="the stranger's flwr list"):
            gets_nowhere(stranger, shell, serve_node)


def trusted_entities() -> str:
    """Return a file with a key that has signed nothing."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    form = serialization.PublicFormat.OpenSSH
    return f"fpk_1: {key.public_bytes(serialization.Encoding.OpenSSH, form).decode()} reviewer\n"


def gets_nowhere(stranger: Machine, shell: str, serve_node: str) -> None:
    """Assert that a machine without a registered key can do nothing at the server."""
    ports = json.loads(stranger.run(f"{shell}\npython - <<'EOF'\n{SCAN}\nEOF"))
    assert ports == [9092]
    for port in (8000, 9092):
        trust = 'root-certificates = "/etc/fauno/tls/ca.crt"'
        stranger.write(
            "/var/lib/fauno/flwr/config.toml",
            f'[superlink.fauno]\naddress = "{SERVER}:{port}"\n{trust}\n',
        )
        for command in TRIES:
            said = stranger.run(f"{shell}\ntimeout 60 {command} --format json 2>&1 || true")
            assert '"success": true' not in said, f"the stranger's {command}: {said}"
    loop = serve_node.replace("sleep 5", "break")
    for without in ("", "--auth-supernode-private-key /etc/fauno/node.key "):
        assert without in loop
        tried = loop.replace(without, "") if without else loop
        said = stranger.run(f"{shell}\n(timeout 30 bash -c {shlex.quote(tried)}) 2>&1 || true")
        # How Flower reads a 401 and a 403.
        assert "Exit Code: 305" in said or "RunNotRunningException" in said, said
    assert stranger.run(f"{shell}\npython - <<'EOF'\n{PULL}\nEOF").split() == ["401", "401"]


TRIES = (
    "flwr list fauno",
    "flwr run . fauno",
    "flwr supernode register /etc/fauno/node.key.pub fauno",
    "flwr supernode list fauno",
)
SCAN = f"""
import json, socket
def is_open(port):
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("{SERVER}", port)) == 0
print(json.dumps([port for port in range(1, 65536) if is_open(port)]))
"""
# Messages of any node and an object of any run, unsigned and signed with a key of no node.
PULL = f"""
import base64, datetime, httpx
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
key = serialization.load_ssh_private_key(open("/etc/fauno/node.key", "rb").read(), None)
now = datetime.datetime.now(datetime.UTC).isoformat()
code = lambda data: base64.b64encode(data).decode()
signed = {{
    TIMESTAMP_HEADER: now,
    FLEET_HTTP_PUBLIC_KEY_HEADER: code(public_key_to_bytes(key.public_key())),
    FLEET_HTTP_SIGNATURE_HEADER: code(sign_message(key, now.encode())),
}}
for headers in ({{}}, signed):
    answer = httpx.post(
        "https://{SERVER}:9092/v1/fleet/pull-messages",
        content=PullMessagesRequest().SerializeToString(),
        headers={{"content-type": "application/protobuf", **headers}},
        verify="/etc/fauno/tls/ca.crt",
    )
    print(answer.status_code)
"""


def test_systemd_takes_the_units_as_the_page_installs_them(tmp_path: Path) -> None:
    install, *_ = commands(AS_SERVICES)
    prepare, start = install.rsplit("\n", 2)[:2]
    assert "systemctl enable" in start
    with Machines({SERVER: "192.0.2.10"}, tmp_path) as machines:
        machine = machines[SERVER]
        machine.run(f"mkdir -p /opt; ln -sfn {Path(FAUNO).parents[1]} /opt/fauno")
        machine.run(f"cd {ROOT}\n{prepare}\ncp -r deploy/systemd/* /etc/systemd/system/")
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
