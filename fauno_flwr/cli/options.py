"""What the commands have in common: options, exit codes, where results go."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fauno_flwr.config.loading import choices

FAILED, BAD_INPUT = 1, 2  # and 128 + n, stopped by signal n


def complete_conf(incomplete: str) -> list[str]:
    """Return the presets that begin so."""
    return [name for name in choices("preset") if name.startswith(incomplete)]


def complete_override(incomplete: str) -> list[str]:
    """Return the keys, or the values of a group, that begin so."""
    group, equals, _ = incomplete.partition("=")
    if equals:
        found = [f"{group}={name}" for name in choices(group)]
    else:
        from fauno_flwr.config.reference import settings

        keys = [each.key for each in settings()]
        groups = dict.fromkeys(key.partition(".")[0] for key in keys)
        found = [f"{key}=" for key in [*groups, *keys]]
    return [each for each in found if each.startswith(incomplete)]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings to change, such as workload.rate=1; fauno config shows all.",
        autocompletion=complete_override,
    ),
]
Conf = Annotated[
    str,
    typer.Option(help="Preset of conf/, or path of a YAML file.", autocompletion=complete_conf),
]
Out = Annotated[
    Path | None, typer.Option(help="New folder for the results; default results/<name>-<time>.")
]
Tables = Annotated[
    Path | None, typer.Option("--out", help="New folder for the tables (JSON, CSV) and the figure.")
]
Best = Annotated[
    bool,
    typer.Option("--best", help="The best actors of evaluation.every, not the last."),
]


def results_path(out: Path | None, name: str) -> Path:
    """Return the absolute folder of the results: `out`, or one named by `name` and the time."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return (out or Path("results") / f"{name}-{stamp}").expanduser().absolute()


def split_names(text: str) -> list[str]:
    """Return the names in a list separated by commas."""
    return [name.strip() for name in text.split(",")]


def joined(names: Iterable[str]) -> str:
    """Return names as a list for a setting."""
    return f"[{','.join(names)}]"
