"""Where the settings of a run come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fauno_flwr.config.settings import RunConfig

DEFAULT, CONF, COMMAND_LINE = range(3)  # ranks: a choice outranks what lower ones have set


class Origin(NamedTuple):
    """Where a setting comes from.

    Parameters
    ----------
    source : str
        In words.
    rank : int
        ``DEFAULT``, ``CONF`` or ``COMMAND_LINE``.
    explicit : bool
        Whether it was written by choice: the file of a resolved run holds every setting of a
        group, also those without an effect.
    """

    source: str
    rank: int
    explicit: bool


ABSENT = Origin("default", DEFAULT, False)


@dataclass(frozen=True)
class Resolved:
    """Settings, and the origin of each that is not a default, by dotted key."""

    config: RunConfig
    origins: Mapping[str, Origin]

    def value(self, key: str) -> Any:
        """Return the value of a dotted key."""
        found: Any = self.config
        for name in key.split("."):
            found = getattr(found, name)
        return found
