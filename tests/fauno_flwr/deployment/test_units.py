"""The units of deploy/systemd: what the programs of a deployment may not do."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.paths import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("fauno-*.service"))
HARDENING = ROOT / "deploy" / "systemd" / "fauno-.service.d" / "hardening.conf"
MOST_EXPOSED = 20  # tenths of what systemd-analyze calls the exposure level
pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def exposed(folder: Path, unit: Path, *more: Path) -> bool:
    """Return whether systemd rates a unit, with its drop-ins, as too exposed."""
    joined = folder / unit.name
    joined.write_text("\n".join(path.read_text() for path in (unit, *more)))
    options = ["--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager"]
    command = ["systemd-analyze", "security", *options, str(joined)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Overall exposure level" in done.stdout, done.stderr
    return done.returncode != 0


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_can_do_little_else(tmp_path: Path, unit: Path) -> None:
    assert not exposed(tmp_path, unit, HARDENING)
    assert exposed(tmp_path, unit)


def test_the_superlink_listens_on_loopback_only() -> None:
    """Whoever reaches its port owns the nodes."""
    page = (ROOT / "docs" / "deployment.md").read_text()
    unit = (ROOT / "deploy" / "systemd" / "fauno-superlink.service").read_text()
    for text in (page, unit):
        assert "flower-superlink --host 127.0.0.1 " in text
    assert "IPAddressAllow=localhost\n" in unit
