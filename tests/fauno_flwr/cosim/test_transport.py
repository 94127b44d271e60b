"""Messages on the simulated links, against times worked out by hand."""

import numpy as np
import pytest

from fauno_flwr.config.loading import load_config
from fauno_flwr.cosim.links import compile_links, progress
from fauno_flwr.cosim.transport import Transport
from sim_env.network.topology import Topology
from sim_env.scenario import Net, PhysicsSpec, Scenario, ScenarioSpec

RATE = 1e6  # bits per tick: 10 Mbit/s and ticks of 0.1 s
BYTES = 250_000  # 2e6 bits, so two ticks for a link


def line(nodes: int = 4, latency: float = 0.0) -> Net:
    """Nodes in a row, all links alike."""
    neighbours = [[m for m in (n - 1, n + 1) if 0 <= m < nodes] for n in range(nodes)]
    topology = Topology(
        names=[f"node_{n}" for n in range(nodes)],
        roles=["rpi"] * nodes,
        speed=np.full(nodes, 1e7),
        capacity=np.full(nodes, 10),
        position=np.stack([np.arange(nodes) * 10.0, np.zeros(nodes)], axis=1),
        neighbours=neighbours,
        is_agent=np.ones(nodes, bool),
        is_source=np.ones(nodes, bool),
    )
    physics = PhysicsSpec(link="fixed", rate=10 * RATE, latency=latency)
    net = Scenario(ScenarioSpec(physics=physics), topology=topology).net
    return net._replace(rate=net.rate.copy())


def arrivals(transport: Transport, ticks: int, tasks: float = 0.0) -> dict[str, int]:
    """Tick in which each message arrives."""
    links = len(transport.net.rate)
    came: dict[str, int] = {}
    for tick in range(1, ticks + 1):
        for key in transport.advance(1.0, np.ones(links, bool), np.full(links, tasks)):
            came[key] = tick
    return came


def test_a_message_takes_its_bits_over_the_rate_on_every_hop() -> None:
    transport = Transport(line())
    transport.send("one", 0, 1, BYTES)
    transport.send("three", 1, 3, BYTES)
    assert arrivals(transport, 10) == {"one": 2, "three": 4}


def test_what_is_compiled_ahead_is_what_messages_need() -> None:
    """Another type of any argument would be compiled while the network already works."""
    compile_links()
    prepared = list(progress.signatures)
    transport = Transport(line(latency=0.3))
    transport.send("one", 0, 2, BYTES)
    transport.advance(3, np.ones(len(transport.net.rate), bool), np.zeros(len(transport.net.rate)))
    assert progress.signatures == prepared
    assert len(prepared) == 1


def test_latency_comes_on_top() -> None:
    transport = Transport(line(latency=0.3))
    transport.send("one", 0, 2, BYTES)
    assert arrivals(transport, 20) == {"one": 2 + 3 + 2 + 3}


def test_a_larger_critic_arrives_later_than_a_smaller_one() -> None:
    transport = Transport(line())
    transport.send("small", 0, 1, BYTES)
    transport.send("large", 2, 3, 3 * BYTES)
    assert arrivals(transport, 10) == {"small": 2, "large": 6}


def test_messages_on_a_link_share_it() -> None:
    """Two at once take twice as long; when the smaller one is over, the other has all of it."""
    transport = Transport(line())
    transport.send("small", 0, 1, BYTES)
    transport.send("large", 0, 1, 2 * BYTES)
    assert arrivals(transport, 10) == {"small": 4, "large": 6}
    transport.send("there", 0, 1, BYTES)
    transport.send("back", 1, 0, BYTES)  # the other direction is another link
    assert arrivals(transport, 10) == {"there": 2, "back": 2}


def test_tasks_on_a_link_delay_a_message() -> None:
    transport = Transport(line())
    transport.send("alone", 0, 1, BYTES)
    assert arrivals(transport, 10) == {"alone": 2}
    transport.send("among", 0, 1, BYTES)
    assert arrivals(transport, 10, tasks=3.0) == {"among": 8}


def test_a_message_leaves_tasks_a_share_of_its_link() -> None:
    net = line()
    transport = Transport(net)
    row = transport.route(0, 1, 1.0)[0]
    transport.send("one", 0, 1, BYTES)
    transport.send("two", 0, 1, BYTES)
    assert net.rate[row] == RATE / 3
    assert np.sum(net.rate[np.isfinite(net.rate)] != RATE) == 1
    arrivals(transport, 10)
    assert net.rate[row] == RATE


def test_what_is_on_a_lost_link_waits() -> None:
    transport = Transport(line())
    transport.send("one", 0, 1, BYTES)
    closed = np.zeros(len(transport.net.rate), bool)
    assert transport.advance(50.0, closed, np.zeros(len(closed))) == []
    assert arrivals(transport, 5) == {"one": 2}


