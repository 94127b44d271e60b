"""What the owner of a node allows, by the node config alone, whatever the server sends."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fauno_flwr.config.agent import MODEL
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.privacy import LOCAL, PrivacyConfig
from fauno_flwr.config.settings import SHARED, RunConfig, is_loopback
from sim_env.errors import require_number, require_path, shown
from strategies.flower_internals import in_simulation

SHARE_ACTOR, ALLOW_WORLDS = "share-actor", "allow-worlds"
ALLOW_FILES, ALLOW_MODULES = "allow-files", "allow-modules"
ALLOW_PLAIN_TOKEN, LEAST_NOISE = "allow-plain-token", "least-noise"
KEYS = (SHARE_ACTOR, ALLOW_WORLDS, ALLOW_FILES, ALLOW_MODULES, ALLOW_PLAIN_TOKEN, LEAST_NOISE)
FILES = ("topology.path", "workload.path", "workload.sources")  # settings of which a node reads
ANY, LOOPBACK = "*", "loopback"
LARGEST_FILE = 2**28  # bytes


@dataclass(frozen=True)
class Consent:
    """What the server of a run may make a node do.

    Parameters
    ----------
    share_actor : bool, default True
        Whether the actor may leave the node: in an answer, in an update, or to a shared world.
    worlds : tuple of str, optional
        Addresses of the shared worlds that the node may join; ``loopback`` stands for all on this
        machine. None: any.
    folders : tuple of Path, optional
        Folders with the files that the settings of a run may name; None: any.
    modules : tuple of str, optional
        Modules that the settings of a run may name; None: any.
    plain_token : bool, default True
        Whether the token of a shared world may leave this machine without TLS.
    least_noise : float, default 0.0
        Smallest noise of an update, as of ``federation.privacy.noise_multiplier``; 0: none.
    """

    share_actor: bool = True
    worlds: tuple[str, ...] | None = None
    folders: tuple[Path, ...] | None = None
    modules: tuple[str, ...] | None = None
    plain_token: bool = True
    least_noise: float = 0.0

    @classmethod
    def read(cls, node_config: Mapping[str, Any]) -> Self:
        """Read what a node config allows.

        By default that is to share the actor, and to join shared worlds on this machine. In
        Flower's simulation, server and nodes are those of one person: by default it is everything.

        Parameters
        ----------
        node_config : mapping
            ``share-actor`` and ``allow-plain-token`` are true or false; ``allow-worlds``,
            ``allow-files`` (absolute folders) and ``allow-modules`` are lists, with commas; ``*``
            allows any; ``least-noise`` is a number.

        Raises
        ------
        ConfigError
            If a value is not of that form.
        """
        for key in node_config:
            meant = key.lower().replace("_", "-")
            if meant in KEYS and key != meant:  # a veto that is misspelt must not be ignored
                raise ConfigError(f"key {shown(key)} in the node config: must be {meant}")
        trusted = in_simulation()
        folders = _listed(node_config, ALLOW_FILES, trusted)
        for folder in folders or ():
            if not Path(folder).is_absolute():
                raise ConfigError(
                    f"{ALLOW_FILES} in the node config has {folder!r}: must be absolute folders"
                )
        return cls(
            _flag(node_config, SHARE_ACTOR, default=True),
            _listed(node_config, ALLOW_WORLDS, trusted, LOOPBACK),
            None if folders is None else tuple(Path(os.path.realpath(f)) for f in folders),
            _listed(node_config, ALLOW_MODULES, trusted),
            _flag(node_config, ALLOW_PLAIN_TOKEN, default=trusted),
            _number(node_config, LEAST_NOISE),
        )

    def require(self, config: RunConfig) -> None:
        """Check the settings of a run, before anything that they name is read or reached.

        Raises
        ------
        ConfigError
            If they ask for more than is allowed.
        """
        if not self.share_actor and config.federation.share == MODEL:
            raise ConfigError(
                f"federation.share is {MODEL!r}: must be another one, the actor stays here "
                f"({SHARE_ACTOR}=false in the node config)"
            )
        self.require_noise(config.federation.privacy)
        if config.world.kind == SHARED:
            self.require_world(config.world.address)
        for key in FILES:
            if written := value_of(config, key):
                self.require_file(key, written)

    def require_noise(self, privacy: PrivacyConfig) -> None:
        """Raise :class:`ConfigError` if updates would leave with less noise than is asked for."""
        noise = privacy.noise_multiplier if privacy.kind == LOCAL else 0.0
        if noise < self.least_noise:
            raise ConfigError(
                f"federation.privacy has kind {privacy.kind!r} and noise_multiplier "
                f"{privacy.noise_multiplier:g}: must be {LOCAL!r} and at least "
                f"{self.least_noise:g} ({LEAST_NOISE} in the node config)"
            )

    def require_world(self, address: str) -> None:
        """Raise :class:`ConfigError` unless the actor may act in the shared world at an address."""
        if not self.share_actor:
            raise ConfigError(
                f"world.kind is {SHARED!r}: must be another one, the actor stays here "
                f"({SHARE_ACTOR}=false in the node config)"
            )
        local = LOOPBACK in (self.worlds or ()) and is_loopback(address.rpartition(":")[0])
        if self.worlds is not None and address not in self.worlds and not local:
            raise ConfigError(
                f"world.address is {shown(address)}: must be one that the owner of this node "
                f"allows ({ALLOW_WORLDS} in the node config)"
            )

    def require_secrecy(self, address: str, *, token: bool, encrypted: bool) -> None:
        """Raise :class:`ConfigError` if a token would leave this machine in plain text."""
        host = address.rpartition(":")[0]
        if token and not encrypted and not self.plain_token and not is_loopback(host):
            raise ConfigError(
                f"world.address is {shown(address)}: must be on loopback, the token does not leave "
                f"this node in plain text (world-ca in the node config encrypts, "
                f"{ALLOW_PLAIN_TOKEN}=true allows it)"
            )

    def require_file(self, key: str, written: str) -> None:
        """Raise :class:`ConfigError` unless a file is a regular one in a folder that is allowed.

        Outside of these folders, the sentence does not tell whether there is a file.
        """
        if self.folders is None:
            return
        try:
            path = Path(os.path.realpath(require_path(key, written)))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if not any(path.is_relative_to(folder) for folder in self.folders):
            raise ConfigError(
                f"{key} is {shown(written)}: must be in a folder that the owner of this node "
                f"allows ({ALLOW_FILES} in the node config)"
            )
        try:
            found = path.stat()
        except OSError:
            found = None
        # A FIFO would block for ever, a device would never end.
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_FILE:
            raise ConfigError(
                f"{key} is {shown(written)}: must be a file of this node, of at most "
                f"{LARGEST_FILE} bytes"
            )


def value_of(config: RunConfig, key: str) -> str:
    """Return the path in a setting of :data:`FILES`; empty if there is none."""
    group, _, name = key.partition(".")
    return str(getattr(getattr(config, group), name) or "")


def _flag(node_config: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = node_config.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} in the node config is {shown(value)}: must be true or false")
    return value


def _number(node_config: Mapping[str, Any], key: str) -> float:
    value = node_config.get(key, 0.0)
    try:
        require_number(f"{key} in the node config", value, at_least=0)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return float(value)


def _listed(
    node_config: Mapping[str, Any], key: str, trusted: bool, default: str = ""
) -> tuple[str, ...] | None:
    value = node_config.get(key, ANY if trusted else default)
    if not isinstance(value, str):
        raise ConfigError(f"{key} in the node config is {shown(value)}: must be text, with commas")
    entries = tuple(entry.strip() for entry in value.split(",") if entry.strip())
    return None if ANY in entries else entries
