"""The public names of the package."""

import importlib.metadata
import subprocess
import sys

import pytest

import sim_env

HEAVY = ("matplotlib", "torch", "scipy.stats", "networkx")


@pytest.mark.parametrize("name", sim_env.__all__)
def test_every_public_name_is_there_and_has_a_docstring_or_a_value(name: str) -> None:
    assert getattr(sim_env, name) is not None
    assert name in dir(sim_env)


def test_lazy_names_are_public() -> None:
    assert set(sim_env._LAZY) < set(sim_env.__all__)


def test_the_import_loads_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, sim_env\n"
        "sim_env.EdgeEnv, sim_env.run_policies, sim_env.draw_world\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'EdgeEnw'"):
        sim_env.EdgeEnw  # noqa: B018


@pytest.mark.parametrize("installed", [True, False])
def test_the_version_is_that_of_the_distribution(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    def version(name: str) -> str:
        if not installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.delitem(vars(sim_env), "__version__", raising=False)
    assert sim_env.__version__ == ("1.2.3" if installed else "0.0.0+unknown")
    monkeypatch.delitem(vars(sim_env), "__version__")
