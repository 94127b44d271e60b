"""What a server cannot make a node do, and that each guard is needed: without it, the attack works.

A scenario asserts what must hold. `test_holds` runs it. `test_fails_without_its_guard` removes the
guard by the mutation registered with the scenario, and expects the scenario to fail.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fauno_flwr import client_app
from fauno_flwr.config import consent, loading, wire
from fauno_flwr.config.consent import Consent
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.federation.protocol import CONFIG, QUERY, settings_record
from fauno_flwr.shared_world import client as world_client
from sim_env import plugins
from strategies.flower_internals import set_identity, set_metadata
from tests.guarded import Scenarios, patch

NETWORK = ["topology=full20", "topology.nodes=3"]
SECRET = "5ecre7-0f-the-node"
TOKEN = "a-token-that-nobody-guesses"
veto = Scenarios()


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NODE_SECRET", SECRET)
    client_app.compile_settings.cache_clear()
    yield
    client_app.compile_settings.cache_clear()
    for name in [name for name in sys.modules if name.startswith("stranger")]:
        del sys.modules[name]


def ask(settings: str, **owner: str | bool | float) -> str:
    """Query a node with these settings; return its reason, empty if it takes part."""
    set_identity(run_id=1, node_id=1, task_id=1)
    record = ConfigRecord(settings_record(settings))
    message = Message(RecordDict({CONFIG: record}), 1000, QUERY, ttl=60)
    set_metadata(message, message_id="message-1")
    node_config = {"partition-id": 0, **{key.replace("_", "-"): x for key, x in owner.items()}}
    reply = client_app.app(message, Context(1, 1000, node_config, RecordDict(), {}))
    if not reply.has_error():
        return ""
    assert len(reply.error.reason) <= 500
    assert "\n" not in reply.error.reason
    return reply.error.reason


def ordinary(*overrides: str) -> str:
    return load_config("ether2", [*NETWORK, *overrides]).to_yaml()


def with_value(key: str, value: str) -> str:
    """Return ordinary settings with another text for one of them."""
    lines = ordinary().splitlines()
    found = [i for i, line in enumerate(lines) if line.strip().startswith(f"{key}:")]
    # Of two settings of one name, the heuristics of peers and their number, the text.
    texts = [i for i in found if not lines[i].split(":")[1].strip().isdecimal()]
    (place,) = texts if len(found) > 1 else found
    indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    lines[place] = f"{indent}{key}: {value}"
    return "\n".join(lines)


@veto(patch(wire, "REFERENCE", "no such text"))
def settings_cannot_look_up_the_environment(_: Path) -> None:
    for key in ("observation", "refill"):
        reason = ask(with_value(key, "${oc.env:NODE_SECRET}"))
        assert reason
        assert SECRET not in reason


@veto(patch(wire, "_require_plain", lambda text: None))
def settings_cannot_expand(_: Path) -> None:
    """Nor be of many levels or another type: ``&a`` by itself is harmless, and is refused."""
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))
    bomb = f"a0: &a0 [x, x]\n{levels}\n"
    for text, word in (
        (bomb, "anchor"),
        (with_value("versions", "&a 1"), "anchor"),
        (with_value("versions", "!!int 1"), "tag"),
        (f"seed: {'[' * 200}{']' * 200}", "levels"),
        (f"{ordinary()}# {'x' * 2**20}", "characters"),
    ):
        assert word in ask(text)


@veto(patch(loading, "_no_file", loading._group_file))
def settings_cannot_name_a_file_of_settings(_: Path) -> None:
    assert "must be a mapping" in ask("world: own\n")


def jobs(path: Path) -> str:
    return ordinary("workload.jobs=file", f"workload.path={path}")


@veto(patch(Consent, "require_file", lambda *_: None))
def no_file_is_read_but_what_is_allowed(tmp_path: Path) -> None:
    """Elsewhere it is not even told whether there is a file, and a link leads nowhere."""
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    allowed.mkdir()
    other.mkdir()
    good = "instructions,input_mb\n1e6,1\n"
    for folder in (allowed, other):
        (folder / "jobs.csv").write_text(good)
    (allowed / "link.csv").symlink_to(other / "jobs.csv")
    missing, present, link, above = (
        ask(jobs(path), allow_files=str(allowed))
        for path in (
            other / "nothing.csv",
            other / "jobs.csv",
            allowed / "link.csv",
            allowed / ".." / "other" / "jobs.csv",
        )
    )
    assert "allow-files" in missing
    assert missing.replace("nothing", "jobs") == present
    assert "allow-files" in link
    assert "allow-files" in above
    assert "allow-files" in ask(jobs(other / "jobs.csv"))  # by default: none
    network = load_config("ether2", [f"topology={other / 'net.json'}"]).to_yaml()
    assert "allow-files" in ask(network)
    assert ask(jobs(allowed / "jobs.csv"), allow_files=f"/nowhere, {allowed}") == ""


@veto(patch(Consent, "require_noise", lambda *_: None))
def no_update_leaves_without_the_noise_that_the_owner_asks_for(_: Path) -> None:
    local = "federation.privacy.kind=local"
    for settings in (
        ordinary(),
        ordinary("federation.privacy.kind=central", "federation.privacy.noise_multiplier=9"),
        ordinary(local, "federation.privacy.noise_multiplier=1.9"),
    ):
        assert "(least-noise in the node config)" in ask(settings, least_noise=2.0)
    assert ask(ordinary(local, "federation.privacy.noise_multiplier=2"), least_noise=2.0) == ""
    assert "least-noise in the node config is 'much'" in ask(ordinary(), least_noise="much")


@veto(patch(consent.stat, "S_ISREG", lambda mode: True))
def a_fifo_does_not_hang(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    answered: list[str] = []
    asking = threading.Thread(
        target=lambda: answered.append(ask(jobs(fifo), allow_files=str(tmp_path))), daemon=True
    )
    asking.start()
    asking.join(10)
    while asking.is_alive():  # it waits for somebody who writes
        with contextlib.suppress(OSError):
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        asking.join(0.1)
    (reason,) = answered
    assert "must be a file of this node" in reason
    assert "must be a file of this node" in ask(jobs(Path("/dev/zero")), allow_files="/dev")


@veto(patch(client_app, "value_of", lambda config, key: ""))
def what_a_file_holds_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text(f"instructions,input_mb\n{SECRET},1\n")
    (tmp_path / "shadow").write_text(f"{SECRET}:$6$\n")
    for name in ("jobs.csv", "shadow"):
        reason = ask(jobs(tmp_path / name), allow_files=str(tmp_path))
        assert "the log of this node says why" in reason
        assert SECRET not in reason


def imports(settings: str, folder: Path, **owner: str) -> tuple[str, bool]:
    """Return the answer of a node, and whether the module ``stranger`` has been imported."""
    (folder / "stranger.py").write_text(
        "import os\nimport subprocess\nOUR = 1\ndef observe(*_):\n    raise ValueError\n"
    )
    sys.path.insert(0, str(folder))
    try:
        return ask(settings, **owner), "stranger" in sys.modules
    finally:
        sys.path.remove(str(folder))


IMPORTS = [
    ("observation", "stranger:observe"),
    ("peers", "stranger:observe"),
    ("algorithm", "stranger:observe"),
    ("network", "stranger:observe"),
    ("compression", "{name: 'stranger:subprocess.Popen', args: [touch, x]}"),
]


@veto(patch(plugins, "_is_allowed", lambda module: True))
def no_module_is_imported_but_what_is_allowed(tmp_path: Path) -> None:
    for key, value in IMPORTS:
        reason, imported = imports(with_value(key, value), tmp_path)
        assert not imported, key
        assert "may be imported here" in reason or key in ("peers", "compression")
    gym = load_config("ether2", ["world=gym", "world.env_id=CartPole-v1"]).to_yaml()
    assert ask(gym) == ""
    reason, imported = imports(gym.replace("CartPole-v1", "stranger:Env-v0"), tmp_path)
    assert not imported
    assert "may be imported here" in reason
    # What is allowed is that module, not what it has imported.
    for name in ("stranger:os.system", "stranger:subprocess.Popen", "stranger:os"):
        reason, imported = imports(
            with_value("observation", name), tmp_path, allow_modules="strangers, stranger"
        )
        assert imported
        assert "may not be imported here" in reason
    reason, _ = imports(
        with_value("observation", "stranger:observe"), tmp_path, allow_modules="stranger"
    )
    assert "imported" not in reason


class Listener:
    """A service that keeps what it is sent and never answers."""

    def __init__(self) -> None:
        self.sent = b""
        self._socket = socket.create_server(("", 0), family=socket.AF_INET)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._socket.accept()
            client.settimeout(5)
            with contextlib.suppress(OSError):
                self.sent += client.recv(4096)
            client.close()


def shared(address: str) -> str:
    return ordinary("world=shared", f"world.address={address}", "world.patience=0.1")


@veto(patch(Consent, "require_world", lambda *_: None))
def no_world_is_joined_but_what_is_allowed(_: Path) -> None:
    listener = Listener()
    here = f"127.0.0.1:{listener.port}"
    assert "allow-worlds" in ask(shared(here), allow_worlds="192.0.2.1:9100")
    assert "allow-worlds" in ask(shared(here), allow_worlds="")
    assert "allow-worlds" in ask(shared("192.0.2.1:9100"))  # by default: on this machine
    assert "allow-worlds" in ask(shared("192.0.2.1:9100"), allow_worlds="192.0.2.1:91000")
    assert not listener.sent
    assert ask(shared(here), allow_worlds=f"192.0.2.1:9100, {here}") == ""
    assert ask(shared(here)) == ""
    assert listener.sent


@veto(patch(Consent, "require_secrecy", lambda *_, **__: None))
def a_token_does_not_travel_in_plain_text(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    node = {"allow_worlds": "*", "world_token_file": str(token)}
    assert "in plain text" in ask(shared("192.0.2.1:9100"), **node)
    assert "in plain text" in ask(shared("localhost.example:9100"), **node)
    assert ask(shared("127.0.0.1:9"), **node) == ""
    assert ask(shared("192.0.2.1:9100"), **node, allow_plain_token=True) == ""


@veto(patch(consent, "KEYS", ()))
def a_veto_that_is_misspelt_is_not_ignored(_: Path) -> None:
    context = Context(1, 1000, {"partition-id": 0, "share_actor": False}, RecordDict(), {})
    with pytest.raises(ConfigError, match=r"'share_actor' .*: must be share-actor"):
        Consent.read(context.node_config)
    assert "must be true or false" in ask(ordinary(), share_actor="no")


@pytest.mark.parametrize("name", [*veto])
def test_holds(name: str, tmp_path: Path) -> None:
    veto.require_holds(name, tmp_path)


@pytest.mark.parametrize("name", [*veto])
def test_fails_without_its_guard(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    veto.require_fails_unguarded(name, tmp_path, monkeypatch)


def test_everything_is_allowed_in_the_simulation_of_one_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consent, "in_simulation", lambda: True)
    assert Consent.read({"partition-id": 0}) == Consent()
    assert not Consent.read({"share-actor": False}).share_actor
    assert world_client.Consent is Consent
