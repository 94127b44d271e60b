"""Nodes that lie in the handshake, or take the places of others: each costs only itself.

A scenario asserts what must hold. `test_holds` runs it. `test_fails_without_its_guard` removes the
guard by the mutation registered with the scenario, and expects the scenario to fail.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from fauno_flwr import client_app
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.federation import context, handshake
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.keys import NodeKeys
from fauno_flwr.federation.members import Members
from fauno_flwr.federation.periodic import MemberGuard
from fauno_flwr.federation.protocol import AGENT, CRITIC, MESSAGES, NODE, NODES
from fauno_flwr.federation.run import Run
from fauno_flwr.federation.sizing import SizedGuard
from fauno_flwr.results.directory import RunDirectory, read_lines
from fauno_flwr.tasks.edge import EdgeTask
from strategies.grids import InMemoryGrid
from tests.fauno_flwr.tiny import AGENTS, TINY
from tests.guarded import Scenarios, patch

attack = Scenarios()
QUICK = [*TINY, "federation.collect_actors=false", "evaluation.policies=[]", "training.ticks=20"]
STRANGER = 1000 + AGENTS  # the first node after the right ones
FOREVER = 1e9


def lying(about: Mapping[str, Any], missing: str = "") -> ClientApp:
    """Return the client app, whose nodes from number `AGENTS` on say they are agent 0, or lie."""
    app = ClientApp()

    def honestly(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        context.node_config["partition-id"] = number % AGENTS if number >= AGENTS else number
        try:
            reply = client_app.app(message, context)
        finally:
            context.node_config["partition-id"] = number
        if number >= AGENTS and NODE in reply.content and not reply.has_error():
            said = dict(reply.content.config_records[NODE]) | dict(about)
            said.pop(missing, None)
            reply.content[NODE] = ConfigRecord(said)
        return reply

    app.query()(honestly)
    app.query("actor")(honestly)
    app.train()(honestly)
    return app


class Grid(InMemoryGrid):
    """A grid whose nodes have keys, by partition: a node that restarts keeps its own."""

    def get_node_keys(self) -> dict[int, bytes]:
        return {i: b"key of %d" % node.partition_id for i, node in self.nodes.items()}


def run(
    folder: Path,
    app: ClientApp,
    nodes: int = AGENTS + 1,
    presence: Mapping[int, list[tuple[float, float]]] | None = None,
    settings: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """Run with the right nodes and others; return the events."""
    grid = Grid(app, nodes, presence=presence)
    config = load_config("ether2", [*QUICK, "federation.wait_for_nodes=20", *settings])
    out = RunDirectory(folder / "run")
    try:
        Run(grid, config, EdgeTask(config, config.build_scenario()), out).execute()
    except (ConfigError, KeyError, OverflowError) as error:  # of the run as a whole
        raise AssertionError(str(error)) from error
    return read_lines(out.path / "events.jsonl")


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def require_refused(events: list[dict[str, Any]], word: str) -> None:
    """Assert that all versions were made, without the stranger, and that an event says why."""
    assert len(of(events, "flush")) == 4
    assert all(STRANGER not in flush["nodes"] for flush in of(events, "flush"))
    (refused,) = of(events, "refused")
    assert refused["node"] == STRANGER
    assert word in refused["reason"]
    assert len(refused["reason"]) <= 500
    assert refused["reason"].isprintable()


@attack(patch(context, "require_whole", lambda *_, **__: None))
def an_agent_that_is_not_there(folder: Path) -> None:
    # It comes before the right ones: they are needed all the same.
    late = {agent: [(3.0, FOREVER)] for agent in range(AGENTS)}
    for agent in (999, -1, 2**62):
        events = run(folder / str(agent), lying({AGENT: agent}), presence=late)
        require_refused(events, f"agent is {agent}")


def as_a_number(record: ConfigRecord, key: str, kind: type) -> Any:
    """Return a value whatever its type (mutation)."""
    return record.get(key)


@attack(patch(context, "read", as_a_number))
def an_introduction_of_other_types(folder: Path) -> None:
    lies = [(AGENT, True), (AGENT, "\x1b[2J" + "x" * 10**6), (NODES, 1.5), (MESSAGES, b"\0")]
    for number, (key, value) in enumerate(lies):
        events = run(folder / str(number), lying({key: value}))
        require_refused(events, f"{key} in a message is")
    require_refused(run(folder / "none", lying({}, missing=CRITIC)), "critic in a message is None")


def another_critic_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise an error that nobody catches (mutation)."""
    honest = RunContext.identify

    def strict(self: RunContext, reply: Message) -> int:
        try:
            return honest(self, reply)
        except ValueError as error:
            raise AssertionError(str(error)) from error

    monkeypatch.setattr(RunContext, "identify", strict)


@attack(another_critic_ends_the_run)
def another_critic(folder: Path) -> None:
    require_refused(run(folder / "a", lying({CRITIC: "weights"})), "has the critic weights")
    require_refused(run(folder / "b", lying({CRITIC: "\0" * 10**6})), "has the critic ?")


def the_last_one_has_the_place(self: Members, node_ids: Any) -> dict[int, int]:
    """Give a place to the newest id, not to the first (mutation)."""
    present = set(node_ids)
    return {
        agent: max(i for i in ranks if i in present)
        for agent, ranks in self._ranks.items()
        if present & set(ranks)
    }


