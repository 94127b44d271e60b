"""The figure of a network, laid out once and reused for every frame."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from sim_env.engine.state import CREATED, FINISHED, LOSSES, OUTBOUND, RETURNING
from sim_env.envs.places import FONT, beside, places, radii
from sim_env.network.topology import Topology
from sim_env.world import World

INCHES, DPI = (10.0, 7.0), 100
AXES = (0.02, 0.03, 0.78, 0.86)  # left, bottom, width and height as parts of the figure
WIDEST = 6.0  # points
MOST_LABELS = 60  # more names are illegible
# Mark of a role, and the factor that makes its area that of a circle: matplotlib uses its box.
SHAPES = {"rpi": ("o", 1.0), "tx2": ("^", 1.3), "nuc": ("s", 0.8), "server": ("D", 0.7)}
OTHER_SHAPES = "hpvX8<>P"  # of roles that are not in SHAPES, in order of appearance
INK, LINK = "#222222", "#9AA5B1"
WEDGE: dict[str, Any] = {"facecolors": "#D55E00", "linewidths": 0, "zorder": 2}
FEW_LINKS = 150  # more links and their wedges are drawn fainter


class NetworkPicture:
    """Figure of one network, reused for every frame; lengths on paper are in points.

    Parameters
    ----------
    topology : Topology
    """

    def __init__(self, topology: Topology) -> None:
        # Without pyplot, which would keep a reference and choose a backend.
        self._canvas: Any = FigureCanvasAgg(Figure(figsize=INCHES, dpi=DPI, facecolor="white"))
        left, bottom, width, height = AXES
        self._axes = self._canvas.figure.add_axes(AXES)
        paper = np.array([width * INCHES[0], height * INCHES[1]]) * 72
        self._axes.set(xlim=(0, paper[0]), ylim=(0, paper[1]))
        self._axes.set_axis_off()
        self._capacity = np.asarray(topology.capacity, float)
        self._radius = radii(topology, paper)
        self._place, metre = places(topology, paper, self._radius)
        pairs = [(a, b) for a, row in enumerate(topology.neighbours) for b in row if a < b]
        ends = self._place[np.array(pairs, int).reshape(-1, 2)]
        crowd = FEW_LINKS / max(len(pairs), FEW_LINKS)
        self._wedge = {**WEDGE, "alpha": max(0.5 * crowd**0.5, 0.15)}
        self._width = float(np.clip(np.median(self._radius) / 5, 0.2, 1.0))
        self._links(ends, max(0.9 * crowd, 0.15))
        self._nodes(topology)
        self._keys()
        if topology.num_nodes <= MOST_LABELS:
            self._names(topology.names, ends, paper[0])
        if metre:
            self._scale_bar(metre, paper)
        top, text = bottom + height, self._canvas.figure.text
        self._time = text(left, top + 0.06, "", fontsize=15, fontweight="bold", color=INK)
        self._counts = text(left, top + 0.02, "", fontsize=11, color=INK)
        self._wedges = PolyCollection([], **self._wedge)
        self._axes.add_collection(self._wedges)

    def draw(self, world: World, index: int) -> np.ndarray:
        """Draw the frame of world `index`, array of uint8, shape (700, 1000, 3)."""
        st, total = world.state, world.state.total[index]
        tasks = st.num_ready[index] + st.num_pending[index] + (st.service[index] >= 0)
        lost = sum(int(total[column]) for column in LOSSES.values())
        inside = int(total[CREATED] - total[FINISHED]) - lost
        home = int((st.kind[index] == RETURNING).sum())
        sent = np.flatnonzero(st.kind[index] == OUTBOUND)
        return self.draw_moment(
            f"t = {world.now * world.scenario.spec.physics.tick:,.1f} s",
            f"finished {total[FINISHED]:,}    lost {lost:,}    inside {inside:,}:  "
            f"{tasks.sum():,} at nodes, {inside - tasks.sum() - home:,} on their way, "
            f"{home:,} results going home",
            tasks,
            np.stack([st.sender[index, sent], st.place[index, sent]], axis=1),
        )

    def draw_moment(
        self, title: str, counts: str, tasks: np.ndarray, ways: np.ndarray
    ) -> np.ndarray:
        """Draw any moment, array of uint8, shape (700, 1000, 3).

        Parameters
        ----------
        title, counts : str
            First and second line.
        tasks : array of int, shape (N,)
            At each node.
        ways : array of int, shape (F, 2)
            Sender and destination of each task in flight.
        """
        for nodes, marks in self._marks:
            marks.set_array(tasks[nodes] / self._capacity[nodes])
        self._time.set_text(title)
        self._counts.set_text(counts)
        # A wedge for each direction of a link with tasks in flight.
        ways, numbers = np.unique(ways, axis=0, return_counts=True)
        self._wedges.set_verts(_wedges(self._place[ways], numbers, self._width))
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()

    def _links(self, ends: np.ndarray, alpha: float) -> None:
        self._axes.add_collection(
            LineCollection(list(ends), colors=LINK, linewidths=0.8, alpha=alpha, zorder=1)
        )

    def _nodes(self, topology: Topology) -> None:
        """Draw a collection of marks per role, as a collection has one shape."""
        roles, spare = np.array(topology.roles), itertools.cycle(OTHER_SHAPES)
        self._marks: list[tuple[np.ndarray, PathCollection]] = []
        legend = []
        for role in dict.fromkeys(topology.roles):
            nodes = np.flatnonzero(roles == role)
            shape, area = SHAPES.get(role) or (next(spare), 1.0)
            x, y = self._place[nodes].T
            marks = self._axes.scatter(
                x,
                y,
                s=area * (2 * self._radius[nodes]) ** 2,
                c=np.zeros(len(nodes)),
                cmap="Blues",
                norm=PowerNorm(0.5, 0, 1),
                marker=shape,
                edgecolors=INK,
                linewidths=min(0.8, 0.12 * float(self._radius.max())),
                zorder=3,
            )
            self._marks.append((nodes, marks))
            look = {"ls": "", "marker": shape, "ms": 9 * area**0.5, "mfc": "white", "mec": INK}
            legend.append(Line2D([], [], label=role, **look))
        self._canvas.figure.legend(
            handles=legend,
            loc="upper left",
            bbox_to_anchor=(0.82, 0.42),
            frameon=False,
            title="larger: faster",
            alignment="left",
        )

    def _keys(self) -> None:
        """Draw the legend of colours and wedges."""
        figure = self._canvas.figure
        bar = figure.colorbar(self._marks[0][1], cax=figure.add_axes((0.84, 0.47, 0.02, 0.40)))
        bar.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=["0", "5 %", "20 %", "50 %", "100 %"])
        bar.set_label("load: tasks / capacity", color=INK)
        key = figure.add_axes((0.83, 0.03, 0.16, 0.14))
        key.set(xlim=(0, 115), ylim=(0, 70))
        key.set_axis_off()
        key.text(0, 60, "tasks on their way", color=INK, va="center")
        for height, count in ((42, 1), (26, 5), (8, 25)):
            ends = np.array([[[4.0, height], [60.0, height]]])
            wedges = _wedges(ends, np.array([count]), self._width)
            key.add_collection(PolyCollection(wedges, **self._wedge))
            key.text(68, height, f"{count}", color=INK, va="center")

    def _names(self, names: Sequence[str], ends: np.ndarray, width: float) -> None:
        """Write each name beside its node."""
        for name, (x, y) in zip(
            names, beside(names, self._place, self._radius, ends, width), strict=True
        ):
            self._axes.text(
                x,
                y,
                name,
                fontsize=FONT,
                color=INK,
                ha="center",
                va="center",
                zorder=6,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )

    def _scale_bar(self, metre: float, paper: np.ndarray) -> None:
        """Draw a scale bar of a round number of metres, about a sixth of the paper."""
        wish = paper[0] / 6 / metre
        power = 10.0 ** np.floor(np.log10(wish))
        length = power * max(step for step in (1, 2, 5) if step * power <= wish)
        self._axes.plot([0, length * metre], [0, 0], color=INK, lw=1.5)
        self._axes.text(length * metre + 4, 0, f"{length:g} m", fontsize=9, va="center", color=INK)


def _wedges(ends: np.ndarray, counts: np.ndarray, scale: float) -> list[np.ndarray]:
    """Compute triangles from a point to a base across the other end.

    Parameters
    ----------
    ends : array, shape (L, 2, 2)
        Where each wedge begins and ends.
    counts : array of int, shape (L,)
        Tasks; the width grows with the square root.
    scale : float
        Of the width; below 1 where marks are small.

    Returns
    -------
    list of L arrays, shape (3, 2)
    """
    span = ends[:, 1] - ends[:, 0]
    across = span[:, ::-1] * (-1, 1) / np.maximum(np.linalg.norm(span, axis=1), 1e-9)[:, None]
    half = across * (scale * np.minimum(0.5 + 0.8 * np.sqrt(counts), WIDEST))[:, None]
    return list(np.stack([ends[:, 0], ends[:, 1] - half, ends[:, 1] + half], axis=1))
