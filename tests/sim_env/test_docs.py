"""The examples of docs/environments.md run unchanged."""

import re
from pathlib import Path

import pytest

from tests.paths import ROOT

PAGE = ROOT / "docs" / "environments.md"
EXAMPLES = re.findall(
    r"^## (.+?)$.*?```python\n(.+?)```", PAGE.read_text(), re.DOTALL | re.MULTILINE
)


def test_every_section_has_its_example() -> None:
    assert [title for title, _ in EXAMPLES] == [
        "Observations and rewards",
        "One node: gymnasium",
        "One node: Stable-Baselines3",
        "All nodes: PettingZoo",
        "Pictures",
    ]


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_example_runs(
    title: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "stable_baselines3" in code:
        pytest.importorskip("stable_baselines3")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"{PAGE.name}: {title}", "exec"), {"__name__": "__main__"})
