"""The script that lets hostile nodes loose on merge rules."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import byzantine

SOME = ["--seeds", "1", "--sizes", "10", "--buffers", "2", "--rules", "default"]


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("training.worlds=1", "training.ticks=64", "evaluation.worlds=2")
    monkeypatch.setattr(byzantine, "LITTLE", (*byzantine.LITTLE, *small))
    monkeypatch.setattr(byzantine, "EVALUATION", ("evaluation.policies=[]", *small[2:]))
    monkeypatch.setattr(byzantine, "MESSAGES", 4)


def test_a_table_is_computed_once_and_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*SOME, "--hostile", "1", "--attacks", "none", "nan", "--out", str(tmp_path)]
    byzantine.main([*given, "--most", "1"])
    assert capsys.readouterr().out.count("| 10 | 2 |") == 1
    byzantine.main(given)
    captured = capsys.readouterr()
    assert captured.out.count("| 10 | 2 |") == 2
    assert captured.err.count("10-2-default") == 1
    found = json.loads((tmp_path / "cells" / "10-2-default-nan-1-1.json").read_text())
    assert found["rejected"] > 0
    assert found["versions"] == 20


@pytest.mark.parametrize("attack", [name for name in byzantine.ATTACKS if name != byzantine.NONE])
def test_every_attack_changes_the_training(attack: str, tmp_path: Path) -> None:
    cell = byzantine.Cell(10, "all", "mean", attack, 2, 1)
    plain = byzantine.run_cell(byzantine.Cell(10, "all", "mean", byzantine.NONE, 0, 1))
    hostile = byzantine.run_cell(cell)
    assert hostile["critic_error"] != plain["critic_error"]
    assert (hostile["rejected"] > 0) == (attack == "nan")
