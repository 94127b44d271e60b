"""Settings that come from a server: YAML that is data and nothing else."""

from collections.abc import Iterator
from typing import Any

import yaml
from omegaconf import OmegaConf

from fauno_flwr.config.errors import ConfigError
from sim_env.errors import shown

LARGEST, DEEPEST = 2**20, 16  # characters, levels; a run has about 5,000 and 4
REFERENCE = "${"  # OmegaConf would look up what follows: another setting, the environment, a file
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ENDS = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


def read_plain(text: str) -> Any:
    """Return the value of a YAML document that a stranger may have written.

    Raises
    ------
    ConfigError
        Also for what settings never hold: anchors, tags, references, more than :data:`LARGEST`
        characters or :data:`DEEPEST` levels. The sentence holds nothing that was not in `text`.
    """
    _require_plain(text)
    try:
        values = OmegaConf.to_container(OmegaConf.create(text))
    except Exception as error:  # the constructors of YAML and OmegaConf have many
        raise ConfigError("settings cannot be read: must be a mapping in YAML") from error
    for value in _scalars(values):
        if isinstance(value, str) and REFERENCE in value:
            raise ConfigError(f"settings have {shown(value)}: must have values only")
    return values


def _require_plain(text: str) -> None:
    """Raise :class:`ConfigError` for YAML that would expand, or be another type of object."""
    if len(text) > LARGEST:
        raise ConfigError(f"settings have {len(text)} characters: must have at most {LARGEST}")
    level = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if getattr(event, "anchor", None) is not None:  # an alias has it too
                raise ConfigError(f"settings have the anchor {shown(event.anchor)}: must have none")
            if getattr(event, "tag", None) is not None:
                raise ConfigError(f"settings have the tag {shown(event.tag)}: must have none")
            level += isinstance(event, yaml.CollectionStartEvent)
            level -= isinstance(event, _ENDS)
            if level > DEEPEST:
                raise ConfigError(f"settings are nested in {level} levels: at most {DEEPEST}")
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("settings are not YAML: must be a mapping of keys to values") from error


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _scalars(each)
    elif isinstance(value, list):
        for each in value:
            yield from _scalars(each)
    else:
        yield value
