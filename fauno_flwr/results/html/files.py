"""What the folder of a run holds, as far as it got."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.config.wire import read_plain
from fauno_flwr.learning.policy import FAUNO
from fauno_flwr.results.directory import REPLAY, read_lines
from fauno_flwr.results.html.folders import read_summary
from fauno_flwr.results.state import State, state_of
from sim_env.errors import shown
from sim_env.replay.files import Replay, load_replay

FIRST = (FAUNO, "sed")  # policies that are shown first
Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """The files of one run; what a run that failed has not written is empty.

    Parameters
    ----------
    folder : Path
    settings : dict
        By dotted key, from ``config.yaml``.
    events : list of dict
        From ``events.jsonl``.
    rows : list of dict
        From ``metrics.jsonl``: one per version.
    summary : dict
        From ``summary.json``.
    """

    folder: Path
    settings: Mapping[str, Any]
    events: Sequence[dict[str, Any]]
    rows: Sequence[Row]
    summary: Row

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def table(self) -> Sequence[Row]:
        """Rows of the comparison."""
        return self.summary.get("table", [])

    @property
    def clock(self) -> str:
        """Clock of the events, ``wall`` or ``virtual``."""
        virtual = any("time/virtual" in row for row in self.rows)
        return self.summary.get("seconds", {}).get("clock", "virtual" if virtual else "wall")

    @cached_property
    def state(self) -> State:
        """How the run has ended."""
        return state_of(self.folder, self.events)

    def read_replay(self) -> Replay | None:
        """Read the recordings, FAuNO and ShortestExpectedDelay first; None without any."""
        path = self.folder / REPLAY
        if not path.is_file():
            return None
        replay = load_replay(path)
        first = {name: place for place, name in enumerate(FIRST)}
        ordered = sorted(replay.recordings, key=lambda each: first.get(each.policy, len(first)))
        return Replay(replay.network, ordered)


def read_run(folder: Path) -> RunFiles:
    """Read the files of a run.

    Raises
    ------
    ConfigError
        If one of them is damaged.
    """
    try:
        return RunFiles(
            folder,
            flat(read_plain((folder / "config.yaml").read_text())),
            continuous(read_lines(folder / "events.jsonl")),
            read_lines(folder / "metrics.jsonl"),
            read_summary(folder),
        )
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"run is {shown(str(folder))}: cannot be read ({error})") from error


def continuous(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of a run with times that go on where it was resumed.

    Under a wall clock, a resumed training counts its seconds from 0 again.
    """
    found, offset, last = [], 0.0, 0.0
    for event in events:
        if "t" in event:
            if event["event"] == "resume" and event["t"] + offset < last:
                offset = last - event["t"]
            event = {**event, "t": event["t"] + offset}
            last = max(last, event["t"])
        found.append(event)
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by dotted key; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + str(key)] = value
    return found


def changed_settings(settings: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the settings that differ from their defaults: key, value, default.

    The keys of a mapping without a default, such as ``physics.stated_speed_factors.rpi_0``, have
    None.
    """
    defaults = flat(read_plain(RunConfig().to_yaml()))
    return [
        (key, value, defaults.get(key))
        for key, value in settings.items()
        if key not in defaults or defaults[key] != value
    ]
