"""The plain JSON format of networks: its fields, their JSON Schema, reading and writing."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sim_env.errors import require_choice, require_kind, require_number, require_path, shown
from sim_env.network.conversion import Links, link_values
from sim_env.network.graph import (
    LARGEST_CAPACITY,
    PASSIVE_ROLE,
    SOURCE_ROLE,
    Topology,
    neighbour_rows,
)

FORMAT, VERSION = "fauno-topology", 1
SCHEMA = "https://json-schema.org/draft/2020-12/schema"
TEXT, NUMBER, WHOLE, FLAG = "string", "number", "integer", "boolean"
FARTHEST = 1e12  # metres
SHOWN_NAMES = 8
LONGEST_NAME = 100  # characters
NAME = rf"^[A-Za-z0-9_-]{{1,{LONGEST_NAME}}}$"  # such a name can be part of a setting
DEFAULT_ROLE = SOURCE_ROLE


@dataclass(frozen=True)
class Field:
    """A field of a node or of a link.

    Parameters
    ----------
    kind : str
        Type in JSON Schema.
    meaning : str
        Unit, and default of an optional one.
    required : bool, default False
    bounds : mapping
        Keyword arguments of :func:`sim_env.errors.require_number`.
    """

    kind: str
    meaning: str
    required: bool = False
    bounds: Mapping[str, float] = field(default_factory=dict)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the field."""
        words = {"above": "exclusiveMinimum", "at_least": "minimum", "at_most": "maximum"}
        pattern = {"pattern": NAME} if self.kind == TEXT else {}
        bounds = {words[word]: bound for word, bound in self.bounds.items()}
        return {"type": self.kind, "description": self.meaning, **pattern, **bounds}

    def require(self, what: str, value: object) -> None:
        """Raise ``ValueError`` unless a value is one of this field."""
        if self.kind == FLAG:
            require_kind(what, value, bool, "true or false")
        elif self.kind == TEXT:
            if not isinstance(value, str) or not re.fullmatch(NAME[1:-1], value):
                raise ValueError(
                    f"{what} is {shown(value)}: must be letters, digits, _ and -, at most "
                    f"{LONGEST_NAME}"
                )
        else:
            require_number(what, value, **self.bounds)
            if self.kind == WHOLE and value != int(value):  # type: ignore[call-overload]
                raise ValueError(f"{what} is {shown(value)}: must be a whole number")


