"""ClientApps that are forks: each is a process of its own, whatever becomes of it."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import flwr
import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.constant import TaskType
from flwr.supercore.exit import exit_handler
from flwr.supercore.exit.exit_handler import add_exit_handler, trigger_exit_handlers
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResultStatus, SubprocessExecutor
from flwr.supernode.runtime import run_clientapp

from fauno_flwr.deployment import warm_worker
from fauno_flwr.deployment.local import Deployment
from fauno_flwr.deployment.warm_worker import ForkExecutor, flower
from strategies import private_mod
from strategies.flower_internals import set_identity, set_metadata
from tests.fauno_flwr.cli.test_main import FAUNO


def spec(token: str) -> ExecutionSpec:
    return ExecutionSpec(
        task_type=TaskType.CLIENT_APP,
        runtime_api_address="127.0.0.1:1",
        token=token,
        insecure=True,
        root_certificates_path=None,
        runtime_dependency_install=False,
        parent_pid=os.getpid(),
        suppress_output=False,
        task_id=1,
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    def run(app: Callable[[], None]) -> None:
        monkeypatch.setattr(warm_worker, "flwr_clientapp", app)
        executor = ForkExecutor()
        assert executor.launch(spec("a-token")).status == LaunchResultStatus.ACCEPTED
        end = time.monotonic() + 20
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        executor.reconcile()
        with pytest.raises(ChildProcessError):  # it was waited for: no zombie is left
            os.waitpid(-1, os.WNOHANG)

    return run


def test_a_message_is_a_process_of_its_own(run: Callable, tmp_path: Path) -> None:
    arguments = list(sys.argv)
    run(lambda: (tmp_path / "said").write_text(f"{os.getpid()} {' '.join(sys.argv)}"))
    pid, *command = (tmp_path / "said").read_text().split()
    assert int(pid) != os.getpid()
    assert command[:3] == ["flwr-clientapp", "--runtime-api-address", "127.0.0.1:1"]
    assert command[command.index("--token") + 1] == "a-token"
    assert sys.argv == arguments


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(3), KeyboardInterrupt()])
def test_a_message_that_fails_is_the_end_of_its_process_only(
    run: Callable, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    run(fail)


def test_a_killed_message_is_reaped_and_named(
    run: Callable, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its SuperNode misses its heartbeats and answers with an error."""
    run(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert "was killed by signal 9: its message fails within a minute" in capfd.readouterr().err


def test_no_two_messages_draw_the_same_numbers(run: Callable, tmp_path: Path) -> None:
    """Neither from generators that the system seeds, as of privacy, nor from global ones."""

    def draw() -> None:
        fresh = np.random.default_rng().normal(), np.random.normal(), random.random()  # noqa: NPY002
        (tmp_path / f"{os.getpid()}").write_text(" ".join(map(str, fresh)))

    np.random.seed(1)  # noqa: NPY002
    run(draw)
    run(draw)
    first, second = (path.read_text().split() for path in tmp_path.iterdir())
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_private_updates_of_two_messages_have_different_noise(
    run: Callable, tmp_path: Path
) -> None:
    """From one parent, with the same update of the same node."""
    set_identity(run_id=1, node_id=1, task_id=1)
    zeros = RecordDict({"arrays": ArrayRecord([np.zeros(3)])})
    message = Message(zeros, dst_node_id=1, message_type="train")
    set_metadata(message, message_id="m", src_node_id=1)
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": zeros["arrays"], "metrics": metrics})
    mod = private_mod(1.0, 1.0)

    def answer() -> None:
        context = Context(1, 1, {}, RecordDict(), {})
        reply = mod(message, context, lambda *_: Message(content, reply_to=message))
        (tmp_path / f"{os.getpid()}").write_bytes(
            reply.content.array_records["arrays"].to_numpy_ndarrays()[0].tobytes()
        )

    run(answer)
    run(answer)
    first, second = (np.frombuffer(path.read_bytes()) for path in tmp_path.iterdir())
    assert not np.any(first == second)
    assert np.all(first != 0)


def test_what_the_parent_does_at_its_exit_is_not_done_by_its_forks(
    run: Callable, tmp_path: Path
) -> None:
    add_exit_handler(lambda: (tmp_path / f"{os.getpid()}").touch())
    run(lambda: trigger_exit_handlers(run_before_force_exit=False))
    assert not list(tmp_path.iterdir())
    trigger_exit_handlers(run_before_force_exit=False)
    assert (tmp_path / f"{os.getpid()}").exists()


def test_a_signal_ends_a_message_without_a_report(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that is reported without a reply blocks a SuperNode for ever."""
    original = run_clientapp.register_signal_handlers
    monkeypatch.setattr(run_clientapp, "register_signal_handlers", original)
    flower.let_signals_end_apps()

    def app(signals: bool) -> None:
        run_clientapp.register_signal_handlers(
            event_type=None, exit_message="Task stopped.", exit_handlers=[(tmp_path / "end").touch]
        )
        if signals:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        trigger_exit_handlers(run_before_force_exit=False)

    run(lambda: app(signals=True))
    assert not (tmp_path / "end").exists()
    run(lambda: app(signals=False))
    assert (tmp_path / "end").exists()


def test_an_app_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time by Flower; another app with another content is another one."""
    unpacked = []

    def install(fab: bytes, skip_prompt: bool = False) -> Path:
        folder = tmp_path / "apps" / f"fauno.app.1.0.{hashlib.sha256(fab).hexdigest()[:8]}"
        folder.mkdir(parents=True)
        unpacked.append(fab)
        return folder

    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(run_clientapp, "install_from_fab", install)
    flower.unpack_apps_once()
    folders = [
        run_clientapp.install_from_fab(fab, skip_prompt=True) for fab in (b"1", b"2", b"1", b"2")
    ]
    assert unpacked == [b"1", b"2"]
    assert folders[:2] == folders[2:]
    assert folders[0] != folders[1]


def environment_of(tmp_path: Path, code: str) -> dict[str, str]:
    """Return an environment in which every Python process first runs this code."""
    (tmp_path / "sitecustomize.py").write_text(code)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "import flwr\nflwr.__version__ = '1.45.0'",
            "tested with Flower 1.41 to 1.42, this is 1.45.0",
        ),
        (
            "from flwr.supercore.superexec import run_superexec\ndel run_superexec.get_executor",
            "flwr.supercore.superexec.run_superexec has no get_executor",
        ),
    ],
    ids=["version", "part"],
)
def test_a_worker_on_another_flower_ends_with_one_sentence(
    tmp_path: Path, code: str, sentence: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 32)
    command = [FAUNO, "deploy", "worker", "127.0.0.1:1", "--secret-file", str(secret)]
    environment = environment_of(tmp_path, code)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("fauno: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("owner", "name", "replacement", "missing"),
    [
        (run_superexec, "get_executor", None, "has no get_executor"),
        (run_clientapp, "install_from_fab", lambda: None, r"needs \[\], not \['fab_file'\]"),
        (SubprocessExecutor, "launch", lambda self, spec, pool: None, "'pool'"),
        (SubprocessExecutor, "reconcile", None, "has no reconcile"),
        (exit_handler, "registered_exit_handlers", None, "has no registered_exit_handlers"),
    ],
)
def test_a_deployment_on_another_flower_does_without_a_worker_and_says_so(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, replacement: object, missing: str
) -> None:
    said: list[str] = []
    assert Deployment(2, report=said.append).warm
    assert said == []
    if replacement is None:
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, replacement)
    assert not Deployment(2, report=said.append).warm
    (sentence,) = said
    assert sentence.startswith("a new process for each message, as with --no-warm: ")
    assert f"this is {flwr.__version__}" in sentence
    assert re.search(missing, sentence), sentence
    assert not Deployment(2, warm=False, report=said.append).warm
    assert len(said) == 1


