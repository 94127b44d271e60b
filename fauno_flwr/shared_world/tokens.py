"""Tokens of a shared world: one for each agent, all derived from one secret of the service.

The service keeps the secret and no list. A node has the token of its own agent, with which it can
neither act for another agent nor compute another token.
"""

import hashlib
import hmac
from pathlib import Path

from fauno_flwr.config.errors import ConfigError

OPERATOR = "operator"  # may read the joint table
SHORTEST_SECRET = 16  # characters: holders of a token may search for the secret at their leisure
LONGEST_NUMBER = 9  # digits of an agent


def token_of(secret: str, bearer: str) -> str:
    """Return the token of a bearer.

    Parameters
    ----------
    secret : str
        Of the service.
    bearer : str
        Number of an agent, or :data:`OPERATOR`.
    """
    text = f"fauno world {bearer}".encode()
    return f"{bearer}.{hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()}"


def bearer_of(secret: str, token: str) -> str | None:
    """Return whose token it is; None if it is nobody's."""
    bearer = token.partition(".")[0]
    number = bearer.isascii() and bearer.isdecimal() and len(bearer) <= LONGEST_NUMBER
    if not number and bearer != OPERATOR:
        return None
    expected = token_of(secret, bearer)
    return bearer if hmac.compare_digest(token.encode(), expected.encode()) else None


def read_file(path: Path) -> bytes:
    """Return the bytes of a file; raise ``ConfigError`` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror})") from error


def read_token(path: Path) -> str:
    """Return the token in a file; raise ``ConfigError`` unless it is valid in a header."""
    token = read_file(path).strip()
    if not token or not all(0x21 <= byte < 0x7F for byte in token):
        raise ConfigError(f"{str(path)!r} holds no token: must be one line of printable ASCII")
    return token.decode()


def read_secret(path: Path) -> str:
    """Return the secret in a file; raise ``ConfigError`` if it is too short to be one."""
    secret = read_token(path)
    if len(secret) < SHORTEST_SECRET:
        raise ConfigError(
            f"{str(path)!r} holds {len(secret)} characters: a secret must have at least "
            f"{SHORTEST_SECRET}"
        )
    return secret
