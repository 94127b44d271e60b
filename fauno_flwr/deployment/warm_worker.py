"""A SuperExec whose ClientApps are forks of itself, so that libraries are imported once.

Flower starts a new Python for every message, which spends 3 s of a core on imports. Run this as a
script beside a SuperNode with ``--isolation process``. It loads the libraries, but never the app,
whose code each fork reads from its FAB. It replaces an internal part of Flower (1.41), so it is not
the default.
"""

import gc
import importlib
import os
import signal
import sys
import traceback

from flwr.supercore.cli.flower_superexec import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supernode.cli import flwr_clientapp

LIBRARIES = ("torch", "numba", "gymnasium", "omegaconf", "safetensors.numpy")


class ForkExecutor(SubprocessExecutor):
    """Run a ClientApp in a fork of this process, and other tasks as Flower does."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the process of a task."""
        if spec.task_type != TaskType.CLIENT_APP:
            return super().launch(spec)
        if os.fork() == 0:
            self._be_client_app(spec)
        return LaunchResult.accepted()

    def _be_client_app(self, spec: ExecutionSpec) -> None:
        """Run as a fork, and exit."""
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            trust = ["--insecure"]
            if not spec.insecure:
                trust = ["--root-certificates", str(spec.root_certificates_path)]
            address = ["--runtime-api-address", spec.runtime_api_address]
            # This is not visible as a command line: a fork shows that of its parent.
            parent = ["--parent-pid", str(spec.parent_pid)]
            sys.argv = ["flwr-clientapp", *address, "--token", spec.token, *trust, *parent]
            flwr_clientapp()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Without cleaning up: open resources are those of the parent.
            os._exit(code)

    def reconcile(self) -> None:
        """Wait for forks that have ended."""
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return


def main() -> None:
    """Load the libraries, then run as ``flower-superexec`` with its arguments."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # a garbage collection in a fork would copy all shared pages
    vars(run_superexec)["get_executor"] = lambda *_, **__: ForkExecutor()
    flower_superexec()


if __name__ == "__main__":
    main()
