"""A network in words."""

from sim_env.scenario import Scenario

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def bits_per_second(rate: float) -> str:
    """Return a rate as text, such as ``50 Mbit/s``."""
    rounded = float(f"{rate:.3g}")  # first, so that 999.9 kbit/s are 1 Mbit/s
    for size, unit in UNITS:
        if rounded >= size:
            return f"{rounded / size:g} {unit}bit/s"
    return f"{rounded:g} bit/s"


def describe(scenario: Scenario) -> str:
    """Return the numbers of nodes, links and tasks in one line."""
    topology, net = scenario.topology, scenario.net
    born = net.arrivals / scenario.spec.physics.tick
    links = (len(net.neighbour) - topology.num_nodes) // 2
    return (
        f"{topology.num_nodes:,} nodes, {len(topology.agents):,} decide; {links:,} links; "
        f"{born.sum():.4g} tasks/s at {(born > 0).sum():,} sources, offered load rho = "
        f"{scenario.rho:.3f}"
    )
