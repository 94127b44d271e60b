"""Outcomes of the tasks of a world, by origin and by server."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim_env.engine.state import LOSSES, OFFLOADED
from sim_env.world import World

MOST_COLUMNS = 12  # servers in a printed table


def joint_table(world: World) -> dict[str, Any]:
    """Count the tasks born since a world began, over all its copies.

    Parameters
    ----------
    world : World
        That has measured since its first tick, with ``exchange``.

    Returns
    -------
    dict
        ``created``, ``finished``, ``inside``, ``lost`` (by outcome), ``finished_of_ended``,
        ``response_mean`` and ``response_p95`` in seconds (None where nothing has finished),
        ``offloads`` (hops of tasks), ``born``, ``finished_of`` and ``served_by`` (by node),
        ``exchange`` (by origin, then by server: tasks served, without zeros), and
        ``served_for_others``: the part of it that is not a node's own.
    """
    metrics, names = world.metrics(), world.scenario.topology.names
    created, finished = int(metrics.created.sum()), int(metrics.finished.sum())
    inside = int(metrics.inside.sum())
    exchange = world.state.exchange.sum(axis=0)
    response = float(metrics.response_sum.sum()) * metrics.tick

    def by_node(counts: np.ndarray) -> dict[str, int]:
        return dict(zip(names, counts.sum(axis=0).tolist(), strict=True))

    return {
        "created": created,
        "finished": finished,
        "inside": inside,
        "lost": {name: int(getattr(metrics, name).sum()) for name in LOSSES},
        "finished_of_ended": finished / (created - inside) if created > inside else None,
        "response_mean": response / finished if finished else None,
        "response_p95": metrics.response_quantile(0.95) if finished else None,
        "offloads": int(world.state.total[:, OFFLOADED].sum()),
        "born": by_node(metrics.born_at),
        "finished_of": by_node(metrics.finished_at),
        "served_by": by_node(metrics.served_by),
        "served_for_others": int(exchange.sum() - np.trace(exchange)),
        "exchange": {
            origin: {names[j]: int(row[j]) for j in np.flatnonzero(row).tolist()}
            for origin, row in zip(names, exchange, strict=True)
        },
    }


def format_status(status: Mapping[str, Any]) -> str:
    """Format the status of a service as text.

    Parameters
    ----------
    status : dict
        From :meth:`fauno_flwr.shared_world.host.WorldHost.status`.
    """
    table, recent = status["table"], status["recent"]
    over = max(table["created"] - table["inside"], 1)
    lost = ", ".join(f"{name} {100 * count / over:.2f}" for name, count in table["lost"].items())
    text = [
        f"tick {status['tick']:,}, {status['ticks_per_second']:,.0f} per second",
        f"{table['created']:,} tasks, finished {_percent(table['finished_of_ended'])} of the ended,"
        f" response {_seconds(table['response_mean'])} (p95 {_seconds(table['response_p95'])});"
        f" lost %: {lost}",
    ]
    done = recent["finished"] + recent["lost"]
    if done:
        text.append(
            f"in the last {recent['ticks']:,} ticks: finished "
            f"{_percent(recent['finished'] / done)} of the ended"
        )
    columns = ("joined", "deployed", "collected", "dropped")
    width = max(map(len, (*status["nodes"], *table["born"], "served below")))
    text += ["", _row("node", columns, width)]
    text += [
        _row(name, [f"{node[key]:,}" for key in columns], width)
        for name, node in status["nodes"].items()
    ]
    servers = sorted(table["served_by"], key=lambda name: -table["served_by"][name])[:MOST_COLUMNS]
    servers = [name for name in table["served_by"] if name in servers]
    text += ["", "tasks served, by origin (rows) and by server:", _row("", servers, width)]
    text += [
        _row(origin, [f"{served.get(name, 0):,}" for name in servers], width)
        for origin, served in table["exchange"].items()
        if served
    ]
    text.append(f"{table['served_for_others']:,} tasks were served by another node than their own")
    return "\n".join(text)


def _row(head: str, cells: Any, width: int) -> str:
    return f"{head:<{width}}" + "".join(f"{cell:>12}" for cell in cells)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
