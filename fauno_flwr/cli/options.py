"""What the commands have in common: options, exit codes, where results go."""

import itertools
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated

import click
import typer

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import choices
from fauno_flwr.config.settings import LARGEST_SEED
from fauno_flwr.results.directory import RunDirectory

MOST_SEEDS = 1000  # of one command
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
    typer.Option("--best", help="Use the best actors kept by evaluation.every, not the last ones."),
]


def results_folder(out: Path | None, name: str) -> Path:
    """Make the folder of a command's results, and return its absolute path.

    If the command ends before it has written anything, the folder is removed again, and so are
    those above it that were made for it.

    Parameters
    ----------
    out : Path or None
        The folder that was asked for; None: one of its own below ``results``, even for commands
        that start in the same second.
    name : str
        First part of its name, in the latter case; the second is the time.

    Raises
    ------
    ConfigError
        If it cannot be written, or is not empty.
    """
    if out is not None:
        path = out.expanduser().absolute()
        _tidy_up(_missing(path))
        return RunDirectory.check(path)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path("results").absolute()
    for number in itertools.count(1):
        path = folder / (f"{name}-{stamp}" if number == 1 else f"{name}-{stamp}-{number}")
        missing = _missing(path)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"{str(folder)!r} cannot be written ({error.strerror})") from error
        _tidy_up(missing)
        break
    return path


def _missing(path: Path) -> list[Path]:
    """Return a folder and those above it as far as they do not exist, the innermost first."""
    return [each for each in (path, *path.parents) if not each.exists()]


def _tidy_up(folders: Iterable[Path]) -> None:
    """Remove folders when the command ends, if they are empty then."""

    def remove() -> None:
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()

    click.get_current_context().call_on_close(remove)


def read_seeds(text: str, first: int) -> list[int]:
    """Return the training seeds that ``--seeds`` stands for.

    Parameters
    ----------
    text : str
        A number of seeds, counted from `first`, or the seeds themselves, separated by commas.
    first : int

    Raises
    ------
    ConfigError
        For anything else, or a seed that is given twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise ConfigError(f"seeds is {text!r}: must be a number of seeds (5), or seeds (1,2,3)")
    numbers = [int(part) for part in parts]
    if len(numbers) == 1:
        if not 1 <= numbers[0] <= MOST_SEEDS:
            raise ConfigError(f"seeds is {text!r}: must be a number from 1 to {MOST_SEEDS}")
        numbers = list(range(first, first + numbers[0]))
    if len(set(numbers)) < len(numbers) or max(numbers) > LARGEST_SEED:
        raise ConfigError(f"seeds is {text!r}: must be different seeds of at most {LARGEST_SEED}")
    return numbers


def split_names(text: str) -> list[str]:
    """Return the names in a list separated by commas."""
    return [name.strip() for name in text.split(",")]


def joined(names: Iterable[str]) -> str:
    """Return names as a list for a setting."""
    return f"[{','.join(names)}]"
