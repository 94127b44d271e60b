"""An experiment leaves its machine: a Ray cluster of two that share no disk."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.fauno_flwr.deployment.machines import Machines, can_be_made

ROOT = Path(__file__).parents[3]
PACKAGES = ("fauno_flwr", "sim_env", "strategies", "conf")
DESK, WORKER = "10.77.0.1", "10.77.0.2"
PORT = 6379
BIN = Path(sys.executable).parent
RAY = f"{BIN}/ray start --disable-usage-stats --block"
OWN = "export NUMBA_CACHE_DIR=/var/numba RAY_TMPDIR=/var/ray; mkdir -p $NUMBA_CACHE_DIR /var/ray"


@pytest.mark.slow
@pytest.mark.skipif(not can_be_made(), reason="needs to make namespaces, networks and mounts")
def test_cells_are_computed_on_another_machine_without_this_code_or_disk(tmp_path: Path) -> None:
    """The desk has no core to give; the other machine has neither the sources nor the results."""
    out = tmp_path / "out"
    with Machines({"desk": DESK, "worker": WORKER}) as machines:
        desk, worker = machines["desk"], machines["worker"]
        hidden = [*(ROOT / package for package in PACKAGES), tmp_path]
        worker.run("; ".join(f"mount -t tmpfs none {shlex.quote(str(each))}" for each in hidden))
        assert not worker.run(f"ls {shlex.quote(str(ROOT / 'fauno_flwr'))}").strip()
        head = f"--head --node-ip-address={DESK} --port={PORT} --num-cpus=0"
        desk.start("head", f"{OWN}; {RAY} {head} --include-dashboard=false --temp-dir=/var/ray")
        desk.run(
            f"for i in $(seq 120); do : > /dev/tcp/{DESK}/{PORT} && exit; sleep 1; done; exit 1"
        )
        joins = f"--address={DESK}:{PORT} --node-ip-address={WORKER} --num-cpus=1"
        worker.start("worker", f"{OWN}; {RAY} {joins}")
        command = f"{BIN}/fauno experiment straggler --quick --seeds 1 --methods fauno --no-report"
        desk.run(f"{OWN}; cd /var; {command} --address {DESK}:{PORT} --out {out}")
        assert "numba" in worker.run("ls /var")
        assert worker.run("find /var/numba -name '*.nbc' | head -1")
        assert not desk.run("find /var/numba -name '*.nbc' | head -1")
    cells = [json.loads(path.read_text()) for path in (out / "cells").glob("*.json")]
    assert {cell["method"] for cell in cells} > {"fauno"}
    assert (out / "results.md").exists()
