"""Commands of a deployment, without an engine."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from fauno_flwr.deployment.keys import write_certificates, write_node_key
from fauno_flwr.deployment.local import Deployment
from tests.fauno_flwr.cli.test_main import fauno


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["deploy", "local", "--auth"], "keys of SuperNodes need TLS, add --tls"),
        (["deploy", "local", "--nodes", "3", "topology=ether1"], "nodes is 3: has no effect"),
        (["deploy", "local", "training.seconds_per_message=-1"], "seconds_per_message is -1.0"),
        (["deploy", "local", "--out", "/proc/nothing/x"], "cannot be written"),
        (["deploy", "certificates", "ä.example", "--out", "/tmp/none"], "hosts is ['ä.example']"),
        (["deploy", "key", "/proc/nothing/key"], "'/proc/nothing' cannot be made"),
        (["status", "/proc"], "holds no events.jsonl"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    done = fauno(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_keys_without_tls_are_refused_by_the_engine_too() -> None:
    with pytest.raises(ValueError, match="auth is on and tls is off"):
        Deployment(2, auth=True)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Do a TLS handshake in memory; raise ``ssl.SSLError`` if the client does not trust."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=name),
        server.wrap_bio(up, down, server_side=True),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue


def test_a_certificate_holds_for_its_hosts_and_its_authority_only(tmp_path: Path) -> None:
    made = write_certificates(["superlink.example", "127.0.0.1"], tmp_path / "tls")
    other = write_certificates(["superlink.example"], tmp_path / "other")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    trusting = ssl.create_default_context(cafile=str(made.authority))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("superlink.example", "127.0.0.1"):
        handshake(server, trusting, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(server, trusting, "elsewhere.example")
    stranger = ssl.create_default_context(cafile=str(other.authority))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, stranger, "superlink.example")
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600


def test_a_key_pair_belongs_together_and_is_never_overwritten(tmp_path: Path) -> None:
    private = tmp_path / "new" / "node.key"
    public = write_node_key(private)
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    key = serialization.load_ssh_private_key(private.read_bytes(), password=None)
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    assert public.read_bytes().strip() == key.public_key().public_bytes(*form)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes()
    done = fauno("deploy", "key", str(private))
    assert (done.returncode, private.read_bytes()) == (2, before)
    assert "exists" in done.stderr
