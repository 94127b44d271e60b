"""The site of docs/ and the API reference; numbers on the pages."""

import re
import shutil
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest

import sim_env
import strategies
from fauno_flwr.config.loading import load_config
from fauno_flwr.experiments import EXPERIMENTS
from fauno_flwr.experiments.design import Experiment, cells
from fauno_flwr.experiments.methods import METHODS
from sim_env.engine.features import OBSERVATIONS
from sim_env.engine.reward import REWARDS
from tests.doc_commands import PAGES, read_page
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


EXPERIMENTS_PAGE = (ROOT / "docs" / "experiments.md").read_text()


def count_cells(experiment: Experiment, quick: bool, seeds: int) -> int:
    design = experiment.design(quick)
    most = {condition.name: condition.seeds or seeds for condition in design.conditions}
    heuristics = len(design.conditions) * (1 + len(experiment.heuristics))
    return heuristics + sum(min(seeds, most[arm.trained_in]) for arm in design.arms)


def test_the_numbers_of_cells_are_those_of_the_experiments() -> None:
    """On the page 76 cells once took the place of 88."""
    rows = re.findall(r"^\| `(\w+)` \|.* ([\d,]+) cells", EXPERIMENTS_PAGE, re.MULTILINE)
    stated = {name: int(number.replace(",", "")) for name, number in rows}
    counted = {name: count_cells(each, False, each.seeds) for name, each in EXPERIMENTS.items()}
    assert stated == counted
    transfer = EXPERIMENTS["transfer"]
    assert count_cells(transfer, True, 3) == len(cells(transfer, True, 3))
    scale = EXPERIMENTS["scale"]
    assert count_cells(scale, True, 3) == len(cells(scale, True, 3))


def test_the_output_of_an_experiment_has_as_many_cells_as_its_command_computes() -> None:
    ((command, output),) = re.findall(
        r"^\$ (fauno experiment baseline .+)\n((?:[^$`].*\n)+)", EXPERIMENTS_PAGE, re.MULTILINE
    )
    seeds = re.search(r"--seeds (\d+)", command)
    assert seeds is not None
    total = count_cells(EXPERIMENTS["baseline"], "--quick" in command, int(seeds[1]))
    numbers = re.findall(r"(\d+) cells: (\d+) kept, (\d+) to compute|/(\d+) cells", output)
    assert [int(first or last) for first, _, _, last in numbers] == [total, total]
    assert int(numbers[0][1]) + int(numbers[0][2]) == total


def test_the_methods_are_those_of_the_code() -> None:
    section = EXPERIMENTS_PAGE.partition("\n## Methods\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(METHODS)


def test_the_quirks_are_those_of_the_settings() -> None:
    page = (ROOT / "docs" / "peersimgym.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| (\S+) \| (\S+) \|", page, re.MULTILINE)
    assert len(rows) > 15
    plain, original = (
        load_config("ether2", [f"physics={kind}"]) for kind in ("wireless", "peersimgym")
    )
    for name, *stated in rows:
        found = [attrgetter(name)(config.physics) for config in (plain, original)]
        assert [str(each).lower() for each in found] == [each.strip("`") for each in stated], name


def test_the_observations_and_rewards_are_those_of_the_settings() -> None:
    page = (ROOT / "docs" / "environments.md").read_text()
    widths = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    built_in = {name: (each.local, each.destinations) for name, each in OBSERVATIONS.items()}
    assert {name: (int(local), int(slot)) for name, local, slot in widths} == built_in
    rewards = re.findall(r"^\| `(\w+)` \| (?:a decision|a task|every)", page, re.MULTILINE)
    assert tuple(rewards) == REWARDS


def test_the_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:^ {4}|`|\$ )make ([\w-]+)", read_page(page), re.MULTILINE)
    }
    assert named
    assert named <= targets