def several_have_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everybody in who says that he is an agent (mutation)."""

    def let_in(self: Members, grid: Grid, present: set[int]) -> None:
        for node_id, agent in self._identified.items():
            self.agent_of[node_id] = agent
            self._ranks.setdefault(agent, []).append(node_id)
        self._identified.clear()

    monkeypatch.setattr(Members, "_let_in", let_in)
    monkeypatch.setattr(Members, "among", the_last_one_has_the_place)


@attack(several_have_one_place)
def a_partition_that_is_taken(folder: Path) -> None:
    events = run(folder, lying({}))
    require_refused(events, "agent 0 is node 1000, which is online: must have another partition-id")


def everybody_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the run as soon as one node says that there are too few (mutation)."""

    def strict(run: RunContext, held: list[int], needed: int) -> str:
        if any(0 < said.nodes < needed for said in run.introduced.values()):
            raise ConfigError("num-supernodes is too small")
        return ""

    monkeypatch.setattr(handshake, "_few", strict)


@attack(everybody_is_believed)
def one_node_in_the_whole_federation(folder: Path) -> None:
    """Hearsay: a node that says so is a member like others."""
    late = {agent: [(3.0, FOREVER)] for agent in range(1, AGENTS)}
    events = run(folder, lying({NODES: 1}), presence={0: [(FOREVER, FOREVER + 1)], **late})
    assert len(of(events, "flush")) == 4
    assert any(STRANGER in flush["nodes"] for flush in of(events, "flush"))


LONG = ("federation.versions=24", "federation.buffer_size=6")


class Flapping(Grid):
    """A grid on which node 1000 is offline for a while, and returns under its id."""

    def is_online(self, node_id: int) -> bool:
        away = node_id == 1000 and 5.2 <= self.clock.monotonic() < 15.0
        return super().is_online(node_id) and not away


def flapping(folder: Path, monkeypatch_grid: type[Grid], *settings: str) -> list[dict[str, Any]]:
    grid = monkeypatch_grid(lying({}), AGENTS + 1)
    config = load_config("ether2", [*QUICK, *LONG, *settings])
    out = RunDirectory(folder / "run")
    Run(grid, config, EdgeTask(config, config.build_scenario()), out).execute()
    return read_lines(out.path / "events.jsonl")


def merged(events: list[dict[str, Any]]) -> list[int]:
    """Return the node that each version has for the first agent, in order of the versions."""
    found = []
    for flush in of(events, "flush"):
        pairs = [
            node for node, agent in zip(flush["nodes"], flush["members"], strict=True) if agent == 0
        ]
        assert len(pairs) == 1  # never two ids of one agent in a version
        found += pairs
    return found


@attack(patch(Members, "among", the_last_one_has_the_place))
def an_owner_who_returns_has_his_place_again(folder: Path) -> None:
    """Meanwhile the newcomer had it: nobody can know that the owner would return."""
    found = merged(flapping(folder, Flapping))
    assert found[0] == 1000
    assert STRANGER in found
    assert found[-1] == 1000
    back = len(found) - found[::-1].index(STRANGER)
    assert set(found[back:]) == {1000}
    assert len(found[back:]) > 5


@attack(patch(NodeKeys, "fits", lambda *_: True))
def a_place_is_bound_to_a_key(folder: Path) -> None:
    """Nobody else gets it, also while its owner is away; the run waits for him."""
    events = flapping(folder, Flapping, "federation.bind_keys=true")
    assert set(merged(events)) == {1000}
    assert any("bound to another node's key" in event["reason"] for event in of(events, "refused"))


def test_a_node_with_its_key_returns_under_another_id(tmp_path: Path) -> None:
    events = run(
        tmp_path,
        lying({}),
        nodes=AGENTS,
        presence={0: [(0.0, 5.2), (9.0, FOREVER)]},
        settings=("federation.bind_keys=true", *LONG),
    )
    assert set(merged(events)) == {1000, 1000 + AGENTS}


def test_keys_are_bound_for_the_whole_training(tmp_path: Path) -> None:
    class Keys(InMemoryGrid):
        def get_node_keys(self) -> dict[int, bytes]:
            return {7: b"a", 8: b"b", 9: b"a"}

    grid, path = Keys(client_app.app, 1), tmp_path / "keys.json"
    first = NodeKeys(path)
    assert first.fits(0, 7, grid)
    assert not first.fits(1, 7, grid)  # one key, one place
    again = NodeKeys(path)
    assert not again.fits(0, 8, grid)
    assert again.fits(0, 9, grid)
    assert again.fits(1, 8, grid)
    assert not again.fits(2, 10, grid)  # without a key
    with pytest.raises(ConfigError, match="bind_keys is True"):
        again.fits(0, 7, InMemoryGrid(client_app.app, 1))
    path.write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read"):
        NodeKeys(path)


class Slow(Flapping):
    """Where the stranger gets a message just before the owner returns, and answers after that."""

    def get_node_ids(self) -> list[int]:
        self.duration = lambda i, k: 4.0 if i == AGENTS and k else 1.0
        return super().get_node_ids()


def believe_the_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the update of a node that is no member any more (mutation)."""
    monkeypatch.setattr(MemberGuard, "check", SizedGuard.check)


@attack(believe_the_replaced)
def what_a_dropped_node_sends_is_rejected(folder: Path) -> None:
    events = flapping(folder, Slow)
    rejected = [(event["node"], event["check"]) for event in of(events, "reject")]
    assert rejected == [(STRANGER, "member")]


@pytest.mark.parametrize("name", [*attack])
def test_holds(name: str, tmp_path: Path) -> None:
    attack.require_holds(name, tmp_path)


@pytest.mark.parametrize("name", [*attack])
def test_fails_without_its_guard(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack.require_fails_unguarded(name, tmp_path, monkeypatch)
