"""Checkpoints of a run: where they are, and the settings that they belong to."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.layers import PATHS
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.results.directory import require_folder
from strategies import Checkpoints
from strategies.checkpoint import Part

# Settings, or groups of them, that may change when a training is resumed.
MAY_CHANGE = (
    "evaluation",
    "federation.bind_keys",
    "federation.checkpoints",
    "federation.collect_actors",
    "federation.privacy.max_epsilon",
    "federation.replace_lost_agents",
    "federation.timeout",
    "federation.ttl",
    "federation.versions",
    "federation.wait_for_nodes",
    "world.address",
)
AGENTS = "agents"


def make_checkpoints(config: RunConfig, parts: Mapping[str, Part]) -> Checkpoints | None:
    """Make the checkpoints of a run; None without ``federation.checkpoints``.

    Parameters
    ----------
    config : RunConfig
    parts : mapping of str to Part
        What is saved beside the state of the strategy.
    """
    folder = config.federation.checkpoints
    if not folder:
        return None
    return Checkpoints(folder, resume=True, about=identity(config), parts=parts)


def require_own_checkpoints(config: RunConfig) -> None:
    """Check that the folder of the checkpoints is new, or of a training with these settings.

    Raises
    ------
    ConfigError
        If it cannot be used, or is of another training; the settings that differ are named.
    """
    checkpoints = make_checkpoints(config, {})
    if checkpoints is None:
        return
    require_folder("federation.checkpoints", config.federation.checkpoints)
    try:
        checkpoints.check()
    except ValueError as error:
        raise ConfigError(
            f"federation.checkpoints: {error}; choose another folder to train anew "
            f"(may change on a resume: {', '.join(MAY_CHANGE)})"
        ) from error


def identity(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a training depends on, by dotted key.

    The name and the content of a file count, not its folder.
    """
    settings = OmegaConf.to_container(OmegaConf.create(config.to_yaml()))
    return {
        key: _of_file(value) if key in PATHS else value
        for key, value in _flat("", settings)
        if not any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)
    }


def agents_folder(config: RunConfig) -> Path:
    """Return the folder of the agents, where the nodes are those of one user's machine."""
    return Path(config.federation.checkpoints).absolute() / AGENTS


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield prefix.removesuffix("."), value
        return
    for key, inner in value.items():
        yield from _flat(f"{prefix}{key}.", inner)


def _of_file(path: str) -> str:
    """Describe a file; a path without one stays."""
    if not Path(path).is_file():
        return path
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return f"{Path(path).name} (SHA-256 {digest[:12]})"
