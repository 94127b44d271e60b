"""Certificates and keys of a deployment: an authority for TLS, a key pair for each SuperNode."""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fauno_flwr.config.errors import ConfigError

DAYS = 825  # the longest that common verifiers accept
PRIVATE_DIR, PRIVATE_FILE = 0o700, 0o600
NO_USAGE = dict.fromkeys(
    (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    ),
    False,
)  # fmt: skip


@dataclass(frozen=True)
class Certificates:
    """Files of a TLS server and of the authority that signed it."""

    authority: Path
    certificate: Path
    key: Path


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file, which must not exist, with its permissions set before it is written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(f"{str(path)!r} exists: choose a new folder or name") from None
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written ({error.strerror})") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def make_private_folder(folder: Path) -> Path:
    """Make a folder that only its owner can access; an existing one is left as it is."""
    try:
        folder.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{str(folder)!r} cannot be made ({error.strerror})") from error
    return folder


def _private_bytes(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def write_certificates(hosts: Sequence[str], folder: Path, days: int = DAYS) -> Certificates:
    """Make an authority and a server certificate that it signed.

    The authority's key is discarded, so only the server's key has to be kept secret; a further
    certificate needs a new authority.

    Parameters
    ----------
    hosts : sequence of str
        Names and addresses under which clients reach the SuperLink.
    folder : Path
        Gets ``ca.crt``, which every client needs, ``server.pem`` and ``server.key`` (mode 600).
    days : int, default 825
        Validity.

    Raises
    ------
    ConfigError
        If there are no hosts, a host cannot be in a certificate, or a file exists.
    """
    if not hosts:
        raise ConfigError("hosts is []: must be names or addresses of the SuperLink")
    for host in hosts:
        if not host or any(each.isspace() for each in host):
            raise ConfigError(f"hosts has {host!r}: must be names or addresses of the SuperLink")
    try:
        names = x509.SubjectAlternativeName([_alternative_name(host) for host in hosts])
    except ValueError as error:
        raise ConfigError(f"hosts is {list(hosts)}: {error}") from error
    authority_key, key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    authority, certificate = _authority_and_certificate(authority_key, key, names, days)
    make_private_folder(folder)
    files = Certificates(folder / "ca.crt", folder / "server.pem", folder / "server.key")
    private = _private_bytes(key, serialization.PrivateFormat.PKCS8)
    write_new(files.key, private, PRIVATE_FILE)
    write_new(files.certificate, certificate, 0o644)
    write_new(files.authority, authority, 0o644)
    return files


def _authority_and_certificate(
    authority_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    names: x509.SubjectAlternativeName,
    days: int,
) -> tuple[bytes, bytes]:
    """Sign the authority's own certificate and that of the server; return both as PEM."""
    # Machines whose clocks are slow must accept the certificate too.
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    end = start + datetime.timedelta(days=days)
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fauno authority")])
    signer = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())

    def signed(builder: x509.CertificateBuilder) -> bytes:
        return (
            builder.issuer_name(authority_name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .sign(authority_key, hashes.SHA384())
            .public_bytes(serialization.Encoding.PEM)
        )

    authority = signed(
        x509.CertificateBuilder()
        .subject_name(authority_name)
        .public_key(authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**NO_USAGE, "key_cert_sign": True}), critical=True)
        .add_extension(signer, critical=False)
    )
    certificate = signed(
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fauno SuperLink")]))
        .public_key(key.public_key())
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False
        )
    )
    return authority, certificate


def write_node_key(path: Path) -> Path:
    """Make the key pair of a SuperNode (ECDSA on P-384, OpenSSH format).

    Parameters
    ----------
    path : Path
        Of the private key (mode 600); the public one gets ``.pub`` appended. A folder that does
        not exist is made, for its owner only.

    Returns
    -------
    Path
        Of the public key.

    Raises
    ------
    ConfigError
        If one of the files exists or cannot be written.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    public = path.with_name(f"{path.name}.pub")
    make_private_folder(path.parent)
    write_new(path, _private_bytes(key, serialization.PrivateFormat.OpenSSH), PRIVATE_FILE)
    text = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    write_new(public, text + b"\n", 0o644)
    return public
