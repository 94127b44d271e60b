"""The command ``fauno config``."""

from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from typing import Annotated, Any

import typer

from fauno_flwr.cli.options import Conf, Overrides
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import choices, conf_dir, load_resolved

PRESET = "ether2"


def config(
    overrides: Overrides = None,
    conf: Conf = PRESET,
    show: Annotated[
        bool, typer.Option("--show", help="Print every setting and its source (the default).")
    ] = False,
    names: Annotated[
        bool,
        typer.Option("--list", help="Print the names of presets, heuristics, rewards, rules, ..."),
    ] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="Print every key: default, allowed values, meaning.")
    ] = False,
) -> None:
    """Show the settings of a run, or what they may be."""
    if show + names + keys > 1:
        raise ConfigError("more than one of --show, --list and --keys is given: must be one")
    given = [*(overrides or []), *([f"--conf {conf}"] if conf != PRESET else [])]
    if (names or keys) and given:
        flag = "--list" if names else "--keys"
        raise ConfigError(f"{given[0]!r} has no effect with {flag}, must be left out")
    lines = _names() if names else _keys() if keys else _resolved(conf, overrides or [])
    for line in lines:
        typer.echo(line)


def _resolved(conf: str, overrides: list[str]) -> Iterator[str]:
    """Yield a line for each setting, as an override spells it, with its source."""
    from fauno_flwr.config.origins import ABSENT
    from fauno_flwr.config.reference import show

    found = load_resolved(conf, overrides)

    def walk(value: Any, prefix: str) -> Iterator[tuple[str, str]]:
        for item in fields(value):
            each, key = getattr(value, item.name), prefix + item.name
            if is_dataclass(each):
                yield from walk(each, f"{key}.")
            else:
                yield f"{key}={show(_plain(each))}", found.origins.get(key, ABSENT).source

    rows = list(walk(found.config, ""))
    width = min(max(len(text) for text, _ in rows), 60)
    for text, source in rows:
        yield f"{text:<{width}}  # {source}"


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _keys() -> Iterator[str]:
    from fauno_flwr.config.reference import settings

    for each in settings():
        unit = f" {each.unit}" if each.unit else ""
        allowed = f" ({each.allowed})" if each.allowed else ""
        of = f" [{each.algorithm}]" if each.algorithm else ""
        yield f"{each.key}={each.default}{unit}{allowed}{of}"
        yield f"    {each.description}"


def _names() -> Iterator[str]:
    """Yield the names of every choice, those of installed packages marked."""
    from sim_env.plugins import names_of

    yield "presets (--conf):"
    yield from _files("preset")
    for path in sorted(conf_dir().iterdir()):
        if path.name != "preset":
            yield f"{path.name} ({path.name}=NAME):"
            yield from _files(path.name)
    for title, known, group in catalogue():
        installed = [f"{name} (installed)" for name in names_of(group)]
        yield f"{title}:"
        yield f"    {', '.join([*known, *installed])}"
    yield "Most of these may also be your own, at an import path module:object."


def _files(group: str) -> Iterator[str]:
    for name in choices(group):
        first = (conf_dir() / group / f"{name}.yaml").read_text().partition("\n")[0]
        yield f"    {name:<20} {first.lstrip('# ')}"


def catalogue() -> list[tuple[str, list[str], str]]:
    """Return the title, the built-in names and the entry-point group of every choice."""
    from fauno_flwr.config import agent, rules
    from fauno_flwr.experiments import EXPERIMENTS
    from fauno_flwr.experiments.methods import METHODS
    from sim_env.engine import features, reward
    from sim_env.network import topology
    from sim_env.policies import heuristics
    from sim_env.workload import schedule, workload

    networks = [agent.EQUIVARIANT, agent.PADDED]
    kinds = (rules.STALENESS, rules.MERGE, rules.SERVER_OPTIMIZER, rules.COMPRESSION)
    return [
        (
            "heuristics (evaluation.policies, training.peers, --policies)",
            list(heuristics.POLICIES),
            heuristics.GROUP,
        ),
        ("dispatchers (evaluation.policies, --policies)", list(heuristics.DISPATCHERS), ""),
        ("rewards (reward.kind)", list(reward.REWARDS), reward.GROUP),
        ("observations (observation)", list(features.OBSERVATIONS), features.GROUP),
        ("networks of nodes (topology.kind)", list(topology.KINDS), topology.GROUP),
        ("job tables (workload.jobs)", list(workload.JOB_TABLES), workload.GROUP),
        ("schedules (workload.schedule.kind)", [*schedule.SLOTS, "steps"], ""),
        ("algorithms (agent.algorithm)", list(agent.CONFIGS), agent.ALGORITHM_GROUP),
        ("neural networks (agent.network)", networks, agent.NETWORK_GROUP),
        *((f"rules ({kind.setting})", list(kind.known), kind.group) for kind in kinds),
        ("experiments (fauno experiment)", list(EXPERIMENTS), "fauno.experiments"),
        ("methods (fauno experiment --methods)", list(METHODS), ""),
    ]
