"""Choices by name: built in, registered by an installed package, or at an import path."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sim_env.errors import require_choice, shown

_folders: list[Path] = []


def search_in(folder: Path) -> None:
    """Let :func:`find` import modules of a folder that is not on ``sys.path``.

    The folder is appended only once a module in it is requested: a file ``random.py`` in it shadows
    nothing.
    """
    if folder not in _folders:
        _folders.append(folder)


def is_import_path(name: str) -> bool:
    """Return whether a name is of the form ``package.module:attribute``."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(
        part.isidentifier() for part in (*module.split("."), *attribute.split("."))
    )


def names_of(group: str) -> list[str]:
    """Return the names that installed packages register in an entry-point group."""
    return sorted(entry_points(group=group).names)


def require_name(what: str, name: str, known: Mapping[str, Any], group: str) -> None:
    """Raise ``ValueError`` unless :func:`find` may find `name`; import nothing."""
    if isinstance(name, str) and (name in known or is_import_path(name)):
        return  # listing entry points reads the metadata of all installed packages: 20 ms
    require_choice(what, name, [*known, *names_of(group)])


def find(what: str, name: str, known: Mapping[str, Any], group: str) -> Any:
    """Return the object of that name.

    Parameters
    ----------
    what : str
        Name of the setting, for the error message.
    name : str
        A key of `known`, the name of an entry point, or an import path
        ``package.module:attribute``.
    known : mapping of str to object
        The built-in objects.
    group : str
        Entry-point group, such as ``fauno.policies``.

    Raises
    ------
    ValueError
        If there is none, or it cannot be imported: one sentence with the known names, or with the
        error of the import.
    """
    require_name(what, name, known, group)
    if name in known:
        return known[name]
    try:
        if is_import_path(name):
            module, _, attribute = name.partition(":")
            _make_importable(module.partition(".")[0])
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
            return found
        (entry,) = entry_points(group=group, name=name)
        return entry.load()
    except Exception as error:  # whatever the code of the module raises
        raise ValueError(f"{what} is {name!r}: cannot be imported ({error!s})") from error


def call(what: str, name: str, function: Any, *arguments: Any) -> Any:
    """Call a function that :func:`find` found.

    Raises
    ------
    ValueError
        If it cannot be called or raises: one sentence with the name and the error.
    """
    if not callable(function):
        raise ValueError(f"{what} is {name!r}: must be a function, not {shown(function)}")
    try:
        return function(*arguments)
    except Exception as error:  # whatever it raises
        raise ValueError(
            f"{what} is {name!r}: raised {type(error).__name__} ({error!s})"
        ) from error


def _make_importable(package: str) -> None:
    if package in sys.modules or importlib.util.find_spec(package) is not None:
        return
    for folder in _folders:
        if (folder / package).is_dir() or (folder / f"{package}.py").is_file():
            sys.path.append(str(folder))
            # Processes that this one starts have to find it too.
            paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(folder)]
            os.environ["PYTHONPATH"] = os.pathsep.join(paths)
            importlib.invalidate_caches()
            return
