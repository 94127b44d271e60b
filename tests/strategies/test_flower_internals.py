"""Private parts of Flower: one module uses them, and reports versions it was not tested with."""

import ast
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import flwr
import pytest
from flwr.app import Message, RecordDict

from strategies import flower_internals
from strategies.flower_internals import PRIVATE, FlowerVersionError, set_identity, set_metadata
from tests.paths import ROOT

SOURCE = Path(flower_internals.__file__)
PUBLIC = {
    "flwr.app",
    "flwr.clientapp",
    "flwr.clientapp.mod",
    "flwr.clientapp.typing",
    "flwr.common.logger",
    "flwr.serverapp",
    "flwr.serverapp.strategy",
}


def load_again() -> ModuleType:
    """Load the module a second time, under another name."""
    spec = spec_from_file_location("flower_internals_again", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PRIVATE)
def test_every_private_name_exists_in_the_installed_flower(name: str) -> None:
    assert getattr(flower_internals, name) is not None


@pytest.mark.parametrize("version", ["1.45.0", "1.40.2", "2.0.0", "1.43.0.dev20260101"])
def test_another_version_is_refused_in_one_sentence(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flwr, "__version__", version)
    with pytest.raises(ImportError) as error:
        load_again()
    assert str(error.value) == (
        f"strategies was tested with Flower 1.41 to 1.42, this is {version}: "
        f"install 'flwr>=1.41,<1.43'"
    )


@pytest.mark.parametrize("version", ["1.41.0", "1.42.0", "1.42.7"])
def test_tested_versions_are_accepted(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flwr, "__version__", version)
    load_again()


def test_the_requirement_is_that_of_the_project() -> None:
    project = (SOURCE.parents[1] / "pyproject.toml").read_text()
    assert flower_internals.REQUIREMENT.replace("flwr", "flwr[simulation]") in project


@pytest.mark.parametrize("module", ["flwr.common.constant", "flwr.no_such_module"])
def test_a_missing_name_is_reported_in_one_sentence(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRIVATE, "NoSuchName", module)
    sentence = rf"1\.41 to 1\.42, this is .*: {module} has no NoSuchName; install 'flwr>="
    with pytest.raises(FlowerVersionError, match=sentence):
        _ = flower_internals.NoSuchName
    with pytest.raises(AttributeError, match="has no attribute 'Unknown'"):
        _ = flower_internals.Unknown


def test_metadata_is_overwritten_but_not_extended() -> None:
    set_identity(run_id=1, node_id=1, task_id=1)
    message = Message(RecordDict(), dst_node_id=7, message_type="train")
    set_metadata(message, message_id="m", src_node_id=3)
    assert (message.metadata.message_id, message.metadata.src_node_id) == ("m", 3)
    with pytest.raises(FlowerVersionError, match="has no _sender"):
        set_metadata(message, sender=3)


def imports(path: Path) -> set[str]:
    """Return the modules of Flower that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "flwr"}


@pytest.mark.parametrize(
    "folder", ["strategies", "fauno_flwr", "sim_env", "benchmarks", "examples", "release"]
)
def test_no_other_module_uses_private_parts(folder: str) -> None:
    paths = [path for path in (ROOT / folder).rglob("*.py") if path != SOURCE]
    assert paths
    for path in paths:
        assert imports(path) <= PUBLIC, path
        if folder == "strategies":
            assert "__dict__" not in path.read_text(), path


def test_the_package_loads_nothing_of_the_server() -> None:
    """A ClientApp process that uses ``compression_mod`` imports the whole package."""
    script = "import sys, strategies; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "strategies.session" in loaded
    assert not loaded & {"starlette", "sqlalchemy", "flwr.superlink", "flwr.supernode.cli"}
