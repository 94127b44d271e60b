"""``fauno replay``: policies side by side, with or without a run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fauno_flwr.cli.main import app

SHORT = ["evaluation.warmup=0", "evaluation.window=60"]


def replay(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["replay", *map(str, arguments)])
    return result.exit_code, result.output


def test_heuristics_without_a_run(tmp_path: Path) -> None:
    code, said = replay(*SHORT, "--policies", "lq,sed", "--out", tmp_path / "a.html")
    assert code == 0, said
    page = (tmp_path / "a.html").read_text()
    assert "LeastQueue" in page
    assert "Replay of ether2" in page


def test_pictures(tmp_path: Path) -> None:
    common = [*SHORT, "--policies", "lq", "--seconds", "1:3", "--out"]
    code, said = replay(*common, tmp_path / "frames")
    assert code == 0, said
    assert len(list((tmp_path / "frames").iterdir())) == 4
    code, said = replay(*common, tmp_path / "frames")
    assert (code, "holds frames already" in said) == (2, True)
    code, said = replay(*common, tmp_path / "a.gif")
    assert code == 0, said
    assert (tmp_path / "a.gif").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.pdf"], "out is 'a.pdf': must end in .html or .gif, or be a new folder"),
        (["--out", "nowhere/a.html"], "out is 'nowhere/a.html': must be in a folder that exists"),
        (["--seconds", "1:2"], "seconds is '1:2': has no effect on .html, must be left out"),
        (["--best"], "best is set: has no effect without the folder of a run"),
        (["--policies", "fauno"], "policies is 'fauno': fauno needs the folder of a run"),
        (["--policies", "lq,lq"], "policies has 'lq' twice: must be different ones"),
        (["nowhere"], "'nowhere' holds no config.yaml: must be the folder of a run"),
        (["agent.hidden=8"], "agent.hidden is 8: has no effect in fauno replay"),
        (["evaluation.policies=[]"], "evaluation.policies is []: there is nothing to show"),
        (["--out", "a.gif", "--seconds", "9"], "seconds is '9': must be START:STOP between 0"),
        (["--out", "a.gif", "--seconds", "9:1"], "seconds is '9:1': must be START:STOP"),
        (["--conf", "cartpole"], "world.kind is 'gym'"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [] if {"--conf", "nowhere"} & set(arguments) else SHORT
    code, said = replay(*arguments, *settings)
    assert code == 2, said
    assert message in said
    assert not list(tmp_path.iterdir())
