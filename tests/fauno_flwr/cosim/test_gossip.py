"""Co-simulation without a server: updates travel between neighbours, and the nodes merge them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.cosim.gossip import GossipGrid, neighbours_of
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.federation.run import Run
from fauno_flwr.results.directory import RunDirectory, read_lines
from fauno_flwr.tasks.edge import EdgeTask
from tests.fauno_flwr.cosim.test_grid import Trained, settings

GOSSIP = "federation.merging=gossip"
FAILURES = ("dynamics.node_mttf=20", "dynamics.node_mttr=5", "dynamics.link_mttf=20")


class Gossiped(Trained):
    """A training by gossip and what it has left behind."""

    grid: GossipGrid

    def __init__(self, path: Path, *overrides: str) -> None:
        super().__init__(path, GOSSIP, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("federation.graph=topology",),
        ("federation.graph=random", "federation.mixing=push-sum"),
        ("federation.graph=ring", *FAILURES),
    ],
    ids=["topology", "random", "ring-failures"],
)
def test_two_runs_with_one_seed_are_the_same_to_the_byte(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    one, two = (Gossiped(tmp_path / name, *overrides) for name in ("one", "two"))
    assert one.text == two.text
    for name, arrays in one.arrays.items():
        for key, array in arrays.items():
            assert array.tobytes() == two.arrays[name][key].tobytes()
    np.testing.assert_array_equal(one.grid._transport.carried, two.grid._transport.carried)


def test_every_agent_trains_and_merges_and_no_byte_leaves_the_graph(tmp_path: Path) -> None:
    trained = Gossiped(tmp_path / "run", "federation.graph=ring")
    topology, agents = trained.grid.scenario.topology, trained.grid.scenario.agents
    assert {e["name"] for e in trained.of("reply")} == {topology.names[node] for node in agents}
    assert [event["version"] for event in trained.of("flush")] == [1, 2, 3, 4]
    assert all(len(event["names"]) == 6 for event in trained.of("flush"))
    assert sum(event["merged"] for event in trained.of("flush")) > 0
    grid = trained.grid
    pairs = {(i, j) for i, others in grid.neighbours.items() for j in others}
    size = trained.of("reply")[0]["bytes"] // 2
    used = {
        row
        for i, j in pairs
        for row in grid._transport.route(int(agents[i]), int(agents[j]), 8 * size)
    }
    assert set(np.flatnonzero(grid._transport.carried)) <= used
    sent = sum(event["bytes"] for event in trained.of("reply"))
    assert grid._transport.carried.sum() / 8 > 0
    assert sent == 2 * size * len(trained.of("reply"))


@pytest.mark.parametrize("staggered", [False, True])
def test_on_the_complete_graph_it_is_fedavg_if_all_wait_for_all(
    tmp_path: Path, staggered: bool
) -> None:
    """All nodes train from the mean of what all have trained, however fast each is."""
    config = settings(
        GOSSIP,
        "topology=full20",
        "federation.buffer_size=1.0",
        "federation.refill=version",
        "federation.mixing=push-sum",
        *(("cosim.slowdown={rpi_0: 3}",) if staggered else ()),
    )
    scenario = config.build_scenario()
    starts: list[list[dict[str, np.ndarray]]] = [[] for _ in scenario.agents]
    ends: list[list[dict[str, np.ndarray]]] = [[] for _ in scenario.agents]

    class Watched(GossipGrid):
        def _train(self, agent, node, staleness) -> None:
            starts[node.number].append(node.model)
            super()._train(agent, node, staleness)

        def _report(self, agent, trip) -> None:
            super()._report(agent, trip)
            ends[agent.index].append(self.nodes[agent.index].model)

    grid = Watched(config, scenario)
    Run(grid, config, EdgeTask(config, scenario), RunDirectory(tmp_path / "run")).execute()
    rounds = min(len(models) for models in starts)
    assert rounds >= 3
    for number in range(1, rounds):
        for name in starts[0][0]:
            mean = np.mean([models[number - 1][name] for models in ends], axis=0)
            for models in starts:
                np.testing.assert_allclose(models[number][name], mean, atol=1e-5)


def test_a_node_that_fails_and_returns_does_no_harm(tmp_path: Path) -> None:
    """The others go on; it trains again, and is as near as before."""
    calm = Gossiped(tmp_path / "calm", "federation.versions=16")
    name = calm.grid.scenario.topology.names[0]
    outage = f"dynamics.nodes={{{name}: [{{down: 20, up: 50}}]}}"
    trained = Gossiped(tmp_path / "run", "federation.versions=16", outage)
    assert [event["name"] for event in trained.of("error")] == [name]
    during = [e["name"] for e in trained.of("reply") if 20 <= e["t"] < 48]
    assert name not in during
    assert len(set(during)) == 5
    assert name in {e["name"] for e in trained.of("reply") if e["t"] > 50}
    ends = [run.of("flush")[-1]["distance"] for run in (calm, trained)]
    assert ends[1] < 2 * ends[0]


def test_nodes_that_take_nothing_over_drift_further_apart(tmp_path: Path) -> None:
    apart = Gossiped(tmp_path / "apart", "federation.share=nothing")
    near = Gossiped(tmp_path / "near")
    assert near.of("flush")[-1]["distance"] < apart.of("flush")[-1]["distance"]


def test_neighbours_are_those_of_the_network_over_nodes_that_do_not_learn() -> None:
    config = settings("topology=ether2")
    scenario = config.build_scenario()
    names = [scenario.topology.names[node] for node in scenario.agents]
    found = neighbours_of(config, scenario)
    server, nuc = names.index("server_0"), names.index("nuc_0")
    assert found[names.index("rpi_0")] == {server, nuc}
    assert found[server] == set(range(19)) - {server}
    assert names.index("nuc_1") in found[nuc] or nuc in found[server]
    assert all(i in found[j] for i, others in found.items() for j in others)


def test_gossip_is_refused_where_the_nodes_cannot_reach_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"federation.merging is 'gossip'.*fauno simulate"):
        load_config("ether2", [GOSSIP], "simulate")
    config = settings(GOSSIP)
    scenario = config.build_scenario()
    grid = CosimGrid(config, scenario)
    with pytest.raises(ConfigError, match="must be manager here"):
        Run(grid, config, EdgeTask(config, scenario), RunDirectory(tmp_path / "run")).execute()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ((GOSSIP, "federation.compression=8-bit"), "federation.compression is '8-bit': has no eff"),
        ((GOSSIP, "federation.ttl=5"), r"federation.ttl is 5.*refill=reply"),
        ((GOSSIP, "federation.privacy.kind=central"), "federation.privacy.kind is 'central': has"),
        (("cosim.takeover=5",), "cosim.takeover is 5.*has no effect with dynamics.node_mttf=0"),
        ((GOSSIP, "cosim.takeover=5"), "cosim.takeover is 5.*federation.merging=gossip"),
        ((GOSSIP, "cosim.server=nuc_0"), "cosim.server is 'nuc_0': has no effect"),
        (("federation.graph=ring",), "federation.graph is 'ring': has no effect"),
        ((GOSSIP, "federation.peers=3"), "federation.peers is 3: has no effect"),
        (
            (GOSSIP, "federation.mixing=push-sum", "federation.staleness=hinge"),
            "federation.staleness is 'hinge': has no effect",
        ),
    ],
)
def test_settings_without_an_effect_are_refused(overrides: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config("ether2", list(overrides))


def test_a_server_whose_node_is_down_makes_no_versions(tmp_path: Path) -> None:
    trained = Trained(
        tmp_path / "run",
        "dynamics.nodes={server_0: [{down: 12, up: 40}]}",
        "federation.versions=12",
    )
    times = [event["t"] for event in trained.of("flush")]
    assert len(times) == 12
    # The clock of training starts after the warm-up of two seconds.
    assert max(b - a for a, b in pairwise(times)) >= 28
    # What was sent to it has waited.
    assert {event["name"] for event in trained.of("error")} == {"server_0"}


def test_a_server_that_never_returns_ends_the_training_with_what_it_has_made(
    tmp_path: Path,
) -> None:
    trained = Trained(
        tmp_path / "run",
        "dynamics.nodes={server_0: [{down: 12}]}",
        "federation.versions=40",
        "federation.timeout=60",
    )
    assert 0 < len(trained.of("flush")) < 40
    assert max(event["t"] for event in trained.of("dispatch")) < 12
    assert trained.grid.clock.monotonic() == pytest.approx(62, abs=1.5)
    gossiped = Gossiped(
        tmp_path / "gossip",
        "dynamics.nodes={server_0: [{down: 12}]}",
        "federation.versions=40",
        "federation.timeout=60",
    )
    assert max(event["t"] for event in gossiped.of("dispatch")) > 50


def test_another_node_takes_over_from_the_last_version_that_it_has_received(
    tmp_path: Path,
) -> None:
    trained = Trained(
        tmp_path / "run",
        "dynamics.nodes={server_0: [{down: 12}]}",
        "cosim.takeover=5",
        "federation.versions=10",
        "federation.timeout=120",
    )
    (takeover,) = trained.of("takeover")
    times = [event["t"] for event in trained.of("flush")]
    assert len(times) == 10
    gap = max(b - a for a, b in pairwise(times))
    assert 5 <= gap < 20
    topology = trained.grid.scenario.topology
    assert topology.names[trained.grid._server] == "nuc_0"
    assert takeover["version"] < 10
    lost = {event["name"] for event in trained.of("error") if "taken over" in event["reason"]}
    names = {topology.names[node] for node in trained.grid.scenario.agents}
    assert lost == names - {"server_0"}


def test_what_the_new_server_has_not_received_is_lost(tmp_path: Path) -> None:
    config = settings(
        "dynamics.nodes={server_0: [{down: 12}]}", "cosim.takeover=5", "federation.versions=10"
    )
    scenario = config.build_scenario()
    grid = CosimGrid(config, scenario)
    run = Run(grid, config, EdgeTask(config, scenario), RunDirectory(tmp_path / "run"))
    seen: list[tuple[bool, int]] = []
    original = CosimGrid._move_server

    def watched(grid: CosimGrid, now: int) -> bool:
        heir = next(
            agent for agent in grid._agents if scenario.topology.names[agent.node] == "nuc_0"
        )
        moved = original(grid, now)
        if moved:
            session = run._training._strategy.session
            same = session.result.arrays is heir.known
            seen.append((same, len(session.buffer)))
        return moved

    grid._move_server = watched.__get__(grid)
    run.execute()
    assert seen == [(True, 0)]


def test_a_standby_counts_the_nodes_that_it_can_reach(tmp_path: Path) -> None:
    """Without the server of two clusters, the nodes of one cannot reach those of the other."""
    config = settings(
        "topology=ether2",
        "dynamics.nodes={server_0: [{down: 8}]}",
        "cosim.takeover=2",
        "federation.versions=6",
        "federation.timeout=60",
    )
    scenario = config.build_scenario()
    grid = CosimGrid(config, scenario)
    out = RunDirectory(tmp_path / "run")
    Run(grid, config, EdgeTask(config, scenario), out).execute()
    events = read_lines(out.path / "events.jsonl")
    takeover = next(event["t"] for event in events if event["event"] == "takeover")
    later = [e for e in events if e["event"] == "flush" and takeover < e["t"] < 55]
    assert later
    cluster = {f"rpi_{number}" for number in range(6, 16)} | {"nuc_1"}
    # Whoever was in the buffer is forgotten.
    assert {name for event in later for name in event["names"]} <= cluster
