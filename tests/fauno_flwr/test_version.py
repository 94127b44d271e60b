"""``fauno_flwr.__version__``."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import fauno_flwr
from tests.paths import ROOT


def test_it_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert fauno_flwr.__version__ == project["version"]


def test_a_fab_has_it_from_its_own_pyproject(tmp_path: Path) -> None:
    """Flower unpacks a FAB and does not install it."""
    (tmp_path / "fauno_flwr").mkdir()
    shutil.copy(ROOT / "fauno_flwr" / "__init__.py", tmp_path / "fauno_flwr")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "fauno-flwr"\nversion = "9.8.7"\n')
    code = "import fauno_flwr; print(fauno_flwr.__version__)"
    # -S: no site-packages, so nothing is installed.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "9.8.7"
