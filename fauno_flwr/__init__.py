"""FAuNO on Flower: nodes that learn to offload tasks and share their critics asynchronously."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def _find_version() -> str:
    """Return the version of the installed package, or else of the FAB that this code is part of."""
    try:
        return version("fauno-flwr")
    except PackageNotFoundError:
        import tomllib

        with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as project:
            return str(tomllib.load(project)["project"]["version"])


__version__ = _find_version()
