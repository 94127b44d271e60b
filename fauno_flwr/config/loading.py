"""Load the settings of a run from the YAML files of ``conf/``.

A file holds what differs from the defaults of its dataclass. A preset names a file for a group
(``topology: ether4``, or the path of a topology file, ``topology: net.json``) or spells the group
out; overrides such as ``workload.rate=1`` or ``topology=ether4`` come last.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fauno_flwr.config.agent import PPO, config_class
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from sim_env.errors import require_choice

# conf/ stands beside the packages in a checkout and in a FAB, inside this one in a wheel.
_PLACES = (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf")

# Settings that are no single value; OmegaConf's own errors name Python types.
EXAMPLES = {
    "cosim.slowdown": "{rpi_3: 10, nuc_0: 2}",
    "dynamics.nodes": "{rpi_3: [{down: 20, up: 60}], nuc_0: [{down: 100}]}",
    "dynamics.links": "{rpi_3/nuc_0: [{down: 20, up: 60}]}",
    "evaluation.policies": "[sed, my_module:MyRule]",
    "workload.schedule.steps": "[{multiplier: 1, seconds: 100}, {multiplier: 2.5, seconds: 50}]",
    "workload.source_rates": "{rpi_3: 2, rpi_1*: 0.5}",
}


def conf_dir() -> Path:
    """Return the folder ``conf``, wherever this package was installed."""
    for place in _PLACES:
        if (place / "preset").is_dir():
            return place
    raise ConfigError(f"the folder conf is missing: searched {', '.join(map(str, _PLACES))}")


def choices(group: str) -> list[str]:
    """Return the names of the files of a group of ``conf``."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def from_yaml(text: str) -> RunConfig:
    """Read the settings that :meth:`RunConfig.to_yaml` wrote."""
    return _build([OmegaConf.to_container(OmegaConf.create(text))])


def load_config(conf: str = "ether2", overrides: Sequence[str] = ()) -> RunConfig:
    """Load settings from a preset and overrides.

    Parameters
    ----------
    conf : str, default "ether2"
        Name of a preset, or path of a YAML file (the ``config.yaml`` of a run is one).
    overrides : sequence of str
        ``key=value`` with dotted keys.

    Returns
    -------
    RunConfig

    Raises
    ------
    ConfigError
        One sentence with the offending value and what is allowed.
    """
    if conf.endswith((".yaml", ".yml")):
        path = Path(conf).expanduser()
    else:
        _require_one_of("conf", conf, choices("preset"))
        path = conf_dir() / "preset" / f"{conf}.yaml"
    layers = [_read_override(override) for override in overrides]
    # The choice of a whole group comes before single keys of it, in whatever order they stand.
    layers.sort(key=lambda layer: not all(isinstance(value, str) for value in layer.values()))
    return _build([_read(path), *layers])


def _read_override(override: str) -> dict[str, Any]:
    """``a.b=c`` as a nested mapping."""
    if "=" not in override.lstrip("="):
        raise ConfigError(f"override {override!r} must be of the form key=value")
    try:
        layer = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
    except Exception as error:  # the YAML parser has many
        raise ConfigError(f"override {override!r}: {_first_line(error)}") from error
    assert isinstance(layer, dict)
    return {str(key): value for key, value in layer.items()}


def _read(path: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise ConfigError(f"conf {str(path)!r} cannot be read: {error.strerror}") from error
    except Exception as error:  # the YAML parser has many
        raise ConfigError(f"conf {str(path)!r} is not YAML: {_first_line(error)}") from error


def _build(layers: Sequence[Any]) -> RunConfig:
    """Merge layers, each a mapping with dotted groups already nested, over the defaults.

    A group that is chosen by name replaces what earlier layers say of it; a mapping is merged.
    """
    groups: dict[str, Any] = {}
    for layer in layers:
        if not isinstance(layer, Mapping):
            raise ConfigError(f"settings are {layer!r}: must be a mapping of keys to values")
        for key, value in layer.items():
            name = str(key)
            require_key(RunConfig, "", name)
            if not dataclasses.is_dataclass(getattr(RunConfig(), name)):
                groups[name] = value
            elif name == "topology" and isinstance(value, str) and value.endswith(".json"):
                groups[name] = {"kind": "file", "path": str(Path(value).expanduser().absolute())}
            elif isinstance(value, str):
                _require_one_of(name, value, choices(name))
                groups[name] = _read(conf_dir() / name / f"{value}.yaml")
            elif isinstance(value, Mapping):
                groups[name] = OmegaConf.to_container(
                    OmegaConf.merge(OmegaConf.create(groups.get(name, {})), value)
                )
            else:
                raise ConfigError(f"{name} is {value!r}: must be a name or a mapping")
    merged = OmegaConf.structured(RunConfig)
    for name, value in groups.items():
        kind = _group_class(name, value)
        try:
            if kind is None:
                merged[name] = value
            else:
                _require_keys(kind, f"{name}.", value)
                merged[name] = OmegaConf.merge(OmegaConf.structured(kind), value)
        except OmegaConfBaseException as error:
            inner = getattr(error, "full_key", None)
            path = name if kind is None or not inner else f"{name}.{inner}"
            if kind is not None:
                _require_structures(kind, name, value)
            raise ConfigError(f"{path}: {_first_line(error)}") from error
    try:
        built = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_first_line(error)) from error
    assert isinstance(built, RunConfig)
    return built


def _group_class(name: str, value: Any) -> type | None:
    """Dataclass of a group; None for a single setting."""
    if name == "agent":
        return config_class(value.get("algorithm", PPO))
    kind = type(getattr(RunConfig(), name))
    return kind if dataclasses.is_dataclass(kind) else None


def _require_structures(kind: type, group: str, values: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` for a map or list of another form than its example."""
    for setting, example in EXAMPLES.items():
        owner, _, key = setting.partition(".")
        written = OmegaConf.select(OmegaConf.create(dict(values)), key) if owner == group else None
        if written is None:
            continue
        try:
            OmegaConf.update(OmegaConf.structured(kind), key, written)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{setting} is {written!s}: must be of the form {example}") from error


def _require_keys(kind: type, prefix: str, values: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` for a key that a dataclass, or one nested in it, has not."""
    defaults = kind()
    for name, value in values.items():
        require_key(kind, prefix, str(name))
        nested = getattr(defaults, str(name))
        if dataclasses.is_dataclass(nested) and isinstance(value, Mapping):
            _require_keys(type(nested), f"{prefix}{name}.", value)


def require_key(kind: type, prefix: str, name: str) -> None:
    """Raise :class:`ConfigError` unless a dataclass has a field of that name."""
    known = [item.name for item in dataclasses.fields(kind)]
    _require_one_of("key", prefix + name, [prefix + item for item in known])


def _require_one_of(what: str, value: str, known: Sequence[str]) -> None:
    try:
        require_choice(what, value, known)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
