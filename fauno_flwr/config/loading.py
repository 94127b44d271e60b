"""The settings of a run, read from the YAML files of ``conf/``.

A preset names one file for each group (``topology: ether2``) or spells a group out; overrides such
as ``workload.rate=1`` or ``topology=ether4`` come last.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fauno_flwr.config.settings import ConfigError, RunConfig
from sim_env.errors import require_choice

# conf/ stands beside the packages in a checkout and in a FAB, inside this one in a wheel.
_PLACES = (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf")


def conf_dir() -> Path:
    """The folder ``conf``, wherever this package was installed."""
    for place in _PLACES:
        if (place / "preset").is_dir():
            return place
    raise ConfigError(f"the folder conf is missing: looked at {', '.join(map(str, _PLACES))}")


def choices(group: str) -> list[str]:
    """Names of the files of a group of ``conf``."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def from_yaml(text: str) -> RunConfig:
    """The settings that :meth:`RunConfig.to_yaml` wrote."""
    return _build([OmegaConf.to_container(OmegaConf.create(text))])


def load_config(conf: str = "ether2", overrides: Sequence[str] = ()) -> RunConfig:
    """Settings from a preset and overrides.

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
    """Merge layers, each a mapping with dotted groups already nested, over the defaults."""
    merged = OmegaConf.structured(RunConfig)
    for layer in layers:
        if not isinstance(layer, Mapping):
            raise ConfigError(f"settings are {layer!r}: must be a mapping of keys to values")
        for key, value in layer.items():
            require_key(RunConfig, "", str(key))
            group = type(getattr(RunConfig(), str(key)))
            if dataclasses.is_dataclass(group):
                if isinstance(value, str):
                    _require_one_of(str(key), value, choices(str(key)))
                    value = _read(conf_dir() / str(key) / f"{value}.yaml")
                    merged[str(key)] = OmegaConf.structured(group)  # a file omits the defaults
                if not isinstance(value, Mapping):
                    raise ConfigError(f"{key} is {value!r}: must be a name or a mapping")
                for name in value:
                    require_key(group, f"{key}.", str(name))
            try:
                merged = OmegaConf.merge(merged, {str(key): value})
            except OmegaConfBaseException as error:
                where = getattr(error, "full_key", None) or key
                raise ConfigError(f"{where}: {_first_line(error)}") from error
    try:
        built = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_first_line(error)) from error
    assert isinstance(built, RunConfig)
    return built


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
