"""Every setting with its type, default, unit, allowed values and description.

Types, defaults and descriptions are those of the dataclasses; the allowed values are what their
checks say of an impossible one.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from fauno_flwr.config.agent import CONFIGS
from fauno_flwr.config.layers import EXAMPLES
from fauno_flwr.config.settings import RunConfig

UNITS = {
    "topology.radius": "m",
    "topology.memory_per_task": "bytes",
    "workload.rate": "tasks/s",
    "workload.source_rates": "tasks/s",
    "workload.deadline_min": "s",
    "workload.deadline_max": "s",
    "workload.schedule.slot": "s",
    "physics.tick": "s",
    "physics.bandwidth": "Hz",
    "physics.power": "dBm",
    "physics.frequency": "Hz",
    "physics.rate": "bit/s",
    "physics.latency": "s",
    "physics.server_rate": "bit/s",
    "physics.server_latency": "s",
    "physics.information_delay": "ticks",
    "physics.quirks.self_hop": "ticks",
    "physics.quirks.intake_period": "ticks",
    "physics.quirks.expiry_grace": "ticks",
    "reward.scale": "s",
    "reward.delay_cap": "s",
    "dynamics.node_mttf": "s",
    "dynamics.node_mttr": "s",
    "dynamics.link_mttf": "s",
    "dynamics.link_mttr": "s",
    "training.warmup": "ticks",
    "training.ticks": "ticks",
    "training.seconds_per_message": "s",
    "world.keep": "ticks",
    "world.patience": "s",
    "federation.ttl": "s",
    "federation.timeout": "s",
    "federation.wait_for_nodes": "s",
    "cosim.takeover": "s",
    "cosim.training_work": "instructions",
    "evaluation.warmup": "ticks",
    "evaluation.window": "ticks",
}
IMPOSSIBLE = {int: -(10**30), float: math.nan, str: "?"}
NAMES = {bool: "bool", int: "int", float: "float", str: "str", Any: "name or mapping"}
OWN = "module:object"
_PARAMETERS = re.compile(r"Parameters\n *-+\n(.*?)(?=\n *\n *\w+\n *-+\n|\Z)", re.DOTALL)
_ENTRY = re.compile(r"^ {4}(?=\S)([\w, ]+) : .*\n((?: {8}.*\n?|\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Setting:
    """A setting.

    Parameters
    ----------
    key : str
        Dotted.
    type, default, allowed, unit, description : str
        In words; empty where there is nothing to say.
    algorithm : str
        Algorithm that it belongs to, if it does not belong to all.
    """

    key: str
    type: str
    default: str
    allowed: str
    unit: str
    description: str
    algorithm: str = ""


def settings() -> Iterator[Setting]:
    """Yield every setting, in the order of the groups."""
    for item in fields(RunConfig):
        value = getattr(RunConfig(), item.name)
        if item.name == "agent":
            common: set[str] = set.intersection(
                *({each.name for each in fields(kind)} for kind in CONFIGS.values())
            )
            for number, (algorithm, kind) in enumerate(CONFIGS.items()):
                for each in _walk(kind, "agent."):
                    name = each.key.removeprefix("agent.")
                    if name not in common:
                        yield Setting(**{**vars(each), "algorithm": algorithm})
                    elif not number:
                        yield each
        elif is_dataclass(value):
            yield from _walk(type(value), f"{item.name}.")
        else:
            yield _setting(RunConfig, "", item.name, value)


def show(value: Any) -> str:
    """Return a value as an override spells it."""
    return value if isinstance(value, str) else json.dumps(value)


def markdown() -> str:
    """Return the reference page."""
    lines = [
        "# Settings",
        "",
        "Every key of the settings, generated from the code. `fauno config --show` prints them "
        "with their values, `fauno config --list` the names that some of them take.",
    ]
    group = None
    for each in settings():
        if (new := each.key.partition(".")[0] if "." in each.key else "run") != group:
            group = new
            lines += ["", f"## {group}", "", "| key | type | default | allowed | unit | |"]
            lines += ["|---|---|---|---|---|---|"]
        text = each.description + (f" Of `{each.algorithm}` only." if each.algorithm else "")
        cells = (f"`{each.key}`", each.type, f"`{each.default}`" if each.default else "empty")
        row = (*cells, each.allowed, each.unit, text)
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |")
    return "\n".join(lines) + "\n"


def _walk(kind: type, prefix: str) -> Iterator[Setting]:
    default = kind()
    for item in fields(kind):
        value = getattr(default, item.name)
        if is_dataclass(value):
            yield from _walk(type(value), f"{prefix}{item.name}.")
        else:
            yield _setting(kind, prefix, item.name, value)


def _setting(kind: type, prefix: str, name: str, value: Any) -> Setting:
    key, hint = prefix + name, get_type_hints(kind)[name]
    written = NAMES.get(hint) or str(hint).replace("typing.", "").replace(" | ", " or ")
    written = re.sub(r"\w+(?:\.\w+)+", lambda path: path[0].rpartition(".")[2], written)
    return Setting(
        key=key,
        type=written,
        default=show(value),
        allowed=_allowed(kind, key, name, hint),
        unit=UNITS.get(key, ""),
        description=describe(kind).get(name, ""),
    )


def _allowed(kind: type, key: str, name: str, hint: Any) -> str:
    """Return in words what a setting may be, as its check says of an impossible value."""
    if hint is bool:
        return "true or false"
    if key in EXAMPLES:
        return f"such as `{EXAMPLES[key]}`"
    bad = IMPOSSIBLE.get(hint, "?" if hint is Any else math.nan)
    said = _refusal(kind, name, bad)
    if not said.startswith(f"{key} is ") or "has no effect" in said:
        return ""
    allowed = said.partition(": must be ")[2]
    if hint is int:
        allowed = allowed.replace("finite number", "whole number")
    names = allowed.removeprefix("one of ")
    if names != allowed:
        allowed = ", ".join(f"`{each}`" for each in names.split(", "))
        if not _refusal(kind, name, OWN):
            allowed += f", or your own: `{OWN}`"
    return allowed


def _refusal(kind: type, name: str, value: Any) -> str:
    """Return what a dataclass says of a value; empty if it takes it."""
    try:
        kind(**{name: value})
    except ValueError as error:
        return str(error)
    return ""


def describe(kind: type) -> dict[str, str]:
    """Return the descriptions of the fields of a dataclass, of its docstrings, in Markdown."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        section = _PARAMETERS.search(each.__doc__ or "")
        for names, text in _ENTRY.findall((section[1] + "\n") if section else ""):
            plain = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(text.split()))
            for name in names.split(", "):
                found[name] = plain.replace("``", "`")
    return found
