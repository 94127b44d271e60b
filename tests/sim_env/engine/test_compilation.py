"""The stamp of the kernel cache."""

import logging
import logging.handlers
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


def double(x: float) -> float:
    return 2 * x


def test_a_kernel_is_logged_when_it_is_compiled_not_when_the_cache_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    handler = logging.handlers.BufferingHandler(100)
    monkeypatch.setattr(compilation.LOGGER, "handlers", [handler])
    monkeypatch.setattr(compilation.LOGGER, "level", logging.INFO)
    inner = compilation.compiled(double)

    def outer(x: float) -> float:
        return float(inner(x) + 1)

    assert compilation.compiled(outer)(3.0) == 7.0
    assert [record.getMessage() for record in handler.buffer] == [f"compiling {__name__}.outer"]
    assert compilation.compiled(double)(3.0) == 6.0
    assert len(handler.buffer) == 1
