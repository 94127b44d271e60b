"""``fauno train``: what it says at its end."""

import os
import re
import time
from pathlib import Path

from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from tests.fauno_flwr.cosim.test_grid import SMALL


def test_a_training_says_where_its_time_goes(tmp_path: Path) -> None:
    """All parts together take no more than the command; threads learn beside them."""
    settings = [*SMALL, "evaluation.worlds=2", "federation.versions=2"]
    begin = time.perf_counter()
    done = CliRunner().invoke(app, ["train", "--out", str(tmp_path / "out"), *settings])
    took = time.perf_counter() - begin
    assert done.exit_code == 0, done.output
    (line,) = [each for each in done.output.splitlines() if each.startswith("acting ")]
    line, _, beside = line.partition("; beside it, learning in threads ")
    if len(os.sched_getaffinity(0)) > 1:
        assert float(beside.removesuffix(" s")) >= 0
    parts = dict(re.findall(r"([a-z, ]+) ([0-9.]+) s", line))
    names = ["acting", "learning", "network, messages and merging", "evaluation"]
    assert [name.strip() for name in parts] == [*names, "table, figures and replay"]
    assert 0 < sum(map(float, parts.values())) <= took
