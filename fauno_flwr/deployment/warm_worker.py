"""A SuperExec whose ClientApps are forks of itself: what they import is imported once.

Flower starts a new Python for every message, which spends three seconds of a core on imports. A
fork has them already. Run as a script, beside a SuperNode with ``--isolation process``: what it
loads are the libraries, never the app, whose code each fork reads from its own FAB. It replaces an
internal part of Flower (1.41), so it is an option and never the default.
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
    """Runs a ClientApp in a fork of this process, and other tasks as Flower does."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the process of a task."""
        if spec.task_type != TaskType.CLIENT_APP:
            return super().launch(spec)
        if os.fork() == 0:
            self._be_client_app(spec)
        return LaunchResult.accepted()

    def _be_client_app(self, spec: ExecutionSpec) -> None:
        """All that a fork does; it never returns."""
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            trust = ["--insecure"]
            if not spec.insecure:
                trust = ["--root-certificates", str(spec.root_certificates_path)]
            address = ["--runtime-api-address", spec.runtime_api_address]
            # The token never stands on a command line here: the fork has its parent's.
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
            # What the parent has open is the parent's to close.
            os._exit(code)

    def reconcile(self) -> None:
        """Take note of forks that have ended."""
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return


def main() -> None:
    """Load the libraries, then do as ``flower-superexec`` does, with its arguments."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy all pages that they share
    vars(run_superexec)["get_executor"] = lambda *_, **__: ForkExecutor()
    flower_superexec()


if __name__ == "__main__":
    main()
