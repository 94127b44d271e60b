"""Merge layers of settings over the defaults, and remember the source of each."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fauno_flwr.config.agent import PPO, config_class
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.origins import ABSENT, CONF, Origin, Resolved
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.config.unused import require_read
from sim_env.errors import no_effect, require_choice, require_path, shown

PATHS = (
    *("topology.path", "workload.path", "workload.sources"),
    *("federation.checkpoints", "federation.start"),
)

# Settings that are no single value; OmegaConf's own errors name Python types.
EXAMPLES = {
    "cosim.slowdown": "{rpi_3: 10, nuc_0: 2}",
    "dynamics.nodes": "{rpi_3: [{down: 20, up: 60}], nuc_0: [{down: 100}]}",
    "dynamics.links": "{rpi_3/nuc_0: [{down: 20, up: 60}]}",
    "evaluation.policies": "[sed, my_module:MyRule]",
    "workload.schedule.steps": "[{multiplier: 1, seconds: 100}, {multiplier: 2.5, seconds: 50}]",
    "workload.source_rates": "{rpi_3: 2, rpi_1*: 0.5}",
    "workload.deadline_factors": "{rpi_3: 2, rpi_1*: 0.5}",
    "physics.stated_speed_factors": "{rpi_3: 2, rpi_1*: 0.5}",
    "reward.delay_factors": "{rpi_3: 2, rpi_1*: 0.5}",
    "reward.loss_factors": "{rpi_3: 2, rpi_1*: 0.5}",
    "workload.types": "[{instructions: 1e+7, megabytes: 20, weight: 6}]",
}
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclasses.dataclass(frozen=True)
class Layer:
    """Settings from one source.

    Parameters
    ----------
    source : str
        In words.
    rank : int
        ``CONF`` or ``COMMAND_LINE``.
    values : mapping
        By group and key.
    folder : Path, optional
        What relative paths are relative to; None: they stay relative.
    """

    source: str
    rank: int
    values: Any
    folder: Path | None = None


def resolve(
    layers: Sequence[Layer], group_file: Callable[[str, str], Any], command: str = ""
) -> Resolved:
    """Merge layers over the defaults and build the settings.

    A group that is chosen by name replaces what earlier layers say of it; a mapping is merged.
    Another kind (of topology, algorithm, ...) discards what layers of a lower rank have set for
    the previous one.

    Parameters
    ----------
    layers : sequence of Layer
        The last one wins.
    group_file : callable
        ``(group, name)`` returns what the file of that name holds.
    command : str, optional
        As of :func:`fauno_flwr.config.loading.load_resolved`.
    """
    groups: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for layer in layers:
        if not isinstance(layer.values, Mapping):
            raise ConfigError(
                f"settings are {shown(layer.values)}: must be a mapping of keys to values"
            )
        for name, value in absolute(layer.values, layer.folder).items():
            require_key(RunConfig, "", str(name))
            _add(str(name), value, layer, groups, origins, group_file)
    merged = OmegaConf.structured(RunConfig)
    for name, value in groups.items():
        merged[name] = _built(name, value, origins)
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = error.full_key or "a setting"
        raise ConfigError(f"{key} has no value: must be given without ??? and ${{...}}") from error
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from error
    assert isinstance(config, RunConfig)
    found = Resolved(config, origins)
    require_read(found, command)
    return found


def absolute(values: Mapping[Any, Any], folder: Path | None) -> dict[Any, Any]:
    """Return settings with their paths made absolute, if there is a folder.

    A topology that is named by a file, ``topology: net.json``, is one of the kind ``file``.
    """
    made = dict(values)
    named = made.get("topology")
    if isinstance(named, str) and named.endswith(".json"):
        made["topology"] = {"kind": "file", "path": named}
    for key in PATHS if folder is not None else ():
        group, _, name = key.partition(".")
        written = made[group].get(name) if isinstance(made.get(group), Mapping) else None
        if isinstance(written, str) and written:
            try:
                path = require_path(key, written)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            made[group] = {**made[group], name: os.path.abspath(Path(str(folder)) / path)}
    return made


def require_key(kind: type, prefix: str, name: str) -> None:
    """Raise :class:`ConfigError` unless a dataclass has a field of that name."""
    known = [prefix + item.name for item in dataclasses.fields(kind)]
    try:
        require_choice("key", prefix + name, known)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _add(
    name: str,
    value: Any,
    layer: Layer,
    groups: dict[str, Any],
    origins: dict[str, Origin],
    group_file: Callable[[str, str], Any],
) -> None:
    """Add what a layer says of a group or of a single setting."""
    origin = Origin(layer.source, layer.rank, not _is_resolved(RunConfig, layer, layer.values))
    if not dataclasses.is_dataclass(getattr(_defaults(), name)):
        groups[name], origins[name] = value, origin
        return
    if isinstance(value, str):
        before, groups[name] = {}, group_file(name, value)
        origin = origin._replace(source=f"{name}={value}, {layer.source}")
        for key in [key for key in origins if key.startswith(f"{name}.")]:
            del origins[key]
        value = groups[name]
    elif isinstance(value, Mapping):
        before = groups.get(name, {})
    else:
        raise ConfigError(f"{name} is {shown(value)}: must be a name or a mapping")
    groups[name] = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(before), value))
    kind = _group_class(name, groups[name])
    origin = origin._replace(explicit=not _is_resolved(kind, layer, value))
    for key, _ in _leaves(kind, f"{name}.", value):
        origins[key] = origin


def _is_resolved(kind: type, layer: Layer, values: Mapping[Any, Any]) -> bool:
    """Return whether a file holds every setting of a dataclass, as that of a run does."""
    written = {str(key) for key in values}
    return layer.rank == CONF and written >= {item.name for item in dataclasses.fields(kind)}


def _built(name: str, value: Any, origins: dict[str, Origin]) -> Any:
    """Return a setting or a group with the types of its dataclass."""
    if not isinstance(value, Mapping) or not dataclasses.is_dataclass(getattr(_defaults(), name)):
        _require_strict(RunConfig, "", name, value)
        _require_type(RunConfig, "", name, value)
        return value
    kind = _group_class(name, value)
    values = dict(value)
    if name == "agent":
        chosen = origins.get("agent.algorithm", ABSENT).rank
        known = {item.name for item in dataclasses.fields(kind)}
        for key in [key for key in values if key not in known]:
            if origins[f"agent.{key}"].rank < chosen:  # a setting of the previous algorithm
                del values[key], origins[f"agent.{key}"]
    _require_keys(kind, f"{name}.", values)
    for key, each in _leaves(kind, f"{name}.", values):
        _require_strict(kind, f"{name}.", key.removeprefix(f"{name}."), each)
    try:
        node = OmegaConf.merge(OmegaConf.structured(kind), values)
    except (OmegaConfBaseException, ValueError, TypeError):
        for key, each in _leaves(kind, f"{name}.", values):
            _require_type(kind, f"{name}.", key.removeprefix(f"{name}."), each)
        raise
    assert isinstance(node, DictConfig)
    _discard_unused(kind, f"{name}.", node, origins)
    return node


def _discard_unused(kind: type, prefix: str, node: DictConfig, origins: dict[str, Origin]) -> None:
    """Reset the settings of a previous kind; raise :class:`ConfigError` for others of no effect."""
    defaults = OmegaConf.structured(kind)
    for name, use in getattr(kind, "uses", {}).items():
        origin = origins.get(prefix + name, ABSENT)
        if origin is ABSENT or not _is_known(node, name) or not _is_known(node, use.of):
            continue
        other = node[use.of]
        if use.holds(other) or node[name] == use.neutral:
            continue
        if origin.rank < origins.get(prefix + use.of, ABSENT).rank:
            node[name] = defaults[name]
            del origins[prefix + name]
        elif origin.explicit:
            raise ConfigError(no_effect(prefix + name, node[name], prefix + use.of, other))
    for item in dataclasses.fields(kind):
        nested = _nested(kind, item.name)
        if nested is not None:
            _discard_unused(nested, f"{prefix}{item.name}.", node[item.name], origins)


def _is_known(node: DictConfig, name: str) -> bool:
    """Return whether a setting is a value, neither missing nor a reference to another one."""
    return not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name)


@cache
def _defaults() -> RunConfig:
    return RunConfig()


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _group_class(name: str, value: Any) -> type:
    """Return the dataclass of a group."""
    if name == "agent":
        return config_class(value.get("algorithm", PPO))
    return type(getattr(_defaults(), name))


def _nested(kind: type, name: str) -> type | None:
    """Return the dataclass of a field; None if it is not one."""
    hint = _hints(kind).get(name)
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def _leaves(kind: type, prefix: str, values: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each setting, those of nested dataclasses too."""
    for name, value in values.items():
        nested = _nested(kind, str(name))
        if nested is not None and isinstance(value, Mapping):
            yield from _leaves(nested, f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _require_keys(kind: type, prefix: str, values: Mapping[Any, Any]) -> None:
    """Raise :class:`ConfigError` for a key that a dataclass, or one nested in it, has not."""
    for name, value in values.items():
        require_key(kind, prefix, str(name))
        nested = _nested(kind, str(name))
        if nested is not None and isinstance(value, Mapping):
            _require_keys(nested, f"{prefix}{name}.", value)


def _require_strict(kind: type, prefix: str, name: str, value: Any) -> None:
    """Raise :class:`ConfigError` for a value that OmegaConf converts, or leaves out."""
    hint, number = _hint(kind, name), isinstance(value, int | float)
    if value == "???" or (
        (number and (hint is str or (hint is bool and not isinstance(value, bool))))
        or (hint in (int, float) and isinstance(value, bool))
    ):
        allowed = _allowed(kind, prefix, name)
        raise ConfigError(f"{prefix}{name} is {shown(value)}: must be {allowed}")


def _require_type(kind: type, prefix: str, name: str, value: Any) -> None:
    """Raise :class:`ConfigError` for a value of another type than that of the setting."""
    try:
        OmegaConf.update(OmegaConf.structured(kind), name, value)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(
            f"{prefix}{name} is {shown(value)}: must be {_allowed(kind, prefix, name)}"
        ) from error


def _allowed(kind: type, prefix: str, name: str) -> str:
    """Return in words what the type of a setting allows."""
    if prefix + name in EXAMPLES:
        return f"of the form {EXAMPLES[prefix + name]}"
    hint = _hint(kind, name)
    if hint is not None and dataclasses.is_dataclass(hint):
        keys = ", ".join(item.name for item in dataclasses.fields(hint))
        return f"a mapping of {keys}"
    return WORDS[hint] if hint in WORDS else str(hint).replace("|", "or")


def _hint(kind: type, name: str) -> Any:
    """Return the type of a setting of a dataclass, by its dotted name; None if it is unknown."""
    owner: type | None = kind
    *path, last = name.split(".")
    for part in path:
        owner = _nested(owner, part) if owner else None
    return _hints(owner)[last] if owner else None
