"""Configuration dictionaries of the original simulator: hand-made ones, and whole topologies."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_env.engine.state import OFFLOADED
from sim_env.peersimgym.config import picked_shares
from sim_env.peersimgym.results import PHYSICS, Configured, load, measure, read_config, run_worlds
from sim_env.policies.heuristics import POLICIES
from sim_env.workload.jobs import MEGABYTE
from sim_env.world import World
from tests.paths import SHARED_DATA

DATA = SHARED_DATA
TOPOLOGIES = (
    sorted(path.name for path in (DATA / "topologies").iterdir()) if DATA.exists() else ["none"]
)


def pair(**changes: Any) -> dict[str, Any]:
    """Return a dictionary of two nodes 30 m apart; node 0 creates tasks. None removes a key."""
    values = {
        "SIZE": "2",
        "SCALE": "10",
        "CYCLE": "1",
        "CYCLES": "100",
        "CONTROLLERS": "0;1",
        "CLOUD_EXISTS": "0",
        "NO_LAYERS": "2",
        "NO_NODES_PER_LAYERS": "1,1",
        "clientLayers": "0",
        "layersThatGetTasks": "0",
        "clientIsSelf": "1",
        "FREQS": "1,1",
        "NO_CORES": "1,1",
        "Q_MAX": "1,1",
        "VARIATIONS": "0,0",
        "MANUAL_CONFIG": "True",
        "MANUAL_FREQS": "1e6;4e6",
        "MANUAL_CORES": "2;1",
        "MANUAL_QMAX": "5;50",
        "RANDOMIZEPOSITIONS": "False",
        "RANDOMIZETOPOLOGY": "False",
        "init.Net0.POSITIONS": "0,0;30,0",
        "init.Net1.TOPOLOGY": "0,1;1,0",
        "init.Net1.r": "50",
        "protocol.clt.numberOfTasks": "1",
        "protocol.clt.weight": "1",
        "protocol.clt.CPI": "2",
        "protocol.clt.I": "4e6",
        "protocol.clt.T": "20",
        "protocol.clt.minDeadline": "30",
        "protocol.clt.taskArrivalRate": "0.5",
        "schedules": "0.5-100",
        "protocol.clt.workloadPath": "null",
        "protocol.props.B": "2",
        "protocol.props.P_ti": "20",
        "protocol.urt.channelTypes": "PeersimSimulator.peersim.env.Transport.WirelessSNR",
        "protocol.urt.channelTypesBetweenLayers": "0,0;0,0",
        "random.seed": "1234567890",
    }
    key = {name: name.replace("__", ".") for name in changes}
    for name, value in changes.items():
        values[key[name]] = value
    return {name: value for name, value in values.items() if value is not None}


def layered(**changes: Any) -> dict[str, Any]:
    """Return a dictionary of three layers of 5, 3 and 1 nodes in random places."""
    return pair(
        **{
            "SIZE": "9",
            "NO_LAYERS": "3",
            "NO_NODES_PER_LAYERS": "5,3,1",
            "CONTROLLERS": "0;1;2;3;4;5;6;7;8",
            "MANUAL_CONFIG": "False",
            "RANDOMIZEPOSITIONS": "True",
            "RANDOMIZETOPOLOGY": "True",
            "init__Net1__r": "80",
            "FREQS": "1e7,3e7,5.5e8",
            "NO_CORES": "4,8,2",
            "Q_MAX": "10,50,100",
            "VARIATIONS": "0,0,0",
            **changes,
        }
    )


def read(folder: Path, values: Any, **options: Any) -> Configured:
    path = folder / "config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return read_config(path, PHYSICS, **options)


def test_values_become_the_scenario(tmp_path: Path) -> None:
    scenario, ticks = read(tmp_path, pair())
    net = scenario.net
    assert ticks == 1000
    assert net.speed.tolist() == [2e6, 4e6]  # floor(cores * frequency), per tick
    assert net.capacity.tolist() == [5, 50]
    assert scenario.topology.position.tolist() == [[0, 0], [30, 0]]
    assert scenario.topology.is_source.tolist() == [True, False]
    assert scenario.agents.tolist() == [0, 1]
    assert net.arrivals.tolist() == [0.05, 0.0]
    assert net.job_work.tolist() == [8e6]
    assert net.job_input.tolist() == net.job_output.tolist() == [20 * MEGABYTE]
    assert set(zip(net.deadline_low, net.deadline_high, strict=True)) == {(300, 600)}
    assert scenario.spec.physics == replace(PHYSICS, tick=0.1)


def test_undivided_manual_frequencies_are_an_option(tmp_path: Path) -> None:
    divided = read(tmp_path, pair(), undivided_frequencies=False).scenario
    assert divided.net.speed.tolist() == [2e5, 4e5]
    assert divided.spec.physics == replace(PHYSICS, tick=0.1)
    plain = layered()
    for option in (True, False):
        net = read(tmp_path, plain, undivided_frequencies=option).scenario.net
        assert net.speed.tolist() == [4e6] * 5 + [2.4e7] * 3 + [1.1e8]  # FREQS always are


@pytest.mark.parametrize(
    ("work", "response"),
    [(0.9e6, 2), (2e6, 2), (2.1e6, 3), (8e6, 5)],
)
def test_a_lone_task_takes_its_service_and_a_tick_each_way(
    tmp_path: Path, work: float, response: int
) -> None:
    """2e6 instructions in a tick; the client's message arrives in a tick, as does the result.

    Rarely a task waits one tick for the worker, or gains one, as its events come in random order.
    """
    values = pair(
        protocol__clt__I=work, protocol__clt__CPI="1", schedules=None, protocol__clt__T="1"
    )
    values["protocol.clt.taskArrivalRate"] = 0.01
    scenario, _ = read(tmp_path, values)
    found = measure(scenario, POLICIES["local"], 3, 100_000)
    assert found["finished_ratio"] > 0.99
    assert response <= found["response_ticks"] <= response + 1


def test_an_offloaded_task_travels_whole_seconds_both_ways(tmp_path: Path) -> None:
    """38 MB at 29.9 Mbit/s take 10.2 s: 10 s each way."""
    optical = "PeersimSimulator.peersim.env.Transport.OpticalFiberSNR"
    values = pair(
        protocol__urt__channelTypes=optical,
        protocol__urt__SNR="45",
        protocol__clt__T="38",
        protocol__clt__I="1",
        schedules="0.1-100",
    )
    scenario, _ = read(tmp_path, values)
    assert 38 * 8e6 / (2e6 * np.log2(1 + 10**4.5)) == pytest.approx(10.17, abs=0.01)
    world = World(scenario, range(4))
    world.measure(0, 30_000)
    for _ in range(30_000):
        world.step(np.tile(np.array([1, 0], np.int32), (4, 1)))
    took = np.flatnonzero(world.metrics().histogram.sum(axis=0))
    # What is served before the decision takes 2 ticks, else there are two journeys of 100.
    assert set(took[took < 100]) <= {2, 3}
    assert set(took[took >= 100]) <= {203, 204, 205}
    assert world.state.total[:, OFFLOADED].min() > 50


def test_the_output_comes_back_no_further_than_the_first_receiver(tmp_path: Path) -> None:
    """Tasks go 0 -> 1 -> 0 -> 2, 100 ticks each; the output goes 2 -> 0, where the client is."""
    values = pair(
        SIZE="3",
        NO_LAYERS="3",
        NO_NODES_PER_LAYERS="1,1,1",
        CONTROLLERS="0;1;2",
        VARIATIONS=None,
        MANUAL_FREQS="1e5;1e5;1e10",
        MANUAL_CORES="1;1;1",
        MANUAL_QMAX="500;500;500",
        init__Net0__POSITIONS="0,0;30,0;0,30",
        init__Net1__TOPOLOGY="0,1,2;1,0;2,0",
        protocol__urt__channelTypes="OpticalFiberSNR",
        protocol__urt__channelTypesBetweenLayers=None,
        protocol__clt__T="38",
        protocol__clt__I="1e9",
        protocol__clt__minDeadline="5000",
    )
    world = World(read(tmp_path, values).scenario, [1, 2])
    for _ in range(4000):
        actions = np.zeros((2, 3), np.int32)
        actions[:, 1] = 1
        for b, first in enumerate(world.state.pending_head[:, 0]):
            actions[b, 0] = 2 if first >= 0 and world.state.hops[b, first] == 2 else 1
        world.step(actions)
    took = np.flatnonzero(world.metrics().histogram.sum(axis=0))
    home = took[took >= 300]
    assert len(home) > 0
    assert home.min() >= 403
    assert home.max() <= 410


def test_json_arrays_and_numbers_are_taken_as_the_text_is(tmp_path: Path) -> None:
    text, _ = read(tmp_path, pair())
    plain, ticks = read(
        tmp_path,
        pair(
            SIZE=2,
            SCALE=10,
            CONTROLLERS=[0, 1],
            MANUAL_CONFIG=True,
            MANUAL_FREQS=[1e6, 4e6],
            MANUAL_CORES=[2, 1],
            NO_NODES_PER_LAYERS=[1, 1],
            init__Net0__POSITIONS=[[0, 0], [30, 0]],
            init__Net1__TOPOLOGY=[[0, 1], [1, 0]],
            protocol__clt__I=[4e6],
            schedules=["0.5-100"],
        ),
    )
    assert ticks == 1000
    for one, other in zip(text.net, plain.net, strict=True):
        parts = zip(one, other, strict=True) if one is text.net.reward else [(one, other)]
        assert all(np.array_equal(*pair) for pair in parts)


def test_neighbours_come_in_the_order_of_the_links(tmp_path: Path) -> None:
    """A link named by node 0 is a link of both ends before node 1 names its own."""
    scenario, _ = read(
        tmp_path,
        pair(
            SIZE="4",
            NO_LAYERS="4",
            NO_NODES_PER_LAYERS="1,1,1,1",
            MANUAL_FREQS="1e6;1e6;1e6;1e6",
            MANUAL_CORES="1;1;1;1",
            MANUAL_QMAX="5;5;5;5",
            VARIATIONS=None,
            init__Net0__POSITIONS="0,0;1,5;9,2;30,0",
            init__Net1__TOPOLOGY="0,3,1;1,2;2,1,3;3",
            protocol__urt__channelTypesBetweenLayers=None,
        ),
    )
    assert [list(row) for row in scenario.topology.neighbours] == [[3, 1], [0, 2], [1, 3], [0, 2]]


@given(seed=st.integers(0, 10_000), reach=st.integers(60, 120))
@settings(max_examples=25, deadline=None)
def test_layers_link_to_the_next_within_the_radius(
    tmp_path_factory: pytest.TempPathFactory, seed: int, reach: int
) -> None:
    values = layered(**{"random__seed": str(seed), "init__Net1__r": str(reach)})
    try:
        topology = read(tmp_path_factory.mktemp("layers"), values).scenario.topology
    except ValueError as error:
        assert "must be connected" in str(error)  # noqa: PT017
        assert "random.seed" in str(error)  # noqa: PT017
        return
    layer = np.repeat([0, 1, 2], [5, 3, 1])
    place = topology.position
    assert np.all((place >= 0) & (place <= 100))
    for node, row in enumerate(topology.neighbours):
        near = np.linalg.norm(place - place[node], axis=1) < reach
        wanted = near & (np.abs(layer - layer[node]) <= 1)
        assert set(row) == set(np.flatnonzero(wanted)) - {node}
    assert topology.is_source.tolist() == [True] * 5 + [False] * 4


def test_the_network_is_that_of_random_seed(tmp_path: Path) -> None:
    places = [
        read(tmp_path, layered(random__seed=seed, init__Net1__r="150")).scenario.topology.position
        for seed in ("5", "5", "6")
    ]
    assert np.array_equal(places[0], places[1])
    assert not np.array_equal(places[0], places[2])


def test_variations_move_a_whole_layer(tmp_path: Path) -> None:
    values = layered(VARIATIONS="0,1e5,1e5", init__Net1__r="150", SCALE="1")
    speed = read(tmp_path, values).scenario.net.speed
    assert np.all(speed[:5] == 4e7)
    assert len(set(speed[5:8])) == 1
    assert abs(speed[5] - 2.4e8) <= 8e5
    assert speed[5] != 2.4e8


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([3.0], [1.0]),
        ([1.0, 1.0], [0.25, 0.75]),
        # The search looks last at the first of three types for what falls to the second.
        ([0.2, 0.3, 0.5], [0.5 / 3, 0.0, 2.5 / 3]),
        ([1.0, 1.0, 1.0, 1.0], [1 / 8, 0.0, 1 / 16, 13 / 16]),
    ],
)
def test_types_are_drawn_with_the_original_s_bias(
    weights: list[float], shares: list[float]
) -> None:
    assert picked_shares(np.array(weights)) == pytest.approx(shares)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8))
def test_biased_shares_are_probabilities_and_favour_the_last(weights: list[float]) -> None:
    shares = picked_shares(np.array(weights))
    assert shares.sum() == pytest.approx(1)
    assert shares.min() >= 0
    assert shares[-1] >= (len(weights) - 1) / len(weights) - 1e-9


def test_types_and_traces(tmp_path: Path) -> None:
    types = {
        "protocol__clt__numberOfTasks": "2",
        "protocol__clt__weight": "1,1",
        "protocol__clt__CPI": "1,3",
        "protocol__clt__I": "1e6,2e6",
        "protocol__clt__T": "10,30",
    }
    drawn = read(tmp_path, pair(**types)).scenario.jobs
    assert np.mean(drawn.instructions == 6e6) == 0.75
    trace = read(tmp_path, pair(**types, protocol__clt__workloadPath="/a/trace.json"))
    assert trace.scenario.jobs.instructions.tolist() == [1e6, 6e6]  # one row each: equally likely


def test_schedules(tmp_path: Path) -> None:
    both = {"clientLayers": "0,1", "layersThatGetTasks": "0,1"}
    constant = read(tmp_path, pair(schedules="2-10,2-90")).scenario
    assert constant.net.arrivals[0] == pytest.approx(0.2)
    assert constant.spec.workload.schedule.kind == "constant"
    rates = read(tmp_path, pair(**both, schedules="2-100;0.5-100")).scenario
    assert rates.net.arrivals.tolist() == pytest.approx([0.2, 0.05])
    steps = read(tmp_path, pair(schedules="0.5-40,2.0-60")).scenario
    calm, _, _ = run_worlds(steps, POLICIES["local"], range(20), 400)
    both_steps, _, _ = run_worlds(steps, POLICIES["local"], range(20), 1000)
    assert np.mean(calm) == pytest.approx(0.5 * 40, rel=0.2)
    assert np.mean(both_steps - calm) == pytest.approx(2.0 * 60, rel=0.1)
    same = read(tmp_path, pair(**both, schedules="1-40,2-60;1-40,2-60")).scenario
    assert same.spec.workload.schedule.kind == "steps"


def test_keys_that_the_original_does_not_have_are_named_once(tmp_path: Path) -> None:
    values = pair() | {"FRQS": "1", "protocol.clt.deadline": "3", "utility_reward": "10"}
    with pytest.warns(UserWarning, match=r"keys without effect: FRQS, protocol\.clt\.deadline$"):
        read(tmp_path, values)


def test_a_printed_dictionary_is_read_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="printed Python dictionary"):
        scenario, _ = read(tmp_path, repr(pair()))
    assert scenario.net.speed.tolist() == [2e6, 4e6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SIZE": None}, "has no key 'SIZE'"),
        ({"init__Net1__TOPOLOGY": None}, r"has no key 'init\.Net1\.TOPOLOGY'"),
        ({"CONTROLLERS": None}, "has no key 'CONTROLLERS'"),
        ({"protocol__clt__minDeadline": None}, "has no key"),
        ({"SIZE": "3"}, "layers that hold SIZE = 3 nodes"),
        ({"SIZE": "-2"}, "must be a finite number at least 1"),
        ({"SIZE": "2.5"}, "must be a whole number"),
        ({"SIZE": "1000000000000", "NO_NODES_PER_LAYERS": "1000000000000", "NO_LAYERS": "1"}, "GB"),
        ({"SCALE": "0"}, "at least 1"),
        ({"NO_LAYERS": "3"}, "must be 2"),
        ({"MANUAL_FREQS": "NaN;1e6"}, "finite number above 0"),
        ({"MANUAL_FREQS": "fast;1e6"}, "'fast'"),
        ({"MANUAL_FREQS": "1e6"}, "2 entries, one for each layer, not 1"),
        ({"MANUAL_CORES": "0.1;1"}, "at least 1"),
        ({"MANUAL_QMAX": "0;50"}, "at least 1"),
        ({"MANUAL_CONFIG": "maybe"}, "true or false"),
        ({"RANDOMIZETOPOLOGY": "True"}, "false when MANUAL_CONFIG is true"),
        ({"init__Net0__POSITIONS": "0,0"}, "2 places"),
        ({"init__Net0__POSITIONS": "0,0;inf,0"}, "finite number"),
        ({"init__Net1__TOPOLOGY": "0,1;1,7"}, "names 7"),
        ({"init__Net1__TOPOLOGY": "1,0;0,1"}, "begin with their own node"),
        ({"init__Net1__TOPOLOGY": "0;1"}, "must be connected"),
        ({"CONTROLLERS": "0;2"}, "at most 1"),
        ({"layersThatGetTasks": "4"}, "at most 1"),
        ({"layersThatGetTasks": "0,1", "schedules": "1-1;1-1"}, "only its neighbours get"),
        ({"clientLayers": "1"}, "no node has a client and gets tasks"),
        ({"schedules": "1-100;1-100"}, "1 schedules"),
        ({"schedules": "fast"}, "rate-seconds"),
        (
            {"clientLayers": "0,1", "layersThatGetTasks": "0,1", "schedules": "1-5,2-5;2-5,1-5"},
            "the same for all layers",
        ),
        ({"protocol__clt__weight": "0"}, "above 0"),
        ({"protocol__clt__T": "1,2"}, "1 numbers, not 2"),
        ({"protocol__clt__I": "-4"}, "at least 0"),
        ({"CLOUD_EXISTS": "1", "CLOUD_ACCESS": "0,1"}, "no cloud"),
        ({"simtype": "batch"}, "no batches"),
        ({"protocol__clt__edges": "0,1"}, "no DAGs"),
        ({"protocol__clt__clientClasses": "0;0"}, "all clients draw from all types"),
        ({"MAXDELAY": "5"}, "must be 0"),
        ({"protocol__urt__channelTypes": "a.b.SmokeSNR"}, "WirelessSNR, OpticalFiberSNR"),
        ({"protocol__urt__channelTypesBetweenLayers": "0,-1;-1,0"}, "layers with a link"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, pair(**changes))
    assert "config.json" in str(caught.value)
    assert "must be" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"SIZE": "2", "SCALE"', '{"SIZE": NaN}', "\0"])
def test_what_is_no_dictionary_gets_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="must be a configuration dictionary"):
        read(tmp_path, text)
    with pytest.raises(ValueError, match="cannot be read"):
        read_config(tmp_path / "nowhere.json", PHYSICS)


def from_files(topology: Path, jobs: Path, rate: float) -> dict[str, Any]:
    """Return the dictionary that the original's ConfigHelper and EtherTopologyReader build."""
    content = json.loads(topology.read_text())
    nodes, size = content["nodes"], len(content["nodes"])
    index = {str(node["id"]): i for i, node in enumerate(nodes.values())}
    rows: list[list[int]] = [[] for _ in nodes]
    for identity, others in content["links"]["neighbours"].items():
        for other in others:
            a, b = index[identity], index[str(other)]
            if a not in rows[b]:
                rows[b].append(a)
            if b not in rows[a]:
                rows[a].append(b)
    place = np.array([node["coordinates"] for node in nodes.values()])
    place = (place - place.min(axis=0)) / (place.max(axis=0) - place.min(axis=0)) * 100
    rpi = [str(i) for i, name in enumerate(nodes) if "rpi" in name]
    agents = [
        str(i) for i, name in enumerate(nodes) if any(w in name for w in ("rpi", "nuc", "server"))
    ]
    means = [node["capacity"] for node in nodes.values()]
    table = [line.split(",") for line in jobs.read_text().split()[1:]]
    ones = ",".join(["1"] * size)
    return {
        "SIZE": str(size),
        "SCALE": "10",
        "CYCLES": "1000",
        "CONTROLLERS": ";".join(agents),
        "CLOUD_EXISTS": "0",
        "NO_LAYERS": str(size),
        "NO_NODES_PER_LAYERS": ones,
        "clientLayers": ",".join(rpi),
        "layersThatGetTasks": ",".join(rpi),
        "clientIsSelf": "1",
        "schedules": ";".join([f"{rate}-1000"] * len(rpi)),
        "protocol.clt.taskArrivalRate": str(rate),
        "VARIATIONS": ",".join(["0"] * size),
        "MANUAL_CONFIG": "True",
        "MANUAL_FREQS": ";".join(str(mean["cpu_milis"] * 1000) for mean in means),
        "MANUAL_CORES": ";".join(["1"] * size),
        "MANUAL_QMAX": ";".join(str(round(mean["memory"] / 320e6)) for mean in means),
        "RANDOMIZEPOSITIONS": "False",
        "RANDOMIZETOPOLOGY": "False",
        "init.Net0.POSITIONS": ";".join(f"{x},{y}" for x, y in place.tolist()),
        "init.Net1.TOPOLOGY": ";".join(
            ",".join(map(str, [node, *row])) for node, row in enumerate(rows)
        ),
        "protocol.clt.numberOfTasks": str(len(table)),
        "protocol.clt.weight": ",".join(["1"] * len(table)),
        "protocol.clt.CPI": ",".join(["1"] * len(table)),
        "protocol.clt.I": ",".join(work for work, _ in table),
        "protocol.clt.T": ",".join(size for _, size in table),
        "protocol.clt.minDeadline": "30",
        "protocol.clt.workloadPath": "alibaba_trace_rescaled0.1.json",
        "protocol.props.B": "2",
        "protocol.props.P_ti": "20",
        "protocol.urt.channelTypes": "PeersimSimulator.peersim.env.Transport.WirelessSNR",
        "protocol.urt.channelTypesBetweenLayers": ";".join([",".join(["0"] * size)] * size),
    }


@pytest.mark.skipif(not DATA.exists(), reason="the data of the original are not here")
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_dictionary_and_files_give_the_same_numbers(tmp_path: Path, name: str) -> None:
    files = DATA / "topologies" / name, DATA / "alibaba_jobs_x0.1.csv"
    config, ticks = read(tmp_path, from_files(*files, rate=1.5))
    plain = load(*files, arrival_rate=1.5)
    assert ticks == 10_000
    assert [list(row) for row in config.topology.neighbours] == [
        list(row) for row in plain.topology.neighbours
    ]
    for policy in ("lqrand", "threshold"):
        runs = [measure(each, POLICIES[policy], 7, 600) for each in (config, plain)]
        for run in runs:
            assert run.pop("seconds") > 0
        assert runs[0] == runs[1]
