"""The commands of README, docs and examples run as they stand there; doc_commands.py lists them.

The slow ones start whole engines, and take minutes to half an hour a page.
"""

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.deployment import processes
from fauno_flwr.deployment.engine import free_addresses
from sim_env import plugins
from sim_env.engine.compilation import cache_root
from tests import test_extending
from tests.doc_commands import (
    BEFORE,
    COMMANDS,
    INDENTED,
    OTHERS,
    PAGES,
    QUICK,
    SERVER,
    SHELLS,
    SLOW,
    Command,
    read_blocks,
    read_commands,
    read_page,
)
from tests.paths import ROOT
from tests.sim_env import test_docs as environments
from tests.strategies import test_docs as strategies

FAUNO = typer.main.get_command(app)
PATIENCE = 3 * 3600  # seconds for the slow commands of a page, on a busy machine
PYTHON = "python"
# Settings within the text of these pages are for another preset than ether2.
PRESETS = dict.fromkeys(("docs/bring_your_own.md", "examples/cartpole/README.md"), "cartpole")
COLLECTED = ["federation.collect_actors=true"]  # as fauno train and fauno simulate set it


def python_of(page: str) -> list[str]:
    """Return the Python code of a page."""
    return [block.text for block in read_blocks(read_page(page)) if block.language == PYTHON]


# Python code that another test runs, by page; all other is run here.
RUN_ELSEWHERE = {
    "docs/environments.md": [code for _, code in environments.EXAMPLES],
    "docs/strategies.md": strategies.EXAMPLES,
    "docs/extending.md": list(test_extending.FILES.values()),
    "docs/own_network.md": python_of("docs/own_network.md"),  # by tests/test_own_network.py
    # By test_gym.py and test_trained.py in tests/fauno_flwr/tasks, which expect one block.
    "docs/learners.md": python_of("docs/learners.md"),
    "docs/bring_your_own.md": python_of("docs/bring_your_own.md"),
}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_listed_and_no_other(page: str) -> None:
    """To add one, see the docstring of doc_commands.py."""
    found = [command.name for command in read_commands(read_page(page))]
    assert [name for _, name in COMMANDS.get(page, [])] == found


def test_every_listed_page_exists() -> None:
    assert set(COMMANDS) <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_no_block_is_of_a_language_that_is_not_read(page: str) -> None:
    known = {*SHELLS, *OTHERS, INDENTED}
    assert {block.language for block in read_blocks(read_page(page))} <= known


def test_a_command_that_is_not_listed_and_one_that_has_gone_are_found() -> None:
    text = read_page("docs/get_started.md")
    listed = [name for _, name in COMMANDS["docs/get_started.md"]]
    more = [*listed, "fauno compare --seeds 7 'a # b'"]
    added = f"{text}\n\n    fauno compare \\\n        --seeds 7 'a # b'   # comment\n"
    assert [command.name for command in read_commands(added)] == more
    fewer = text.replace("    fauno train --out results/cosim\n", "")
    assert [command.name for command in read_commands(fewer)] != listed


# ---- what is checked of every command ------------------------------------------------------------


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the subcommand of ``fauno`` that the words name, and its arguments."""
    found: click.Command = FAUNO
    while isinstance(found, click.Group) and words and words[0] in found.commands:
        found, words = found.commands[words[0]], words[1:]
    return found, words


def plain_words(command: str) -> list[str]:
    """Return the words of a command, without redirections."""
    return shlex.split(re.split(r"\s(?:>|&$|\|)", command)[0])


def fauno_commands() -> Iterator[tuple[str, list[str]]]:
    """Yield pages and words of the commands of ``fauno`` in blocks of code."""
    for page in PAGES:
        for command in read_commands(read_page(page)):
            words = plain_words(command.name) if command.name.startswith("fauno ") else []
            if words and not any(word.startswith("[--") for word in words):
                yield page, words[1:]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let the modules of docs/extending.md be found."""
    path = tmp_path_factory.mktemp("recipes")
    for name, code in test_extending.FILES.items():
        (path / name).write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(plugins, "_folders", [path])
        yield path
    for name in test_extending.FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_options_and_settings_of_every_fauno_command_exist(recipes: Path) -> None:
    checked = 0
    for page, words in fauno_commands():
        # An option of typer's; a page whose commands read files of each other.
        if words == ["--install-completion"] or page == "docs/own_network.md":
            continue
        command, arguments = find_command(words)
        assert not isinstance(command, click.Group), f"{page}: fauno {' '.join(words)}"
        try:
            context = command.make_context("fauno", list(arguments))
        except click.UsageError as error:
            pytest.fail(f"{page}: fauno {' '.join(words)}: {error.format_message()}")
        overrides = context.params.get("overrides") or []
        load_config(context.params.get("conf", "ether2"), [*COLLECTED, *overrides])
        checked += 1
    assert checked > 30


