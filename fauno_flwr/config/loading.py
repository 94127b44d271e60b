"""Load the settings of a run from the YAML files of ``conf/``.

A file holds what differs from the defaults of its dataclass. A preset names a file for a group
(``topology: ether4``, or the path of a topology file, ``topology: net.json``) or spells the group
out; overrides such as ``workload.rate=1`` or ``topology=ether4`` come last.

A relative path is relative to the folder of the YAML file that holds it, or to the working
directory if it is an override.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.layers import PATHS, Layer, absolute, resolve
from fauno_flwr.config.origins import COMMAND_LINE, CONF, Resolved
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.config.wire import read_plain
from sim_env.errors import require_choice, shown

# conf/ stands beside the packages in a checkout and in a FAB, inside this one in a wheel.
_PLACES = (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf")


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
    """Read the settings that :meth:`RunConfig.to_yaml` wrote, as the server of a run sends them.

    Raises
    ------
    ConfigError
        As :func:`fauno_flwr.config.wire.read_plain`, or if they are no settings; no file is read.
    """
    return resolve([Layer("settings", CONF, read_plain(text))], _no_file).config


def load_config(
    conf: str = "ether2",
    overrides: Sequence[str] = (),
    command: str = "",
    relative_to: Path | None = Path(),
) -> RunConfig:
    """Load settings from a preset and overrides; parameters and errors: :func:`load_resolved`."""
    return load_resolved(conf, overrides, command, relative_to).config


def load_resolved(
    conf: str = "ether2",
    overrides: Sequence[str] = (),
    command: str = "",
    relative_to: Path | None = Path(),
) -> Resolved:
    """Load settings from a preset and overrides, with the source of each.

    Parameters
    ----------
    conf : str, default "ether2"
        Name of a preset, or path of a YAML file (the ``config.yaml`` of a run is one).
    overrides : sequence of str
        ``key=value`` with dotted keys.
    command : str, optional
        Command of ``fauno`` that uses them, such as ``compare``: an override that it does not
        read is refused.
    relative_to : Path, optional
        Folder of relative paths in the overrides, by default the working directory; None: they
        must be absolute.

    Returns
    -------
    Resolved

    Raises
    ------
    ConfigError
        One sentence with the offending value and what is allowed.
    """
    if conf.endswith((".yaml", ".yml")):
        path = Path(conf).expanduser()
        file = Layer(conf, CONF, _read(path), path.parent)
    else:
        _require_one_of("conf", conf, choices("preset"))
        path = conf_dir() / "preset" / f"{conf}.yaml"
        file = Layer(f"preset {conf}", CONF, _read(path))
    layers = [
        Layer("command line", COMMAND_LINE, _read_override(override), relative_to)
        for override in overrides
    ]
    # The choice of a whole group comes before single keys of it, in whatever order they stand.
    layers.sort(
        key=lambda layer: not all(isinstance(value, str) for value in layer.values.values())
    )
    found = resolve([file, *layers], _group_file, command)
    if relative_to is None:
        for key in PATHS:
            written = found.value(key)
            if written and not Path(written).is_absolute():
                raise ConfigError(f"{key} is {shown(written)}: must be an absolute path here")
    return found


def absolute_overrides(overrides: Sequence[str]) -> list[str]:
    """Return overrides with absolute paths, for a process with another working directory."""
    made = []
    for override in overrides:
        values = _read_override(override)
        resolved = absolute(values, Path())
        if resolved != values:
            key = override.partition("=")[0]
            value = OmegaConf.select(OmegaConf.create(resolved), key)
            override = f"{key}={json.dumps(value if isinstance(value, str) else dict(value))}"
        made.append(override)
    return made


def _group_file(group: str, name: str) -> Any:
    """Read a file of a group of ``conf``."""
    known = [*choices(group), "FILE.json"] if group == "topology" else choices(group)
    _require_one_of(group, name, known)
    return _read(conf_dir() / group / f"{name}.yaml")


def _no_file(group: str, name: str) -> Any:
    raise ConfigError(f"{group} is {shown(name)}: must be a mapping in the settings of a message")


def _read_override(override: str) -> dict[str, Any]:
    """``a.b=c`` as a nested mapping."""
    if "=" not in override.lstrip("="):
        raise ConfigError(f"override {shown(override)} must be of the form key=value")
    try:
        layer = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
    except Exception as error:  # the parsers of keys and of values have many
        raise ConfigError(
            f"override {shown(override)} cannot be read: must be key=value, with a value in YAML"
        ) from error
    assert isinstance(layer, dict)
    return {str(key): value for key, value in layer.items()}


def _read(path: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise ConfigError(f"conf {str(path)!r} cannot be read: {error.strerror}") from error
    except Exception as error:  # the YAML parser has many
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else shown(str(error).partition("\n")[0])
        raise ConfigError(f"conf {str(path)!r} is not YAML ({where}): must be settings") from error


def _require_one_of(what: str, value: str, known: Sequence[str]) -> None:
    try:
        require_choice(what, value, known)
    except ValueError as error:
        raise ConfigError(str(error)) from error
