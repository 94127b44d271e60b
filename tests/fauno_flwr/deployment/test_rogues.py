"""Nodes that send invalid replies or none, on the real engine; some minutes each."""

import re
from pathlib import Path

import pytest

from fauno_flwr.deployment.engine import stage_app
from fauno_flwr.deployment.local import Deployment, Service
from fauno_flwr.results.state import FINISHED, State
from fauno_flwr.results.status import format_status
from tests.fauno_flwr.deployment.conftest import Started, names_of
from tests.fauno_flwr.deployment.wrong_clock import WrongClock

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
        "federation.ttl=150",
        "federation.collect_actors=true",
        *settings,
    )


# What the server counts for each: a check of its guard, or an error of Flower.
SILENCE = {
    "error",
    "message-unavailable",
}  # the message's time is over: for the server, or for the SuperLink
COUNTED = {
    "nan": {"finite"},
    "shape": {"schema"},
    "huge-80": {"reply-message-unavailable"},
    "huge-2048": {"reply-message-unavailable", *SILENCE},  # it may not arrive within its time
    "junk": {"reply-message-unavailable", *SILENCE},
    "silent": SILENCE,
    "no-message": SILENCE,
    "raises": {"client-app-raised-exception"},
    "actor": set[str](),
}


@pytest.mark.parametrize(
    "rogues",
    [
        ("nan", "shape", "huge-80", "junk"),
        ("silent", "no-message", "raises", "actor"),
        ("huge-2048",),
    ],
    ids=["replies", "processes", "two-gibibytes"],
)
def test_a_run_with_rogue_nodes_completes_and_reports_them(
    tmp_path: Path, rogues: tuple[str, ...]
) -> None:
    with WithRogues(*rogues) as deployment:
        run = start(deployment, tmp_path / "run", "federation.versions=8")
        run.end(600)
        said = deployment.run_log(run.run_id)
    names = names_of(run)
    rogue = {name: deployment.rogues[agent] for agent, name in names.items() if agent >= HONEST}
    counted = run.summary()["failures"]
    print(f"\n{ {name: (rogue[name], counted.get(name)) for name in rogue} }")
    for name in names.values():
        expected = COUNTED[rogue[name]] if name in rogue else set()
        assert set(counted.get(name, {})) <= expected, name
        assert name in counted or not expected, name
    merged = {name for event in run.events("flush") for name in event["names"]}
    assert merged <= {name for name in names.values() if not COUNTED.get(rogue.get(name, ""))}
    assert run.summary()["versions"] == 8
    for name in rogue:
        if rogue[name] == "actor":
            assert f"the actor of {name} is rejected: " in said
    text = format_status(run.events(), 8, State(FINISHED))
    for name, reasons in counted.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name}: ")]
        assert all(reason in line for reason in reasons)


def test_a_clock_that_jumps_costs_the_node_its_place_only(tmp_path: Path) -> None:
    """Flower signs requests with the time: half a minute behind is fine, a day is not."""
    with WithRogues(clocks={0: -30.0, 1: 0.0}) as deployment:
        run = start(
            deployment, tmp_path / "run", "federation.versions=5", "federation.buffer_size=1"
        )
        names = names_of(run)
        run.wait(lambda: run.events("reply", names[0]) and run.events("reply", names[1]))
        deployment.clocks[1].set(86_400.0)
        jumped = len(run.events("reply", names[1]))
        run.end(600)
        assert run.summary()["versions"] == 5
        assert len(run.events("reply", names[1])) <= jumped + 1
        assert deployment.services["supernode-1"].restarts >= 1
        assert deployment.services["supernode-0"].restarts == 0
        assert names[0] not in run.summary()["failures"]
        print(f"\n{run.summary()['failures']}")
