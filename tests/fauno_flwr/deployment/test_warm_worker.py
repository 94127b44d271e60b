"""ClientApps that are forks: each is a process of its own, whatever becomes of it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResultStatus

from fauno_flwr.deployment import warm_worker
from fauno_flwr.deployment.warm_worker import ForkExecutor


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