def test_a_message_to_its_own_node_is_there_at_once() -> None:
    transport = Transport(line())
    transport.send("self", 2, 2, BYTES)
    assert arrivals(transport, 1) == {"self": 1}


def test_a_message_can_be_forgotten() -> None:
    transport = Transport(line())
    transport.send("one", 0, 1, BYTES)
    transport.forget("one")
    assert arrivals(transport, 10) == {}
    assert np.all(transport.net.rate[np.isfinite(transport.net.rate)] == RATE)


def test_time_in_one_piece_or_in_many_is_the_same() -> None:
    one, many = Transport(line()), Transport(line())
    for transport in (one, many):
        for number in range(5):
            transport.send(str(number), number % 3, 3, BYTES * (1 + number))
    links = len(one.net.rate)
    closed, tasks = np.ones(links, bool), np.full(links, 0.5)
    whole = one.advance(100.0, closed, tasks)
    assert len(whole) == 5
    assert whole == [k for _ in range(1000) for k in many.advance(0.1, closed, tasks)]


def test_routes_from_and_to_the_hub_are_as_short_as_those_found_one_by_one() -> None:
    net = load_config("ether2", ["topology=random20"]).build_scenario().net
    with_hub, without = Transport(net, hub=3), Transport(net)

    def ticks(rows: list[int]) -> float:
        return float(np.sum(8.0 * BYTES / net.rate[rows] + net.latency[rows]))

    for node in range(len(net.slots)):
        for ends in ((3, node), (node, 3)):
            found = with_hub.route(*ends, 8.0 * BYTES)
            assert ticks(found) == pytest.approx(ticks(without.route(*ends, 8.0 * BYTES)))
            places = [ends[0], *net.neighbour[found].tolist()]
            assert places[-1] == ends[1]
            assert with_hub.source[found].tolist() == places[:-1]


def test_what_a_link_carries_and_how_long_it_is_busy_is_counted() -> None:
    transport = Transport(line())
    transport.send("small", 0, 1, BYTES)
    transport.send("large", 0, 2, 2 * BYTES)
    arrivals(transport, 20)
    there, onwards = transport.route(0, 2, 1.0)
    assert transport.carried[there] == pytest.approx(3 * 8.0 * BYTES)
    assert transport.carried[onwards] == pytest.approx(2 * 8.0 * BYTES)
    assert transport.carried.sum() == pytest.approx(5 * 8.0 * BYTES)
    assert transport.busy[there] == pytest.approx(6)
    assert transport.busy[onwards] == pytest.approx(4)


def test_a_message_goes_around_a_node_that_is_down_if_there_is_a_way() -> None:
    config = load_config("ether2", [])
    scenario = config.build_scenario()
    names = scenario.topology.names
    transport = Transport(scenario.net)
    server, first, second, far = map(names.index, ("server_0", "rpi_0", "rpi_1", "rpi_6"))

    def passed(target: int, down: list[int]) -> set[int]:
        rows = transport.route(first, target, 8.0 * BYTES, down)
        return {int(transport.source[row]) for row in rows}

    assert server in passed(far, [])
    assert server not in passed(second, [server])
    assert passed(second, [server]) == {first, names.index("nuc_0")}
    assert far not in transport.reachable(first, [server])
    assert second in transport.reachable(first, [server])
    assert passed(far, [server]) == passed(far, [])  # it waits


def test_a_hub_goes_around_nodes_that_are_down_as_any_other_node() -> None:
    net = load_config("ether2", ["topology=random20"]).build_scenario().net
    with_hub, without = Transport(net, hub=3), Transport(net)
    last = len(net.slots) - 1
    (through, *_) = [int(net.neighbour[row]) for row in without.route(3, last, 1.0)]
    with_hub.route(3, last, 1.0)  # known before the failure
    for ends in ((3, last), (last, 3)):
        around = with_hub.route(*ends, 1.0, [through])
        assert around == without.route(*ends, 1.0, [through])
        assert through not in with_hub.source[around]
    assert through in net.neighbour[with_hub.route(3, last, 1.0)]


def test_what_is_transferred_of_a_message_in_transit_counts() -> None:
    transport = Transport(line())
    transport.send("message", 0, 2, BYTES)
    there, onwards = transport.route(0, 2, 1.0)
    arrivals(transport, 1)
    assert transport.carried.sum() == 0
    part = transport.transferred()
    assert 0 < part[there] < 8.0 * BYTES
    assert part.sum() == part[there]
    arrivals(transport, 20)
    assert transport.transferred()[onwards] == transport.carried[onwards] == 8.0 * BYTES
