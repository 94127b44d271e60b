"""The site of docs/ and the API reference."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sim_env
import strategies
from tests.paths import ROOT


def build(checkout: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.parametrize("package", [strategies, sim_env], ids=lambda package: package.__name__)
def test_the_reference_shows_every_public_name_with_its_docstring(
    package: object, site: Path
) -> None:
    page = (site / "reference" / f"{package.__name__}.html").read_text()
    # From each heading of a name to the next; the line of base classes is a <p class=...>.
    sections = dict(re.findall(r'<h2 id="([\w.]+)"(.+?)(?=<h2 |</article>)', page, re.DOTALL))
    for name in package.__all__:
        section = sections[f"{package.__name__}.{name}"]
        assert re.search(r"<p>.*\w.*</p>", section), f"{name} has no docstring"


def test_the_site_has_a_reference_of_the_settings(site: Path) -> None:
    page = (site / "reference" / "settings.html").read_text()
    assert "<code>federation.buffer_size</code>" in page


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\s(?:src|href)="?(?:https?:)?//[^>]*')
    found = {page.name: loads.findall(page.read_text()) for page in site.rglob("*.html")}
    assert len(found) > 15
    assert not {name: lines for name, lines in found.items() if lines}


def test_no_markup_of_another_language_is_left_in_the_reference(site: Path) -> None:
    for page in (site / "reference").glob("*.html"):
        assert not re.findall(r":\w+:<code|::</p>", page.read_text())


def test_broken_links_of_the_readme_fail_the_build(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    skipped = shutil.ignore_patterns("*.json", "*.csv", "*.gz")
    shutil.copytree(ROOT / "docs", checkout / "docs", ignore=skipped)
    shutil.copytree(ROOT / "examples", checkout / "examples")
    for name in ("mkdocs.yml", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, checkout)
    for package in ("fauno_flwr", "sim_env", "strategies"):
        (checkout / package).symlink_to(ROOT / package)
    broken = ["docs/gone.md", "docs/strategies.md#gone", "fauno_flwr/client_app.py"]
    links = "".join(f"\n[link]({link})\n" for link in broken)
    (checkout / "README.md").write_text((ROOT / "README.md").read_text() + links)
    built = build(checkout, tmp_path / "site")
    assert built.returncode != 0
    for link in broken:
        assert link.removeprefix("docs/") in built.stderr
