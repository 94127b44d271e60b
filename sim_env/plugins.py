"""Choices by name: built in, registered by an installed package, or at an import path."""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sim_env.errors import require_choice, shown

_folders: list[Path] = []
_allowed: ContextVar[tuple[str, ...] | None] = ContextVar("allowed modules", default=None)


@contextmanager
def only_from(modules: Sequence[str] | None) -> Iterator[None]:
    """Let :func:`find` import only some modules within this context, for names of a stranger.

    Parameters
    ----------
    modules : sequence of str or None
        Names of modules; those below them are allowed too. None: all modules.
    """
    token = _allowed.set(None if modules is None else tuple(modules))
    try:
        yield
    finally:
        _allowed.reset(token)


def require_allowed(what: str, name: str, module: str) -> None:
    """Raise ``ValueError`` if a module must not be imported here; see :func:`only_from`."""
    if not _is_allowed(module):
        allowed = ", ".join(_allowed.get() or ()) or "none"
        raise ValueError(
            f"{what} is {shown(name)}: must be of a module that may be imported here ({allowed})"
        )


def _is_allowed(module: str) -> bool:
    allowed = _allowed.get()
    return allowed is None or any(
        module == each or module.startswith(f"{each}.") for each in allowed
    )


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
        If there is none, or it cannot be imported, or must not be (:func:`only_from`): one sentence
        with the known names, or with the error of the import.
    """
    require_name(what, name, known, group)
    if name in known:
        return known[name]
    if is_import_path(name):
        require_allowed(what, name, name.partition(":")[0])
    try:
        if is_import_path(name):
            module, _, attribute = name.partition(":")
            _make_importable(module.partition(".")[0])
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
                _require_own(found)
            return found
        (entry,) = entry_points(group=group, name=name)
        return entry.load()
    except Exception as error:  # whatever the code of the module raises
        raise ValueError(f"{what} is {name!r}: cannot be imported ({error!s})") from error


def _require_own(found: Any) -> None:
    """Raise ``ImportError`` for what an allowed module has merely imported, such as ``os``."""
    if _allowed.get() is None:
        return
    if inspect.ismodule(found):
        home = found.__name__
    elif inspect.isclass(found) or inspect.isroutine(found):
        home = str(getattr(found, "__module__", None))
    else:
        return
    if not _is_allowed(home):
        raise ImportError(f"{home} may not be imported here")


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
