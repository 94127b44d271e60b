"""The stamp of the kernel cache."""

from pathlib import Path

import pytest

import sim_env
from sim_env.engine import compilation


def test_the_stamp_spans_the_whole_package() -> None:
    assert Path(sim_env.__file__).parent == compilation.PACKAGE


@pytest.mark.parametrize("change", ["write", "rename", "add"])
def test_a_source_of_a_sub_folder_changes_the_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Or stale kernels would be loaded."""
    inner = tmp_path / "engine" / "kernel.py"
    inner.parent.mkdir()
    inner.write_text("x = 1\n")
    (tmp_path / "world.py").write_text("x = 1\n")
    monkeypatch.setattr(compilation, "PACKAGE", tmp_path)
    stamp = compilation.source_digest.__wrapped__
    before = stamp()
    assert stamp() == before
    if change == "write":
        inner.write_text("x = 2\n")
    elif change == "rename":
        inner.rename(inner.with_name("tick.py"))
    else:
        inner.with_name("tick.py").write_text("")
    assert stamp() != before
