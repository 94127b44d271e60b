"""The app as Flower Hub takes it, by the rules of ``flwr build`` and ``flwr app publish``."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_files
from flwr.cli.config_utils import load_and_validate
from flwr.cli.utils import collect_files

from fauno_flwr.config.loading import load_config
from strategies.flower_internals import TESTED_VERSIONS
from tests.doc_commands import read_page
from tests.paths import ROOT
from tests.test_release import ADDRESS, LINK, stage

PAGE = "docs/hub.md"
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the staged app, with absolute links."""
    folder = tmp_path_factory.mktemp("hub") / "fauno-flwr"
    stage("hub", folder, ADDRESS)
    return folder


def test_the_format_is_1_with_the_newest_tested_flower_as_its_target(app: Path) -> None:
    _, metadata = build_fab_from_files(collect_files(app))
    assert metadata.fab_format_version == 1
    assert metadata.flwr_version_target is not None
    tested = [metadata.flwr_version_min, metadata.flwr_version_target.rpartition(".")[0]]
    assert tested == [TESTED_VERSIONS[0], TESTED_VERSIONS[-1]]


def test_a_target_that_flower_does_not_accept_fails_the_build(app: Path) -> None:
    files = {**collect_files(app)}
    text = files["pyproject.toml"].read_text()
    for wrong in ("1.40.0", "1.43.0"):
        changed = re.sub('(?<=flwr-version-target = )"[^"]+"', f'"{wrong}"', text)
        with pytest.raises(ValueError, match="flwr-version-target"):
            build_fab_from_files({**files, "pyproject.toml": changed.encode()})


def test_flwr_build_succeeds_without_a_warning(app: Path, tmp_path: Path) -> None:
    _, warnings = load_and_validate(app / "pyproject.toml")
    assert warnings == []
    command = [Path(sys.executable).with_name("flwr"), "build", "--app", app]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (fab,) = tmp_path.glob("*.fab")
    names = zipfile.ZipFile(fab).namelist()
    assert {"LICENSE", "README.md", "pyproject.toml", "conf/preset/ether2.yaml"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


def test_the_hub_takes_the_files(app: Path) -> None:
    """Flower's checks before an upload: name, description, kinds, number, size, encoding."""
    publish = import_module("flwr.cli.app_cmd.publish")
    publish._validate_app_name(app.name, "The folder")
    paths = publish._collect_file_paths(app)
    publish._validate_files(paths)
    project = tomllib.loads((app / "pyproject.toml").read_text())["project"]
    assert len(project["description"]) <= 200  # or Flower asks a question
    assert {app / "LICENSE", app / "README.md"} <= set(paths)


def test_links_and_images_of_the_readme_are_absolute(app: Path) -> None:
    found = LINK.findall((app / "README.md").read_text())
    assert [image for image, _ in found].count("!") == 1
    for image, target in found:
        assert re.match("https?:|#", target)
        if target.startswith(ADDRESS):
            path, _, query = target.removeprefix(f"{ADDRESS}/").partition("?")
            assert (ROOT / path.partition("#")[0]).exists(), target
            assert query == ("raw=true" if image else "")


def test_the_readme_states_the_number_of_nodes_and_where_data_come_from() -> None:
    page = read_page(PAGE)
    simulation, deployment = re.findall(r"^## (?:Sim|Dep).+?(?=^## )", page, re.M | re.S)
    nodes = load_config("ether2").build_scenario().agents
    stated = re.findall(r"\*\*(\d+) virtual SuperNodes\*\*|num-supernodes=(\d+)", simulation)
    assert {int(a or b) for a, b in stated} == {len(nodes)}
    assert re.findall(r"num-partitions=(\d+)", deployment) == [str(len(nodes))]
    assert "**Data.**" in deployment
    cartpole = load_config("cartpole")
    assert cartpole.world.nodes == 4
    assert "four SuperNodes" in deployment


def test_the_table_has_the_run_config(app: Path) -> None:
    config = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    rows = re.findall(r"^\| `([\w-]+)` \|", read_page(PAGE), re.MULTILINE)
    assert sorted(rows) == sorted(config)
