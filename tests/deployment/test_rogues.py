"""Nodes that send what they should not, or nothing, on the real engine; some minutes each."""

import re
from pathlib import Path

import pytest

from fauno_flwr.deploy import Deployment, Service
from fauno_flwr.launcher import stage_app
from tests.deployment.conftest import Started
from tests.deployment.wrong_clock import WrongClock

pytestmark = pytest.mark.slow
SOURCE = Path(__file__).with_name("rogue_app.py")
HONEST = 2


class WithRogues(Deployment):
    """A deployment whose first two nodes are as they should be.

    Parameters
    ----------
    *rogues : str
        What each of the others does, by a name of ``rogue_app.py``.
    clocks : dict of int to float, optional
        Nodes whose clocks are ahead, and by how many seconds.
    """

    def __init__(self, *rogues: str, clocks: dict[int, float] | None = None) -> None:
        super().__init__(HONEST + len(rogues))
        self.rogues = dict(enumerate(rogues, HONEST))
        self.wrong, self.clocks = clocks or {}, dict[int, WrongClock]()

    def stage(self) -> None:
        """Put the app together with clients that do what their node config says."""
        app = stage_app(self.home / "app")
        (app / "fauno_flwr" / "rogue.py").write_text(SOURCE.read_text())
        project = app / "pyproject.toml"
        text = project.read_text().replace("fauno_flwr.client_app:app", "fauno_flwr.rogue:app")
        project.write_text(text)

    def node_config(self, node: int) -> str:
        config = super().node_config(node)
        return f'{config} rogue="{self.rogues[node]}"' if node in self.rogues else config

    def _serve(self, name: str, command: list[str], **environment: str) -> Service:
        number = re.fullmatch(r"supernode-(\d+)", name)
        if number and (node := int(number.group(1))) in self.wrong:
            clock = self.clocks[node] = WrongClock(self.home / f"clock-{node}", self.wrong[node])
            path = f"{clock.folder}:{self.environment.get('PYTHONPATH', '')}"
            environment["PYTHONPATH"] = path
        return super()._serve(name, command, **environment)


def start(deployment: WithRogues, out: Path, *settings: str) -> Started:
    deployment.stage()
    nodes = len(deployment.rogues) + HONEST
    return Started(
        deployment,
        out,
        f"topology.nodes={nodes}",
        f"federation.buffer_size={HONEST}",
        "federation.wait_for_nodes=400",
        "federation.ttl=90",
        "federation.collect_actors=true",
        *settings,
    )


@pytest.mark.parametrize(
    "rogues",
    [("nan", "shape", "huge-100", "junk"), ("silent", "no-message", "raises", "actor")],
    ids=["replies", "processes"],
)
def test_a_run_with_rogue_nodes(tmp_path: Path, rogues) -> None:
    with WithRogues(*rogues) as deployment:
        run = start(deployment, tmp_path / "run", "federation.versions=8")
        try:
            run.end(600)
        finally:
            import shutil

            shutil.copytree(deployment.home, f"/tmp/x/home-{rogues[0]}", dirs_exist_ok=True)
            (Path(f"/tmp/x/home-{rogues[0]}") / "runlog").write_text(deployment.run_log(run.run_id))
