"""The examples of docs/environments.md run unchanged."""

import re
from pathlib import Path

import pytest

from tests.paths import ROOT

PAGE = ROOT / "docs" / "environments.md"
EXAMPLES = [
    (title, code)
    for title, text in re.findall(
        r"^##+ (.+?)\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.DOTALL | re.M
    )
    for code in re.findall(r"```python\n(.+?)```", text, re.DOTALL)
]
OPTIONAL = ("stable_baselines3", "sb3_contrib", "supersuit", "tianshou", "torchrl")


def test_every_section_has_its_example() -> None:
    assert [title for title, _ in EXAMPLES] == [
        "Observations and rewards",
        "One node: gymnasium",
        "Many worlds at once",
        "One node: Stable-Baselines3",
        "All nodes: PettingZoo",
        "CleanRL",
        "SuperSuit",
        "tianshou",
        "torchrl",
        "Pictures",
    ]


@pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested")
@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_example_runs(
    title: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in OPTIONAL:
        if library in code:
            pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"{PAGE.name}: {title}", "exec"), {"__name__": "__main__"})
