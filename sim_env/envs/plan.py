"""The picture of a network as it was read: speeds, capacities, links, and where tasks are born."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sim_env.engine.net import Net
from sim_env.envs.description import bits_per_second, describe
from sim_env.envs.picture import INK, LINK, NetworkPicture
from sim_env.errors import require_choice, require_path
from sim_env.scenario import Scenario

FORMATS = ("png", "pdf", "svg")
SOURCE = "#D55E00"
MOST_LEVELS = 4  # rates of links in the legend
THIN, THICK = 0.5, 3.5  # points: the slowest and the fastest link


def save_network(scenario: Scenario, path: str | Path, title: str = "") -> Path:
    """Draw the network of a scenario, and return the path of the picture.

    Mark: role by shape, speed by area, capacity by colour. An orange outline and a rate, in tasks
    per second, are those of a source; a dashed outline is that of a node that does not decide. A
    line is a link, thicker if faster.

    Parameters
    ----------
    scenario : Scenario
    path : str or Path
        A ``.png``, ``.pdf`` or ``.svg`` file; an existing one is replaced.
    title : str
        First line of the picture.

    Raises
    ------
    ValueError
        For another suffix, or a file that cannot be written.
    """
    file = require_path("path of the picture", path)
    require_choice(f"suffix of picture {str(path)!r}", file.suffix.removeprefix("."), FORMATS)
    picture = NetworkPlan(scenario, title)
    try:
        picture.save(file)
    except OSError as error:
        raise ValueError(
            f"picture {str(path)!r} cannot be written ({error.strerror}): must be a file in a "
            f"folder that exists"
        ) from error
    return file


class NetworkPlan(NetworkPicture):
    """Figure of a network without tasks.

    Parameters
    ----------
    scenario : Scenario
    title : str
    """

    def __init__(self, scenario: Scenario, title: str) -> None:
        self._scenario = scenario
        self._born = scenario.net.arrivals / scenario.spec.physics.tick
        super().__init__(scenario.topology)
        self._time.set_text(title)
        self._counts.set_text(describe(scenario))

    def save(self, path: Path) -> None:
        """Write the picture; its suffix is the format."""
        self._canvas.figure.savefig(path)

    def _links(self, ends: np.ndarray, alpha: float) -> None:
        rates = link_rates(self._scenario.net, self._scenario.spec.physics.tick)
        self._range = (float(rates.min()), float(rates.max())) if len(rates) else (1.0, 1.0)
        exact = np.unique(rates)
        self._levels = exact if len(exact) <= MOST_LEVELS else np.geomspace(*self._range, 3)
        self._axes.add_collection(
            LineCollection(
                list(ends), colors=LINK, linewidths=self._widths(rates), alpha=alpha, zorder=1
            )
        )

    def _widths(self, rates: np.ndarray) -> np.ndarray:
        low, high = np.log(self._range)
        part = (np.log(rates) - low) / (high - low) if high > low else np.full(len(rates), 0.2)
        return np.asarray(THIN + (THICK - THIN) * part)

    def _keys(self) -> None:
        """Colour and outline the marks, and draw the legends."""
        topology, figure = self._scenario.topology, self._canvas.figure
        low, high = int(self._capacity.min()), int(self._capacity.max())
        norm = LogNorm(low / 2, max(high, 2 * low))
        outlined: list[tuple[np.ndarray, Any]] = self._marks
        for nodes, marks in outlined:
            marks.set_norm(norm)
            marks.set_array(self._capacity[nodes])
            sources, decide = self._born[nodes] > 0, topology.is_agent[nodes]
            marks.set_edgecolors([SOURCE if source else INK for source in sources])
            marks.set_linewidths([2.0 if source else 0.8 for source in sources])
            marks.set_linestyles(["-" if agent else (0, (2, 1)) for agent in decide])
        bar = figure.colorbar(self._marks[0][1], cax=figure.add_axes((0.84, 0.57, 0.02, 0.30)))
        ticks = np.unique(np.round(np.geomspace(low, high, 4))) if high > low else [low]
        bar.set_ticks(ticks, labels=[f"{tick:.0f}" for tick in ticks], minor=False)
        bar.set_ticks([], minor=True)
        bar.set_label("capacity: tasks", color=INK)
        slow, fast = topology.speed.min(), topology.speed.max()
        speeds = f"{slow:.3g}" if slow == fast else f"{slow:.3g} to {fast:.3g}"
        legend = figure.legends[0]
        legend.set_title(f"larger: faster,\n{speeds}\ninstructions/s")
        legend.set_bbox_to_anchor((0.82, 0.53))
        ring: dict[str, Any] = {"ls": "", "marker": "o", "ms": 9, "mfc": "white"}
        handles: list[Artist] = []
        if (self._born > 0).any():
            handles.append(Line2D([], [], label="tasks are born", mec=SOURCE, mew=2, **ring))
        if not topology.is_agent.all():
            dashed: dict[str, Any] = {"facecolor": "white", "linestyle": (0, (2, 1))}
            handles.append(Patch(edgecolor=INK, label="does not decide", **dashed))
        for rate in self._levels:
            width = float(self._widths(np.array([rate]))[0])
            handles.append(Line2D([], [], color=LINK, lw=width, label=bits_per_second(rate)))
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.82, 0.02),
            frameon=False,
            title="outlines and links",
            alignment="left",
        )

    def _names(self, names: Sequence[str], ends: np.ndarray, width: float) -> None:
        labels = [
            f"{name} {rate:.3g}/s" if rate else name
            for name, rate in zip(names, self._born.tolist(), strict=True)
        ]
        super()._names(labels, ends, width)


def link_rates(net: Net, tick: float) -> np.ndarray:
    """Return the rate of each link, of the slower direction, in bits per second.

    In the order of pairs (a, b) with a < b, by the rows of ``net``.
    """
    own = np.repeat(np.arange(len(net.slots)), net.slots)
    both: dict[tuple[int, int], float] = {}
    for a, b, rate in zip(own.tolist(), net.neighbour.tolist(), net.rate.tolist(), strict=True):
        if a != b:
            pair = min(a, b), max(a, b)
            both[pair] = min(rate / tick, both.get(pair, np.inf))
    return np.array(list(both.values()))
