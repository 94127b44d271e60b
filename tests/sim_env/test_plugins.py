"""Choices by name, entry point and import path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim_env import plugins

KNOWN = {"one": 1}
GROUP = "fauno.tests"


def test_a_built_in_name_comes_first_and_an_unknown_one_names_the_known() -> None:
    assert plugins.find("rule", "one", KNOWN, GROUP) == 1
    with pytest.raises(ValueError, match=r"rule is 'two': must be one"):
        plugins.find("rule", "two", KNOWN, GROUP)


def test_an_import_path_gives_the_object() -> None:
    assert plugins.find("rule", "os.path:join", KNOWN, GROUP) is os.path.join


@pytest.mark.parametrize("path", ["no_such_module:x", "os.path:no_such_name", "tests.broken_:x"])
def test_what_cannot_be_imported_is_one_sentence(path: str) -> None:
    with pytest.raises(ValueError, match=r"^rule is .*: cannot be imported \(.*\)$"):
        plugins.find("rule", path, KNOWN, GROUP)


def test_a_built_in_name_costs_no_search_of_the_installed_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plugins, "names_of", lambda group: pytest.fail("searched"))
    plugins.require_name("rule", "one", KNOWN, GROUP)
    plugins.require_name("rule", "no_such:x", KNOWN, GROUP)


@pytest.mark.parametrize("name", ["", ":", "a:", ":b", "a b:c", "a:b:c", "a..b:c"])
def test_a_name_that_is_no_import_path_is_refused_unimported(name: str) -> None:
    with pytest.raises(ValueError, match="must be one"):
        plugins.require_name("rule", name, KNOWN, GROUP)


def test_a_folder_is_searched_last_and_by_child_processes_too(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("x = 'shadow'\n")
    (tmp_path / "my_own_rule.py").write_text("x = 'mine'\n")
    code = (
        "import subprocess, sys\nfrom pathlib import Path\nfrom sim_env import plugins\n"
        f"plugins.search_in(Path({str(tmp_path)!r}))\n"
        "print(plugins.find('rule', 'random:randint', {}, 'g'))\n"
        "print(plugins.find('rule', 'my_own_rule:x', {}, 'g'))\n"
        "child = 'import my_own_rule; print(my_own_rule.x)'\n"
        "sys.stdout.flush()\nsubprocess.run([sys.executable, '-c', child], check=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "shadow" not in done.stdout
    assert done.stdout.splitlines()[1:] == ["mine", "mine"]
