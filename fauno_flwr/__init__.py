"""FAuNO on Flower: nodes that learn to offload tasks and share their critics asynchronously."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fauno_flwr.tasks.trained import Agents, load_agents

__all__ = ["Agents", "load_agents"]


def _find_version() -> str:
    """Return the version of the installed package, or else of the FAB that this code is part of."""
    try:
        return version("fauno-flwr")
    except PackageNotFoundError:
        import tomllib

        with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as project:
            return str(tomllib.load(project)["project"]["version"])


__version__ = _find_version()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: importing torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("fauno_flwr.tasks.trained"), name)
    globals()[name] = value
    return value
