"""Run a Flower app in a deployment of one SuperLink and some SuperNodes, as processes here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fauno_flwr.deployment.engine import ENVIRONMENT, free_addresses


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run a process group, and stop it at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_deployed(
    app: Path, settings: Mapping[str, Any], folder: Path, nodes: int = 2
) -> list[dict[str, float]]:
    """Return what an app has written to the file that its setting ``out`` names, as JSON.

    Parameters
    ----------
    app : Path
        Of the app.
    settings : mapping
        Its run config, without ``out``.
    folder : Path
        Empty; for logs and the file.
    nodes : int, default 2
        SuperNodes.
    """
    out, home = folder / "out.json", folder / "home"
    link, *own = free_addresses(1 + nodes)
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "site"\n[superlink.site]\naddress = "{link}"\ninsecure = true\n'
    )
    # The commands of this environment, activated or not.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **ENVIRONMENT, "FLWR_HOME": str(home), "PATH": path}
    config = " ".join(f"{key}={json.dumps(each)}" for key, each in settings.items())
    with ExitStack() as stack:
        host, port = link.split(":")
        superlink = ["flower-superlink", "--insecure", "--host", host, "--port", port]
        stack.enter_context(running(superlink, environment, folder / "link.log"))
        time.sleep(5)
        for i, address in enumerate(own):
            host, port = address.split(":")
            node = ["flower-supernode", "--insecure", "--superlink", link]
            node += ["--host", host, "--port", port]
            node += ["--node-config", f"partition-id={i} num-partitions={len(own)}"]
            mine = {**environment, "FLWR_HOME": str(folder / f"node{i}")}
            stack.enter_context(running(node, mine, folder / f"node{i}.log"))
        time.sleep(8)
        submit = ["flwr", "run", str(app), "site", "--run-config", f'{config} out="{out}"']
        subprocess.run(submit, env=environment, check=True, capture_output=True)
        end = time.monotonic() + 300
        while not (out.exists() and out.read_text()):
            assert time.monotonic() < end, (folder / "link.log").read_text()[-3000:]
            time.sleep(1)
        time.sleep(1)
    return list(json.loads(out.read_text()))
