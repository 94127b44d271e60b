"""A SuperExec whose ClientApps are forks of itself, so that their libraries are imported once.

Flower starts a new Python process for every message, which spends three seconds of a core on
imports; a fork has them already. Run as a script, beside a SuperNode with ``--isolation process``,
it loads libraries but nothing of the app: each fork reads the app's code from its own FAB. It
replaces an internal part of Flower, and ends with one sentence if that is not as it was tested.

A fork has one thread and the memory of its parent, so nothing here may start a thread or open a
connection before the fork, apart from those of ``flower-superexec`` itself: no pool of torch,
OpenMP or BLAS (``fauno deploy worker`` sets ``OMP_NUM_THREADS``), no channel of gRPC.
"""

import contextlib
import gc
import importlib
import os
import signal
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numba
import numpy as np

LIBRARIES = (
    "torch",
    "torch.utils.serialization",
    "gymnasium",
    "pettingzoo.utils",
    "omegaconf",
    "safetensors.numpy",
    "psutil",
    "networkx",
    "statistics",
)


def load_flower_internals() -> ModuleType:
    """Load ``strategies/flower_internals.py`` by path, without its package.

    With ``strategies`` in ``sys.modules``, a fork would not import the one of its FAB.
    """
    path = Path(__file__).parents[2] / "strategies" / "flower_internals.py"
    spec = spec_from_file_location("flower_internals", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from strategies import flower_internals as flower
else:
    flower = load_flower_internals()
    if __name__ == "__main__":
        try:
            flower.require_superexec()
        except ImportError as error:
            sys.exit(f"fauno: {error}; run the SuperNode without --isolation process instead")

# Here, not in a fork: their imports are what takes the time.
flower_superexec, flwr_clientapp = flower.flower_superexec, flower.flwr_clientapp


class ForkExecutor(flower.SubprocessExecutor):
    """Run a ClientApp in a fork of this process, and other tasks as Flower does."""

    def launch(self, spec: flower.ExecutionSpec) -> flower.LaunchResult:
        """Start the process of a task."""
        if spec.task_type != flower.TaskType.CLIENT_APP:
            return super().launch(spec)
        if os.fork() == 0:
            self._run_client_app(spec)
        return flower.LaunchResult.accepted()

    def _run_client_app(self, spec: flower.ExecutionSpec) -> None:
        """Run the ClientApp in a fork, and end its process."""
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)
            flower.forget_exit_handlers()
            # The state that all forks share would be the same in each; `random` does this itself.
            np.random.seed()  # noqa: NPY002
            trust = ["--insecure"]
            if not spec.insecure:
                trust = ["--root-certificates", str(spec.root_certificates_path)]
            address = ["--runtime-api-address", spec.runtime_api_address]
            # The token appears on no command line: the fork keeps that of its parent.
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
            # No clean-up: open files and threads belong to the parent.
            os._exit(code)

    def reconcile(self) -> None:
        """Reap the forks that have ended."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = ended
                if os.WIFSIGNALED(status):
                    end = f"was killed by signal {os.WTERMSIG(status)}"
                    print(
                        f"process {pid} {end}: its message fails within a minute", file=sys.stderr
                    )


def load_libraries() -> None:
    """Import what every message needs, also what numba imports when it first compiles."""
    for name in LIBRARIES:
        importlib.import_module(name)
    numba.njit()(abs_of)(0)


def abs_of(number: int) -> int:
    """Return an absolute value: any function would do."""
    return abs(number)


def main() -> None:
    """Load the libraries, then run ``flower-superexec`` with its own arguments."""
    load_libraries()
    flower.unpack_apps_once()
    flower.let_signals_end_apps()
    gc.freeze()  # a collection in a fork would copy the shared pages
    flower.use_executor(ForkExecutor)
    flower_superexec()


if __name__ == "__main__":
    main()
