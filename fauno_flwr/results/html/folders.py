"""What kind of results a folder holds; quick, as bad input is to be named before slow imports."""

import json
from pathlib import Path
from typing import Any

from fauno_flwr.config.errors import ConfigError
from sim_env.errors import shown

ONE, SEEDS, EXPERIMENT = "run", "seeds", "experiment"


def kind_of(folder: Path) -> str:
    """Return what a folder holds: a run, a run for each of several seeds, or an experiment.

    Raises
    ------
    ConfigError
        If it holds none of them.
    """
    if (folder / "config.yaml").is_file() and (folder / "events.jsonl").is_file():
        return ONE
    if "experiment" in read_summary(folder):
        return EXPERIMENT
    if seed_folders(folder):
        return SEEDS
    raise ConfigError(
        f"run is {shown(str(folder))}: must be a folder with the results of fauno simulate, train, "
        f"deploy local or experiment"
    )


def require_kinds(folders: list[Path]) -> None:
    """Raise ``ConfigError`` unless there is one folder with results, or several runs."""
    for folder in folders:
        if kind_of(folder) != ONE and len(folders) > 1:
            raise ConfigError(
                f"run is {shown(str(folder))}: must be a single run beside others, such as its "
                f"seed-1"
            )
        if folders.count(folder) > 1:
            raise ConfigError(f"run is {shown(str(folder))}: must be given once")


def seed_folders(folder: Path) -> list[Path]:
    """Return the folders of the trainings of ``fauno train --seeds``, as far as they have begun."""
    found = [each for each in folder.glob("seed-*/") if each.name.removeprefix("seed-").isdecimal()]
    begun = [each for each in found if (each / "config.yaml").is_file()]
    return sorted(begun, key=lambda each: int(each.name.removeprefix("seed-")))


def read_summary(folder: Path) -> dict[str, Any]:
    """Read ``summary.json``; empty without it.

    Raises
    ------
    ConfigError
        If it is damaged.
    """
    path = folder / "summary.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{shown(str(path))} cannot be read ({error}): must be JSON") from error
    return found if isinstance(found, dict) else {}
