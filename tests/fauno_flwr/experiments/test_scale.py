"""The experiment about size: equal load everywhere, and what messages add on the links."""

import pytest

from fauno_flwr.config.loading import load_config
from fauno_flwr.experiments import scale
from fauno_flwr.experiments.cells import run_cell, train
from fauno_flwr.experiments.design import Arm, Condition, Design, Experiment, cells
from fauno_flwr.experiments.methods import Method
from fauno_flwr.experiments.report import write
from sim_env.network.topology import build_topology

SHORT = ("training.worlds=1", "training.ticks=20", "training.rollouts=1", "training.warmup=10")
WORLD = ("topology=ether1", "evaluation.worlds=2", "evaluation.window=50", "evaluation.warmup=10")


@pytest.mark.parametrize("kind", scale.NETWORKS)
@pytest.mark.parametrize("nodes", scale.EVALUATION)
def test_networks_are_of_the_size_and_the_load_that_their_names_say(kind: str, nodes: int) -> None:
    size = scale.NETWORKS[kind][nodes]
    config = load_config("ether2", [*size.overrides, f"workload.rate={size.rate}"])
    scenario = config.build_scenario()
    assert len(scenario.topology.names) == pytest.approx(nodes, rel=0.15)
    assert scenario.rho == pytest.approx(scale.LOAD, rel=0.01)


def test_the_largest_networks_are_trained_once() -> None:
    made = cells(scale.EXPERIMENT, False, 3)
    seeds: dict[int, set[int]] = {}
    for cell in made:
        if cell.training:
            nodes = len(build_topology(cell.training.topology).names)
            seeds.setdefault(nodes, set()).add(cell.seed or 0)
            assert cell.training.evaluation.seed == scale.FIRST_WORLD
    assert all(found == ({1} if nodes > 900 else {1, 2, 3}) for nodes, found in seeds.items())


def test_gossip_gets_as_many_messages_to_a_node_as_a_manager() -> None:
    made = {cell.key: cell.training for cell in cells(scale.EXPERIMENT, False, 1)}
    for name in ("ether20", "random300", "random1000", "large-model1000"):
        gossip, fauno = made[f"{name}.gossip.1"], made[f"{name}.fauno.1"]
        assert gossip is not None
        assert fauno is not None
        # A round of gossip is a training of each node; a version, one of half of them.
        assert 2 * gossip.federation.versions == fauno.federation.versions
    assert "ether3000.gossip.1" not in made


def test_without_a_manager_no_links_are_those_of_all() -> None:
    gossip, manager = trained("federation.merging=gossip"), trained()
    # Letters cross the links between neighbours: none of them has those of all nodes.
    assert gossip.load["manager"]["megabytes"] < 0.5 * gossip.load["megabytes"]
    assert 0 < gossip.load["delay"]["median"] <= gossip.load["delay"]["p95"]
    busiest = max(manager.load["manager"]["utilisation"], manager.load["elsewhere"])
    assert max(gossip.load["manager"]["utilisation"], gossip.load["elsewhere"]) < busiest
    slow = trained("federation.merging=gossip", "cosim.message_factor=200")
    assert slow.load["delay"]["median"] > 3 * gossip.load["delay"]["median"]


def trained(*overrides: str):
    settings = ("evaluation.policies=[]", "federation.versions=2", "seed=901", *overrides)
    return train(load_config("ether2", ["topology=random10", *SHORT, *settings]))


def test_larger_messages_take_longer_and_fill_the_links() -> None:
    small, large = trained(), trained("cosim.message_factor=2000")
    assert large.load["delay"]["median"] > 3 * small.load["delay"]["median"]
    assert large.load["manager"]["utilisation"] > 20 * small.load["manager"]["utilisation"]
    assert large.seconds > small.seconds


def test_compression_takes_megabytes_off_the_links() -> None:
    full, compressed = trained(), trained("federation.compression=top-k")
    assert compressed.load["manager"]["megabytes"] < full.load["manager"]["megabytes"]


def test_the_links_of_the_manager_carry_each_message_and_its_reply() -> None:
    found = trained()
    carried, everywhere = found.load["manager"]["megabytes"], found.load["megabytes"]
    critic = sum(array.nbytes for array in found.shared.values()) / 1e6
    answered = found.messages * len(found.actors)
    assert carried > 0.8 * 2 * answered * critic
    assert everywhere >= carried
    assert found.curve["versions"][-1] == found.versions
    assert len(found.staleness) == answered


def test_the_report_has_a_row_for_each_method(tmp_path) -> None:
    condition = Condition("tiny", "1 cluster", WORLD, SHORT, seeds=1)
    design = Design([condition], [Arm("fauno", "tiny"), Arm("gossip", "tiny")], messages=2)
    methods = {"fauno": Method("FAuNO"), "gossip": Method("gossip", scale.GOSSIP)}
    experiment = Experiment("tiny", "?", lambda quick: design, methods, target=True, load=True)
    made = cells(experiment, True, 2)
    assert [cell.key for cell in made] == ["tiny.heuristics", "tiny.fauno.1", "tiny.gossip.1"]
    text = write(experiment, True, [run_cell(cell) for cell in made], tmp_path)
    assert "## Load, staleness and cost" in text
    (row,) = [
        line for line in text.splitlines() if "| FAuNO | 6 |" in line or "| FAuNO | 5" in line
    ]
    assert row.startswith("| 1 cluster | FAuNO |")
    load = text.split("## Load, staleness and cost")[1]
    (row,) = [line for line in load.splitlines() if line.startswith("| 1 cluster | gossip |")]
    assert row.split(" | ")[6] == "-"  # no number of nodes fills the links of a manager