PLACE = {"at_least": -FARTHEST, "at_most": FARTHEST}
NODE_FIELDS = {
    "name": Field(TEXT, "unique name: letters, digits, _ and -", required=True),
    "role": Field(
        TEXT,
        f"rpi, tx2, nuc, server or another word: its mark in pictures, and the group whose actors "
        f"it may take over; default {DEFAULT_ROLE}",
    ),
    "speed": Field(NUMBER, "instructions per second", required=True, bounds={"above": 0}),
    "capacity": Field(
        WHOLE,
        "tasks that the node holds at most: the queue and the one in service",
        required=True,
        bounds={"at_least": 1, "at_most": LARGEST_CAPACITY},
    ),
    "x": Field(NUMBER, "metres", required=True, bounds=PLACE),
    "y": Field(NUMBER, "metres", required=True, bounds=PLACE),
    "agent": Field(
        FLAG, f"whether the node decides, and learns; default: its role is not {PASSIVE_ROLE}"
    ),
    "source": Field(FLAG, f"whether tasks are born at it; default: its role is {SOURCE_ROLE}"),
}
RATE, LATENCY = {"above": 0}, {"at_least": 0}
LINK_FIELDS = {
    "from": Field(TEXT, "name of a node", required=True),
    "to": Field(TEXT, "name of another node", required=True),
    "rate": Field(NUMBER, "bits per second; default: by the settings of physics", bounds=RATE),
    "latency": Field(NUMBER, "seconds; default: by the settings of physics", bounds=LATENCY),
    "rate_back": Field(NUMBER, "bits per second, to -> from; default: rate", bounds=RATE),
    "latency_back": Field(NUMBER, "seconds, to -> from; default: latency", bounds=LATENCY),
}
KEYS = ("format", "version", "description", "nodes", "links")
# Other words for a field, for error messages.
SYNONYMS = {
    "queue": "capacity",
    "queue_size": "capacity",
    "learns": "agent",
    "cpu": "speed",
    "id": "name",
    "pos": "x and y",
    "position": "x and y",
    "bandwidth": "rate",
    "delay": "latency",
    "source": "from",
    "target": "to",
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the format.

    What a schema cannot express is checked by :func:`from_plain` alone: unique names, links between
    nodes that exist, a connected network, an agent and a source.
    """
    return {
        "$schema": SCHEMA,
        "title": "Network of fauno-flwr",
        "type": "object",
        "required": ["format", "version", "nodes", "links"],
        "additionalProperties": False,
        "properties": {
            "format": {"const": FORMAT},
            "version": {"const": VERSION},
            "description": {"type": TEXT, "description": "free text, ignored"},
            "nodes": {
                "type": "array",
                "minItems": 1,
                "description": "their order is that of the actions of a node: 0 is itself, then "
                "its neighbours in this order",
                "items": _object(NODE_FIELDS),
            },
            "links": {
                "type": "array",
                "description": "each pair once; tasks travel both ways",
                "items": _object(LINK_FIELDS),
            },
        },
    }


def _object(fields: Mapping[str, Field]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [name for name, each in fields.items() if each.required],
        "additionalProperties": False,
        "properties": {name: each.schema() for name, each in fields.items()},
    }


def from_plain(content: Mapping[str, Any], where: str) -> Topology:
    """Build the network that a file of the plain format describes.

    Parameters
    ----------
    content : mapping
        What :func:`json_schema` describes.
    where : str
        The file, for error messages.

    Raises
    ------
    ValueError
        Names the offending node or link, its value and what is allowed.
    """
    for key in content:
        require_choice(f"{where}: key", key, KEYS)
    for key, value in (("format", FORMAT), ("version", VERSION)):
        written = content.get(key)
        if written != value or isinstance(written, bool):
            missing = f"has no key {key!r}" if key not in content else f"{key} is {shown(written)}"
            raise ValueError(f"{where}: {missing}: must be {value!r}")
    require_kind(f"{where}: description", content.get("description", ""), str, "text")
    nodes, links = (_list(content, key, where) for key in ("nodes", "links"))
    if not nodes:
        raise ValueError(f"{where}: nodes is []: must have at least one node")
    index: dict[str, int] = {}
    for number, node in enumerate(nodes):
        at = _describe(f"{where}: nodes[{number}]", node, "name")
        _require_fields(at, node, NODE_FIELDS)
        if node["name"] in index:
            raise ValueError(f"{at} has the name of nodes[{index[node['name']]}]: must be unique")
        index[node["name"]] = number
    rate, latency, pairs = _links(links, index, where)
    rows = neighbour_rows(len(nodes), np.array(pairs, int).reshape(-1, 2))
    roles = [node.get("role", DEFAULT_ROLE) for node in nodes]
    try:
        return Topology(
            names=list(index),
            roles=roles,
            speed=np.array([float(node["speed"]) for node in nodes]),
            capacity=np.array([int(node["capacity"]) for node in nodes]),
            position=np.array([(float(node["x"]), float(node["y"])) for node in nodes]),
            neighbours=rows,
            is_agent=_flags(nodes, "agent", [role != PASSIVE_ROLE for role in roles]),
            is_source=_flags(nodes, "source", [role == SOURCE_ROLE for role in roles]),
            link_rate=link_values(rows, rate),
            link_latency=link_values(rows, latency),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def to_plain(topology: Topology) -> dict[str, Any]:
    """Return a network in the plain format; every field of a node is written.

    Neighbours get the order of the nodes, whatever it was.

    Raises
    ------
    ValueError
        For a name or role that is not of letters, digits, _ and -.
    """
    for name, role in zip(topology.names, topology.roles, strict=True):
        NODE_FIELDS["name"].require("name of a node", name)
        NODE_FIELDS["role"].require(f"role of node {name}", role)
    nodes = [
        {
            "name": name,
            "role": topology.roles[node],
            "speed": float(topology.speed[node]),
            "capacity": int(topology.capacity[node]),
            "x": float(topology.position[node][0]),
            "y": float(topology.position[node][1]),
            "agent": bool(topology.is_agent[node]),
            "source": bool(topology.is_source[node]),
        }
        for node, name in enumerate(topology.names)
    ]
    starts = np.repeat(np.arange(topology.num_nodes), [len(row) for row in topology.neighbours])
    ends = np.concatenate([np.array(row, np.int64) for row in topology.neighbours])
    pairs = list(zip(starts.tolist(), ends.tolist(), strict=True))
    values = zip(topology.rates.tolist(), topology.latencies.tolist(), strict=True)
    stated = dict(zip(pairs, values, strict=True))
    links = [
        {
            "from": topology.names[a],
            "to": topology.names[b],
            **_stated(("rate", "latency"), stated[a, b], ()),
            **_stated(("rate_back", "latency_back"), stated[b, a], stated[a, b]),
        }
        for a, b in sorted(pairs)
        if a < b
    ]
    return {"format": FORMAT, "version": VERSION, "nodes": nodes, "links": links}


def save_topology(topology: Topology, path: str | Path) -> Path:
    """Write a network as a file of the plain format, and return its path.

    Every field of a node is written, one node or link per line. Neighbours get the order of the
    nodes, whatever it was.

    Parameters
    ----------
    topology : Topology
    path : str or Path
        An existing file is replaced.

    Raises
    ------
    ValueError
        For a name or role that is not of letters, digits, _ and -, or a file that cannot be
        written.
    """
    content = to_plain(topology)
    blocks = [
        f' "{key}": [\n' + ",\n".join(f"  {json.dumps(item)}" for item in content[key]) + "\n ]"
        for key in ("nodes", "links")
    ]
    head = f'{{\n "format": "{FORMAT}",\n "version": {VERSION},\n'
    file = require_path("path of the topology", path)
    try:
        file.write_text(head + ",\n".join(blocks) + "\n}\n")
    except OSError as error:
        raise ValueError(
            f"topology file {str(path)!r} cannot be written ({error.strerror}): must be a file in "
            f"a folder that exists"
        ) from error
    return file


def _stated(
    names: Sequence[str], values: Sequence[float], default: Sequence[float]
) -> dict[str, float]:
    """Name the values that are not nan and not the default."""
    usual = default or [np.nan] * len(names)
    return {
        name: value
        for name, value, same in zip(names, values, usual, strict=True)
        if value == value and value != same
    }


def _links(
    links: Sequence[Any], index: Mapping[str, int], where: str
) -> tuple[Links, Links, list[tuple[int, int]]]:
    """Read the links: rates and latencies by pair in both directions, and the pairs."""
    rate: Links = {}
    latency: Links = {}
    met: dict[tuple[int, int], int] = {}
    for number, link in enumerate(links):
        at = _describe(f"{where}: links[{number}]", link, "from", "to")
        _require_fields(at, link, LINK_FIELDS)
        for end in ("from", "to"):
            require_node(f"{at}: {end}", link[end], index)
        a, b = index[link["from"]], index[link["to"]]
        if a == b:
            raise ValueError(f"{at}: must join two different nodes")
        if (min(a, b), max(a, b)) in met:
            raise ValueError(
                f"{at} is links[{met[min(a, b), max(a, b)]}] again: must be there once, with "
                f"rate_back and latency_back if the two directions differ"
            )
        met[min(a, b), max(a, b)] = number
        for name, values in (("rate", rate), ("latency", latency)):
            if name in link:
                values[a, b] = values[b, a] = float(link[name])
            if f"{name}_back" in link:
                values[b, a] = float(link[f"{name}_back"])
    return rate, latency, list(met)


def require_node(what: str, name: object, known: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless a name is that of a node; names the first ones and the closest.

    Parameters
    ----------
    what : str
    name : object
    known : mapping
        Its keys are the names.
    """
    if name not in known:
        first = ", ".join([*known][:SHOWN_NAMES]) + (", ..." if len(known) > SHOWN_NAMES else "")
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"{what} is {shown(name)}: must be a node of the network ({first}){hint}")


