"""What is published beside the app: the strategies alone, which run without torch."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.doc_commands import read_blocks
from tests.paths import ROOT
from tests.strategies.test_docs import EXAMPLES

STAGE = ROOT / "release" / "stage.py"
ADDRESS = "https://example.org/fauno/blob/main"
LINK = re.compile(r"(!?)\[[^]]*\]\(([^)]+)\)")


def stage(kind: str, folder: Path, *address: str) -> str:
    """Stage something; return its readme."""
    subprocess.run([sys.executable, STAGE, kind, folder, *address], check=True)
    return (folder / "README.md").read_text()


def project_of(path: Path) -> dict:
    return tomllib.loads(path.read_text())["project"]


def bounds(project: dict) -> dict[str, str]:
    """Return the bounds of each dependency, without its extras."""
    return {each.name: str(each.specifier) for each in map(Requirement, project["dependencies"])}


def test_the_two_distributions_agree() -> None:
    alone = project_of(ROOT / "release" / "strategies" / "pyproject.toml")
    whole = project_of(ROOT / "pyproject.toml")
    for key in ("version", "requires-python"):
        assert alone[key] == whole[key]
    assert bounds(alone).items() <= bounds(whole).items()


def test_the_strategies_import_what_their_distribution_requires() -> None:
    """In a process that has everything; names of the standard library left out."""
    script = (
        "import sys; before = set(sys.modules); import strategies, pkgutil, importlib\n"
        "[importlib.import_module(f'strategies.{m.name}')"
        " for m in pkgutil.iter_modules(strategies.__path__)]\n"
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert {"flwr", "numpy", "safetensors"} <= loaded
    assert not loaded & {"torch", "ray", "numba", "omegaconf", "fauno_flwr", "sim_env"}


def test_the_readme_leads_nowhere_without_an_address(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "strategies.md").read_text()
    readme = stage("strategies", tmp_path / "alone")
    targets = [target for _, target in LINK.findall(readme)]
    assert all(re.match("https?:|#", target) for target in targets)
    assert len(targets) < len(LINK.findall(page))
    assert [block.text for block in read_blocks(readme)] == [
        block.text for block in read_blocks(page)
    ]


def test_the_links_of_the_readme_are_absolute_with_an_address(tmp_path: Path) -> None:
    readme = stage("strategies", tmp_path / "alone", f"{ADDRESS}/")
    assert f"[examples/reuse]({ADDRESS}/examples/reuse)" in readme
    for _, target in LINK.findall(readme):
        if target.startswith(ADDRESS):
            path = target.removeprefix(f"{ADDRESS}/").partition("#")[0]
            assert (ROOT / path).exists(), target
        else:
            assert re.match("https?:|#", target)


# ---- in an empty environment ---------------------------------------------------------------------

SERVER = """
import importlib.util, json, sys
import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from strategies import InMemoryGrid
from reuse import server_app, task

assert importlib.util.find_spec("torch") is None
client = ClientApp()

@client.train()
def train(message, context):
    # A linear fit of the last layer, as the example's own client needs torch.
    arrays = {name: each.numpy() for name, each in message.content["arrays"].items()}
    x, y = task.make_data(int(context.node_config["partition-id"]))
    hidden = np.tanh(x @ arrays["0.weight"].T + arrays["0.bias"])
    error = hidden @ arrays["2.weight"].T + arrays["2.bias"] - y
    arrays["2.weight"] = arrays["2.weight"] - 0.05 * (error.T @ hidden) / np.float32(len(x))
    arrays = ArrayRecord({name: Array(each) for name, each in arrays.items()})
    metrics = MetricRecord({"num-examples": len(x)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

settings = {"strategy": "async", "num-rounds": 30, "target-loss": 0.0, "out": sys.argv[1]}
grid = InMemoryGrid(client, 10, duration=lambda i, k: 10.0 if i == 0 else 1.0)
server_app.main(grid, Context(1, 1, {}, RecordDict(), settings))
"""
FILES = (
    "from pathlib import Path; import strategies; print(*Path(strategies.__path__[0]).iterdir())"
)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Return a function that builds the wheel of a folder."""

    def build(folder: Path) -> Path:
        out = tmp_path_factory.mktemp("wheel")
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, folder]
        subprocess.run(command, check=True)
        (wheel,) = out.glob("*.whl")
        return wheel

    return build


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return a function that runs the Python of an environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)

    def run(*arguments: object) -> str:
        command = [folder / "venv" / "bin" / "python", *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_strategies_alone_run_without_torch(
    tmp_path: Path, wheels: Callable[[Path], Path], empty: Callable[..., str]
) -> None:
    """The reuse example's server, the code of the readme; then the app beside them."""
    stage("strategies", tmp_path / "alone")
    alone = wheels(tmp_path / "alone")
    empty("-m", "pip", "install", "-q", alone)
    assert not {"torch", "ray", "numba"} & set(empty("-m", "pip", "freeze").lower().split("=="))

    (tmp_path / "reuse").symlink_to(ROOT / "examples" / "reuse" / "reuse")
    (tmp_path / "server.py").write_text(SERVER)
    out = tmp_path / "loss.json"
    empty(tmp_path / "server.py", out)
    history = [each["loss"] for each in json.loads(out.read_text())]
    assert len(history) == 31
    assert history[-1] < history[0] / 2

    readme = empty(
        "-c", "import importlib.metadata as m; print(m.metadata('fauno-strategies').get_payload())"
    )
    blocks = [block.text for block in read_blocks(readme) if block.language == "python"]
    assert blocks == EXAMPLES
    for i, block in enumerate(blocks):
        (tmp_path / f"block_{i}.py").write_text(block)
        empty(tmp_path / f"block_{i}.py")

    # As the page says: side by side they share files, which go with either of them.
    before = empty("-c", FILES)
    empty("-m", "pip", "install", "-q", "--no-deps", wheels(ROOT))
    assert set(empty("-c", FILES).split()) == set(before.split())
    empty("-m", "pip", "uninstall", "-q", "-y", "fauno-flwr")
    assert empty("-c", "import importlib.util as u; print(u.find_spec('strategies'))") == "None\n"
    empty("-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", alone)
    assert set(empty("-c", FILES).split()) == set(before.split())