def test_the_worker_has_one_thread_when_it_forks(tmp_path: Path) -> None:
    """A fork inherits the locks of other threads, but not the threads that would release them."""
    said, secret = tmp_path / "threads", tmp_path / "secret"
    secret.write_text("x" * 32)
    code = f"""
import os, sys
if any("warm_worker" in word for word in sys.orig_argv):
    import flwr.supercore.cli
    from flwr.supercore.cli import flower_superexec
    def count():
        import psutil
        open({str(said)!r}, "w").write(str(psutil.Process().num_threads()))
    sys.modules["flwr.supercore.cli.flower_superexec"].flower_superexec = count
"""
    environment = environment_of(tmp_path, code)
    environment.pop("OMP_NUM_THREADS", None)
    command = [FAUNO, "deploy", "worker", "127.0.0.1:1", "--secret-file", str(secret)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert said.read_text() == "1"


def test_the_libraries_are_loaded_but_nothing_of_the_app() -> None:
    """A fork must read the app's code from its own FAB."""
    script = Path(warm_worker.__file__)
    code = f"""
import runpy, sys
from flwr.supercore.cli import flower_superexec
sys.modules["flwr.supercore.cli.flower_superexec"].flower_superexec = lambda: None
runpy.run_path({str(script)!r}, run_name="__main__")
ours = {{"fauno_flwr", "strategies", "sim_env"}} & {{name.split(".")[0] for name in sys.modules}}
print("torch" in sys.modules, sorted(ours))
"""
    said = subprocess.check_output([sys.executable, "-P", "-c", code], text=True)
    assert said.split(maxsplit=1) == ["True", "[]\n"]