def _describe(at: str, item: object, *keys: str) -> str:
    """Add to a place the name of the node or link in it, if it has one."""
    names = [item.get(key) for key in keys] if isinstance(item, Mapping) else []
    named = [name for name in names if isinstance(name, str) and name]
    return f"{at} ({shown(' - '.join(named))[1:-1]})" if named and len(named) == len(keys) else at


def _require_fields(at: str, item: object, fields: Mapping[str, Field]) -> None:
    if not isinstance(item, Mapping):
        required = ", ".join(name for name, each in fields.items() if each.required)
        raise ValueError(f"{at} is {shown(item)}: must be an object with {required}")
    for key, value in item.items():
        meant = SYNONYMS.get(key, "")
        if key not in fields and meant.partition(" ")[0] in fields:
            raise ValueError(
                f"{at}: key is {key!r}: must be one of {', '.join(fields)} (did you mean {meant}?)"
            )
        require_choice(f"{at}: key", key, fields)
        fields[key].require(f"{at}: {key}", value)
    for key, each in fields.items():
        if each.required and key not in item:
            raise ValueError(f"{at} has no {key}: must have one ({each.meaning})")


def _list(content: Mapping[str, Any], key: str, where: str) -> list[Any]:
    if key not in content:
        raise ValueError(f"{where} has no key {key!r}: must have format, version, nodes and links")
    value = content[key]
    require_kind(f"{where}: {key}", value, list, "a list")
    assert isinstance(value, list)
    return value


def _flags(nodes: Sequence[Mapping[str, Any]], name: str, usual: Sequence[bool]) -> np.ndarray:
    return np.array([node.get(name, by) for node, by in zip(nodes, usual, strict=True)], bool)
