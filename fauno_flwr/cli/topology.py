"""The commands ``fauno topology``: networks from files, as tables, as pictures."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fauno_flwr.cli.options import Conf
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from sim_env import plugins

if TYPE_CHECKING:
    import networkx as nx

    from sim_env.scenario import Scenario

MOST_ROWS = 60  # nodes; more are shown by role only
JSON = ".json"

Outs = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        help="File to write: .json, the plain format; .png, .svg or .pdf, a picture. May be "
        "repeated.",
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="FIELD=ATTRIBUTE",
        help="Attribute to read a field from, such as speed=cpu. Fields: name, role, speed, "
        "capacity, x, y, agent, source of nodes; rate, latency of links.",
    ),
]
Defaults = Annotated[
    list[str] | None,
    typer.Option(
        "--default", metavar="FIELD=VALUE", help="Value where it is missing, such as capacity=50."
    ),
]
Scales = Annotated[
    list[str] | None,
    typer.Option(
        "--scale", metavar="FIELD=FACTOR", help="Unit of an attribute, such as rate=1e6 for Mbit/s."
    ),
]
Fit = Annotated[
    float | None,
    typer.Option(help="Metres; scale positions into a square with this side."),
]


def from_graphml(
    file: Annotated[Path, typer.Argument(help="GraphML file.")],
    out: Outs = None,
    names: Names = None,
    default: Defaults = None,
    scale: Scales = None,
    fit: Fit = None,
) -> None:
    """Convert a GraphML file to a topology."""
    from sim_env.network.imports import read_graphml

    _convert(file.name, lambda: read_graphml(file), out, names, default, scale, fit)


def from_edges(
    file: Annotated[
        Path,
        typer.Argument(help="CSV with columns from, to and attributes, or two names per line."),
    ],
    nodes: Annotated[
        Path | None, typer.Option(help="CSV with the column name and attributes of nodes.")
    ] = None,
    out: Outs = None,
    names: Names = None,
    default: Defaults = None,
    scale: Scales = None,
    fit: Fit = None,
) -> None:
    """Convert a list of links, and optionally a table of nodes, to a topology."""
    from sim_env.network.imports import read_edges

    _convert(file.name, lambda: read_edges(file, nodes), out, names, default, scale, fit)


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="Preset of conf/topology, topology file, or my_module:function.",
            metavar="NAME|FILE",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as physics=fixed."),
    ] = None,
    conf: Conf = "ether2",
    out: Outs = None,
) -> None:
    """Show a network: nodes, roles, speeds, capacities, links, rates; write a picture or JSON."""
    own = plugins.is_import_path(name)
    if not own and Path(name).suffix not in ("", JSON):
        raise ConfigError(
            f"NAME|FILE is {name!r}: must be a preset, a {JSON} file or my_module:function "
            f"(fauno topology from-graphml and from-edges convert others)"
        )
    _require_suffixes(out or [])
    chosen = f"topology.kind={name}" if own else f"topology={name}"
    scenario = load_config(conf, [chosen, *(overrides or [])]).build_scenario()
    typer.echo(format_network(scenario))
    _write(scenario, Path(name).name, out or [])


def schema() -> None:
    """Print the JSON Schema of topology files."""
    from sim_env.network.plain import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _convert(
    title: str,
    read: Callable[[], "nx.Graph"],
    out: Sequence[Path] | None,
    names: Sequence[str] | None,
    defaults: Sequence[str] | None,
    scales: Sequence[str] | None,
    fit: float | None,
) -> None:
    """Read a graph, complete it, and show and write the network."""
    from sim_env.network.imports import import_graph
    from sim_env.scenario import Scenario, ScenarioSpec
    from sim_env.tables import as_number

    _require_suffixes(out or [])
    scale = {field: as_number(text) for field, text in _pairs("--scale", scales).items()}
    factors: dict[str, Any] = dict(scale)
    try:
        imported = import_graph(
            read(), _pairs("--map", names), _pairs("--default", defaults), factors, fit
        )
        scenario = Scenario(ScenarioSpec(), topology=imported.topology)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for note in imported.notes:
        typer.echo(note)
    typer.echo(("\n" if imported.notes else "") + format_network(scenario))
    _write(scenario, title, out or [])


def _pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or []:
        field, equals, value = text.partition("=")
        if not field or not equals or not value:
            raise ConfigError(f"{option} is {text!r}: must be of the form FIELD=VALUE")
        if field in pairs:
            raise ConfigError(f"{option} is {text!r}: {field} must be there once")
        pairs[field] = value
    return pairs


def _require_suffixes(files: Sequence[Path]) -> None:
    allowed = (JSON, ".png", ".svg", ".pdf")
    for file in files:
        if file.suffix not in allowed:
            raise ConfigError(f"--out is {str(file)!r}: must end in {', '.join(allowed)}")


def _write(scenario: "Scenario", title: str, files: Sequence[Path]) -> None:
    """Write the network to each file, as its suffix says."""
    try:
        for file in files:
            if file.suffix == JSON:
                from sim_env.network.plain import save_topology

                save_topology(scenario.topology, file)
            else:
                from sim_env.envs.plan import save_network

                save_network(scenario, file, title)
            typer.echo(f"wrote {file}")
    except ValueError as error:
        raise ConfigError(str(error)) from error


def format_network(scenario: "Scenario") -> str:
    """Format a network as text: its roles, and its nodes if they are not too many."""
    import numpy as np

    from sim_env.envs.description import bits_per_second, describe

    topology, net = scenario.topology, scenario.net
    tick = scenario.spec.physics.tick
    born = net.arrivals / tick
    rows = [net.rate[net.first[n] + 1 : net.first[n + 1]] / tick for n in range(len(net.slots))]
    own = np.repeat(np.arange(len(net.slots)), net.slots) == net.neighbour
    delays = net.latency[~own] * tick

    def span(values: Any, text: Callable[[float], str]) -> str:
        low, high = text(float(np.min(values))), text(float(np.max(values)))
        return low if low == high else f"{low} to {high}"

    def line(name: str, second: str, nodes: Any, decide: str) -> list[str]:
        reached = [rate for n in nodes for rate in rows[n]]
        return [
            name,
            second,
            span(topology.speed[nodes], "{:.4g}".format),
            span(topology.capacity[nodes], "{:.0f}".format),
            span(net.slots[nodes] - 1, "{:.0f}".format),
            span(reached, bits_per_second) if reached else "-",
            f"{born[nodes].sum():.4g}",
            decide,
        ]

    head = ["speed (instr./s)", "capacity", "links", "rate of links", "tasks/s", "decide"]
    roles = np.array(topology.roles)
    table = [["role", "nodes", *head]]
    for role in dict.fromkeys(topology.roles):
        nodes = np.flatnonzero(roles == role)
        decide = str(int(topology.is_agent[nodes].sum()))
        table.append(line(role, str(len(nodes)), nodes, decide))
    parts = [describe(scenario) + "; connected", _aligned(table)]
    if topology.num_nodes <= MOST_ROWS:
        each = [["node", "role", *head]]
        for node, name in enumerate(topology.names):
            decides = "yes" if topology.is_agent[node] else "no"
            each.append(line(name, topology.roles[node], [node], decides))
        parts.append(_aligned(each))
    if delays.any():
        parts.append(f"latency of links: {span(delays, '{:.3g} s'.format)}")
    return "\n\n".join(parts)


def _aligned(table: Sequence[Sequence[str]]) -> str:
    """Align columns: the first two to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
