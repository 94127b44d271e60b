"""The examples of docs/strategies.md run as printed."""

import re

import pytest

from tests.paths import ROOT

PAGE = ROOT / "docs" / "strategies.md"
EXAMPLES = re.findall(r"```python\n(.+?)```", PAGE.read_text(), re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 10


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_runs(code: str, capsys: pytest.CaptureFixture) -> None:
    exec(compile(code, PAGE.name, "exec"), {"__name__": "__main__"})
    if "FedAvg" in code:
        lines = capsys.readouterr().out.splitlines()
        fedavg, ours = (float(line.split()[1]) for line in lines if "virtual time" in line)
        assert fedavg == 200.0
        assert ours < 20.0


def test_the_diff_is_that_of_the_reuse_example() -> None:
    server = (ROOT / "examples" / "reuse" / "reuse" / "server_app.py").read_text()
    (diff,) = re.findall(r"```diff\n(.+?)```", PAGE.read_text(), re.DOTALL)
    for line in diff.splitlines():
        if line[:1] in "+-":
            assert line[1:] in server
