"""Other values of every setting, and whether one of them changes what is built."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.reference import settings
from fauno_flwr.config.settings import RunConfig

FOLDER = Path(__file__).parent / "data"
NODE = {"id": "a", "coordinates": [0, 0], "capacity": {"cpu_milis": 1000, "memory": 3_200_000_000}}
# Values of the settings that are neither numbers nor names of a list.
VALUES: dict[str, list[Any]] = {
    "workload.types": [[{"instructions": 3e6, "megabytes": 1.0}]],
    "workload.source_rates": [{"*": 0.7}],
    "workload.deadline_factors": [{"*": 0.7}],
    "physics.stated_speed_factors": [{"*": 0.7}],
    "reward.delay_factors": [{"*": 0.7}],
    "reward.loss_factors": [{"*": 0.7}],
    "workload.schedule.steps": [[{"multiplier": 3, "seconds": 3}]],
    "dynamics.nodes": [{"*": []}, {"rpi_0": [{"down": 1}]}, {"node_0": [{"down": 1}]}],
    "dynamics.links": [{"rpi_0/nuc_0": [{"down": 1}]}],
    "evaluation.policies": [["lq"]],
    "federation.privacy.clip_quantile": [0.9],
    "cosim.slowdown": [{"rpi_0": 50}],
    "cosim.server": ["nuc_0"],
    "cosim.message_factor": [1000.0],
    "world.address": ["127.0.0.1:9"],
    "world.env_id": ["Acrobot-v1"],
    "training.peers": ["local"],
}
SOURCES = ("rpi_0", "node_0")  # nodes of some networks
ALLOWED = {each.key: each.allowed for each in settings()}


def write_files(folder: Path) -> None:
    """Write the files that settings name: networks, tables of jobs, and sources."""
    for name, rate in (("a", 1), ("b", 2)):
        nodes = {
            node: {**NODE, "id": node, "coordinates": [place, rate]}
            for place, node in enumerate(("rpi_0", "nuc_0", "server_0")[: rate + 1])
        }
        links = {"neighbours": {"nuc_0": [node for node in nodes if node != "nuc_0"]}}
        (folder / f"{name}.json").write_text(json.dumps({"nodes": nodes, "links": links}))
        (folder / f"{name}.csv").write_text(f"instructions,size_mb\n1e7,{rate}\n")
    for name in SOURCES:
        (folder / f"{name}.csv").write_text(f"node\n{name}\n")


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting of a dataclass with its value."""
    for item in fields(value):
        each, key = getattr(value, item.name), prefix + item.name
        if is_dataclass(each):
            yield from leaves(each, f"{key}.")
        else:
            yield key, each


def others(key: str, value: Any, folder: Path) -> list[Any]:
    """Return other values of a setting, some of which may be impossible."""
    if key in VALUES:
        return VALUES[key]
    if key.endswith(".path"):
        kind = "json" if key.startswith("topology") else "csv"
        return [str(folder / f"b.{kind}")]
    if key == "workload.sources":
        return [str(folder / f"{name}.csv") for name in SOURCES]
    if key == "federation.checkpoints":
        return [str(folder / "checkpoints")]
    if key == "federation.start":  # of a run that is there, where runs are made
        return [str(folder / "1" / "checkpoints" / "critic.safetensors")]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value + 3, value // 2, 0, 1, 2]
    if isinstance(value, float):
        return [1.5 * value + 0.1, value / 2, 1.0, 0.0, 1e-3, 1e-9]
    names = re.findall(r"`([^`]+)`", ALLOWED[key])
    return [name for name in names if name not in (value, "module:object")]


def require_effect(
    base: list[str],
    key: str,
    fingerprint: Callable[[RunConfig], bytes],
    expected: bytes,
    folder: Path,
    command: str = "",
) -> None:
    """Assert that another value of a setting is refused, or changes the fingerprint.

    Parameters
    ----------
    base : list of str
        Overrides.
    key : str
    fingerprint : callable
        What the settings build.
    expected : bytes
        The fingerprint of `base`.
    folder : Path
        As of :func:`write_files`.
    command : str, optional
        As of :func:`fauno_flwr.config.loading.load_config`.
    """
    value = dict(leaves(load_config("ether2", base, command)))[key]
    tried = []
    for other in others(key, value, folder):
        if other == value:
            continue
        override = f"{key}={json.dumps(other)}"
        try:
            config = load_config("ether2", [*base, override], command)
        except ConfigError as error:
            if "has no effect" in str(error):
                return
            continue
        try:
            found = fingerprint(config)
        except ConfigError:  # impossible in this world
            continue
        except RuntimeError as error:  # it prevents the run
            found = str(error).encode()
        if found != expected:
            return
        tried.append(override)
    assert tried, f"{key}: no other possible value is known, add one to VALUES"
    raise AssertionError(f"without effect, and not refused, after {base}: {', '.join(tried)}")


def as_bytes(value: Any) -> bytes:
    """Return arrays, numbers and tuples of them as bytes."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, tuple | list):
        return b"|".join(as_bytes(each) for each in value)
    return repr(value).encode()
