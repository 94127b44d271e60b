"""Compile once per machine: numba with a cache that does not depend on the folder of the sources.

numba keys its cache by the *path* of a source. Flower unpacks an app into a new folder for every
build, so each would compile the same kernel again. Here the cache folder is named by the content of
the sources instead.
"""

import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
from numba.core import caching, event

LOGGER = logging.getLogger(__name__)
PACKAGE = Path(__file__).parents[1]  # sim_env
# IEEE arithmetic. No compiled function creates an array, so none needs reference counts; counting
# those of a NamedTuple of arrays at every call would take five times as long as the tick itself.
# Other threads go on beside a kernel.
OPTIONS: Any = {"error_model": "numpy", "_nrt": False, "nogil": True}
UNWRAPPED: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class Loop(NamedTuple):
    """A compiled loop over ticks: with the plain tick, and with that of the quirks."""

    plain: Callable[..., int]
    events: Callable[..., int]


class CompilationLog(event.Listener, threading.local):
    """Log each kernel that is compiled because the cache lacks it.

    numba broadcasts its event after it has looked into the cache. Kernels and parts that are
    compiled for another kernel are not logged apart. Each thread has a depth of its own.
    """

    _depth = 0

    def on_start(self, event: event.Event) -> None:
        """Log a kernel of this package's, level INFO."""
        function = event.data["dispatcher"].py_func
        if self._depth == 0 and function in KERNELS:
            LOGGER.info("compiling %s.%s", function.__module__, function.__name__)
        self._depth += 1

    def on_end(self, event: event.Event) -> None:
        """Leave the kernel."""
        self._depth -= 1


KERNELS: set[Callable[..., Any]] = set()
event.register("numba:compile", CompilationLog())  # type: ignore[no-untyped-call]


def cache_root() -> Path:
    """Return the folder of the compiled kernels: ``NUMBA_CACHE_DIR``, or the user's cache folder.

    Returns
    -------
    Path
        A folder that can be written to; the system's temporary folder as a last resort.
    """
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = Path(chosen) if chosen else Path(base).expanduser() / "fauno-flwr" / "numba"
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError:
        root = Path(tempfile.gettempdir()) / f"fauno-flwr-numba-{os.getuid()}"
        root.mkdir(parents=True, exist_ok=True)
    return root


@cache
def source_digest() -> str:
    """Compute a digest of every source of this package, sub-folders included.

    numba checks the file of a function, but neither those of the functions that it calls nor those
    of its argument types, whose layout is compiled in.
    """
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def own_digest(path: Path) -> str:
    """Compute a digest of a source, and of those beside it if they make a package."""
    digest, folder = hashlib.sha256(path.name.encode()), path.parent
    package = (folder / "__init__.py").exists()
    for source in sorted(folder.glob("*.py")) if package else [path]:
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


class ContentLocator(caching.UserProvidedCacheLocator):
    """Cache locator that names its folder by the content of this package and of the file."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_file = py_file
        self._lineno = py_func.__code__.co_firstlineno
        self._cache_path = str(cache_root() / source_digest() / own_digest(Path(py_file)))

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "ContentLocator | None":
        """Return the locator for a function in a file; None for a function without one."""
        if not os.path.exists(py_file):
            return None
        self = cls(py_func, py_file)
        self.ensure_cache_path()  # type: ignore[no-untyped-call]
        return self


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` with numba and cache the result on disk."""
    KERNELS.add(function)
    settings: Any = numba.config
    before = settings.CACHE_LOCATOR_CLASSES
    settings.CACHE_LOCATOR_CLASSES = f"{__name__}.{ContentLocator.__name__}"
    try:
        return numba.njit(cache=True, **OPTIONS)(function)
    finally:
        settings.CACHE_LOCATOR_CLASSES = before


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` for calls from compiled code only: neither wrapped nor cached.

    This saves most of the compilation time; a call from Python would crash the process.
    """
    return numba.njit(**OPTIONS, **UNWRAPPED)(function)