def test_run_configs_of_flwr_commands_load() -> None:
    checked = 0
    for page in PAGES:
        for command in read_commands(read_page(page)):
            words = (
                shlex.split(command.text, comments=True) if "--run-config" in command.text else []
            )
            if words[:2] != ["flwr", "run"] or words[2] != ".":
                continue
            pairs = words[words.index("--run-config") + 1]
            given = {
                key: a or b
                for key, a, b in re.findall(r"([\w-]+)=(?:\"([^\"]*)\"|'([^']*)')", pairs)
            }
            assert set(given) <= {"conf", "overrides", "env-id", "out"}, page
            load_config(given.get("conf", "ether2"), given.get("overrides", "").split())
            checked += 1
    assert checked >= 4


def inline_code() -> Iterator[tuple[str, str]]:
    """Yield pages and what they set as code within their text."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", read_page(page), flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`([^`]+)`", text):
            yield page, " ".join(code.split())


def test_commands_within_the_text_exist_with_their_options() -> None:
    checked = 0
    for page, code in inline_code():
        if not code.startswith("fauno "):
            continue
        command, rest = find_command(shlex.split(code)[1:])
        if isinstance(command, click.Group) and command is not FAUNO and not rest:
            continue  # the name of a group, such as `fauno world`
        assert not isinstance(command, click.Group), f"{page}: {code}"
        known = {option for each in command.params for option in each.opts + each.secondary_opts}
        options = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert options <= {*known, "--help", "-h"}, f"{page}: {code}"
        checked += 1
    assert checked > 10


GROUPS = tuple(RunConfig.__dataclass_fields__)
SETTING = re.compile(
    rf"(?<![\w./-])((?:{'|'.join(GROUPS)})(?:\.[a-z_]+)*=(?:\{{[^}}]*\}}|\[[^\]]*\]|[^\s`'\",]+))"
)
FORM = re.compile(r"=([A-Z]+$|<)|\.\.\.")  # stands for a value
KEY = re.compile(rf"(?:{'|'.join(GROUPS)})(?:\.[a-z_]+)+")


def test_settings_within_the_text_load(recipes: Path) -> None:
    checked, failed = 0, list[str]()
    for page, code in inline_code():
        if settings := [each for each in SETTING.findall(code) if not FORM.search(each)]:
            try:
                load_config(PRESETS.get(page, "ether2"), [*COLLECTED, *settings])
            except ValueError as error:
                failed.append(f"{page}: {code}: {error}")
            checked += 1
    assert not failed
    assert checked > 20


def test_keys_within_the_text_are_settings() -> None:
    checked = 0
    for page, code in inline_code():
        if not KEY.fullmatch(code) or Path(code).suffix in (".py", ".yaml", ".json"):
            continue
        kind = load_config("ether2")
        for name in code.split("."):
            assert hasattr(kind, name), f"{page}: {code}"
            kind = getattr(kind, name)
        checked += 1
    assert checked > 10


FILE = re.compile(
    r"(?<![\w./-])(?:conf|deploy|docs|examples|benchmarks|tests|sim_env|strategies|fauno_flwr)/[\w./-]*\w/?"
)


def test_files_within_the_text_exist() -> None:
    checked = 0
    for page, code in inline_code():
        for name in FILE.findall(code):
            assert (ROOT / name).exists(), f"{page}: {code}"
            checked += 1
    assert checked > 10


# ---- running ------------------------------------------------------------------------------------


def python_here(page: str) -> list[str]:
    """Return the Python code of a page that no other test runs."""
    return [code for code in python_of(page) if code not in RUN_ELSEWHERE.get(page, [])]


def write_files(page: str, folder: Path) -> None:
    """Write the Python code of a page to files: by its titles, or ``python_0.py``, ..."""
    code = [block for block in read_blocks(read_page(page)) if block.language == PYTHON]
    for i, block in enumerate(code):
        (folder / (block.title or f"python_{i}.py")).write_text(block.text)


@pytest.mark.parametrize("page", [page for page in PAGES if python_here(page)])
def test_python_code_runs_in_the_order_of_the_page(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(page, tmp_path)
    scope = {"__name__": "__main__"}
    for code in python_here(page):
        exec(compile(code, page, "exec"), scope)


def pages_with(kind: str) -> list[str]:
    """Return the pages for which commands of a kind are listed."""
    return [page for page, listed in COMMANDS.items() if kind in dict(listed)]


def of_kind(page: str, *kinds: str) -> list[tuple[str, Command]]:
    """Return the commands of a page that are of these kinds, with their kinds."""
    listed = [kind for kind, _ in COMMANDS.get(page, [])]
    pairs = zip(listed, read_commands(read_page(page)), strict=True)
    return [(kind, command) for kind, command in pairs if kind in kinds]


@pytest.mark.parametrize("page", pages_with(QUICK))
def test_quick_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``fauno`` in this process: importing its libraries takes longer than the command."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for _, command in of_kind(page, QUICK):
        if command.name.startswith("fauno "):
            done = CliRunner().invoke(app, plain_words(command.name)[1:])
            assert done.exit_code == 0, f"{command.name}: {done.output}"
        else:
            subprocess.run(["bash", "-ec", command.text], check=True)


# Flower gives its own SuperLink 15 s to start, which are too few on a busy machine.
START_SUPERLINK = "for i in 1 2 3 4 5; do flwr list > /dev/null 2>&1 && break; done"


def not_of_the_checkout(folder: str, names: list[str]) -> set[str]:
    """Return the names to leave out of a copy: caches, and what make and a user have made."""
    made = {"results", "build", "dist"} if Path(folder) == ROOT else set()
    hidden = {name for name in names if name.startswith(".") and name != ".gitignore"}
    return hidden | made | {"__pycache__"}


class Folder:
    """A copy of the checkout in which a user types commands, with an environment of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.home = path / "checkout", path / "home"
        shutil.copytree(ROOT, self.path, ignore=not_of_the_checkout, symlinks=True)
        (self.home / ".flwr").mkdir(parents=True)
        self._link_environment(Path(sys.prefix))
        self.mark = uuid.uuid4().hex
        self.tmp = path / "tmp"
        self.tmp.mkdir()
        self.environment = {
            **os.environ,
            processes.MARK: self.mark,
            "HOME": str(self.home),
            "FLWR_HOME": str(self.home / ".flwr"),
            # Not that of another test, or of the user, whose SuperLink would be used.
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": free_addresses(1)[0].rpartition(":")[2],
            "PATH": f"{self.path / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "NUMBA_CACHE_DIR": str(cache_root()),
        }

    def _link_environment(self, installed: Path) -> None:
        """Make a ``.venv`` that counts as installed, so that make installs nothing."""
        own = self.path / ".venv"
        own.mkdir()
        for entry in installed.iterdir():
            if not entry.name.startswith(".installed"):
                (own / entry.name).symlink_to(entry)
        for name in (".installed", ".installed-dev"):
            (own / name).touch()

    def run(self, page: str, commands: list[tuple[str, Command]]) -> None:
        """Run commands in one shell, in order, each after the last one has succeeded."""
        lines = ["set -e", BEFORE.get(page, "")]
        for kind, command in commands:
            text = re.sub(r"results/(\w+)-<time>", r"results/\1-*", command.text)
            text = text.replace("/tmp/", f"{self.tmp}/")
            if command.name.startswith("flwr run "):
                lines.append(START_SUPERLINK)
            lines.append(f"echo {shlex.quote(f'@@ {command.name}')} >&2")
            lines.append(f"{text} &\nsleep 20" if kind == SERVER else text)
            out = re.search(r"out=[\"']([^\"']+)", text)
            if "--stream" in text and out:  # flwr run succeeds although its run fails
                lines.append(f"test -s {out[1]}/summary.json || test -f {out[1]}")
        script = "\n".join(lines)
        log = self.path / "commands.log"
        try:
            with log.open("w") as file:
                done = subprocess.run(
                    ["bash", "-c", script],
                    cwd=self.path,
                    env=self.environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=PATIENCE,
                    check=False,
                )
        finally:
            processes.stop(self.mark, self.home, processes.PATIENCE)
        assert done.returncode == 0, f"{page}: {log.read_text()[-5000:]}"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a copy of the checkout."""
    return Folder(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(SLOW))
def test_slow_commands_run(page: str, folder: Folder) -> None:
    write_files(page, folder.path)
    folder.run(page, of_kind(page, QUICK, SLOW, SERVER))
    if page == "docs/experiments.md":
        stored = ROOT / "docs" / "results" / "buffer-quick"
        for name in ("table.csv", "results.md"):
            assert (folder.path / "DIR" / name).read_bytes() == (stored / name).read_bytes()


@functools.cache
def help_of(program: str) -> str:
    """Return the help of a program of Flower."""
    path = str(Path(sys.executable).with_name(program))
    return subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_options_of_flowers_programs_exist() -> None:
    checked = 0
    for page in PAGES:
        for command in read_commands(read_page(page)):
            text = re.sub(r"\\\n", " ", command.text)
            for program, rest in re.findall(r"^\s*(flower-\w+) (.+)$", text, re.MULTILINE):
                for option in re.findall(r"(?<!\S)--[\w-]+", rest):
                    assert option in help_of(program), f"{page}: {program} {option}"
                    checked += 1
    assert checked > 20
