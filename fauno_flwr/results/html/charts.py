"""Charts of Bokeh in one look, and sections of a page that hold them."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from bokeh.models import ColumnDataSource, FactorRange, HoverTool, LinearColorMapper
from bokeh.models.annotations import ColorBar
from bokeh.palettes import Blues256
from bokeh.plotting import figure

from fauno_flwr.results.report import COLOURS, LOSSES
from sim_env.policies.heuristics import BUILT_IN

# Of Okabe and Ito, who chose them for the colour-blind; lines and markers differ as well.
PALETTE = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31", "#D55E00")
DASHES = ("solid", "dashed", "dotdash", "dotted", "dashdot")
MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "cross", "x", "star")
HATCHES = {"overflow": " ", "deadline": "/", "client": ".", "failure": "x"}  # as in the figures
GREY = "#8894A0"
HEAT = tuple(reversed(Blues256))[24:]  # dark is much, and a little is not white
ROW = 15  # height of a category, pixels
MOST_ENTRIES = 4  # of a legend, side by side
TOOLS = "pan,box_zoom,wheel_zoom,reset,save"
Tooltips = Sequence[tuple[str, str]]


class Chart(NamedTuple):
    """A chart with its title and its alternative text, and whether it has the whole width."""

    plot: Any
    title: str
    text: str
    wide: bool = False
    note: str = ""


class Section(NamedTuple):
    """A part of a page: pieces of HTML, and groups of charts side by side."""

    anchor: str
    title: str
    parts: Sequence[str | Sequence[Chart]]


def make_plot(x_label: str = "", y_label: str = "", *, height: int = 270, **options: Any) -> Any:
    """Make an empty chart that is as wide as its place."""
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        tools=TOOLS,
        active_drag="box_zoom",
        toolbar_location="above",
        toolbar_inner=True,
        x_axis_label=x_label or None,
        y_axis_label=y_label or None,
        output_backend="canvas",
        **options,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.grid.grid_line_alpha = 0.5
    plot.outline_line_color = None
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "12px"
        axis.major_label_text_font_size = "11px"
        axis.minor_tick_line_color = None
    return plot


def count_whole(plot: Any) -> None:
    """Let the ticks of the x axis be whole numbers."""
    plot.xaxis[0].ticker.min_interval = 1


def make_rows(names: Sequence[str], x_label: str, **options: Any) -> Any:
    """Make an empty chart with a row for each name, the first one at the top."""
    height = max(170, min(90 + ROW * len(names), 1500))
    options = {"height": height, "y_range": FactorRange(factors=list(reversed(names))), **options}
    plot = make_plot(x_label, **options)
    plot.ygrid.grid_line_color = None
    if len(names) > 100:
        plot.yaxis.major_label_text_font_size = "0px"  # illegible; the pointer shows them
    return plot


def add_hover(plot: Any, renderer: Any, tooltips: Tooltips, **options: Any) -> None:
    """Show values under the pointer."""
    renderers = renderer if isinstance(renderer, list) else [renderer]
    plot.add_tools(HoverTool(renderers=renderers, tooltips=list(tooltips), **options))


def stack_losses(
    plot: Any, kinds: Sequence[str], source: ColumnDataSource, tooltips: Tooltips
) -> None:
    """Stack the lost tasks of each row by reason, in the colours of the figures.

    Parameters
    ----------
    plot : figure
        Whose rows are the column ``name`` of `source`.
    kinds : sequence of str
        Reasons, each a column.
    source : ColumnDataSource
    tooltips : sequence of (str, str)
    """
    bars = plot.hbar_stack(
        list(kinds),
        y="name",
        height=0.7,
        source=source,
        color=[LOSSES[kind][0] for kind in kinds],
        hatch_pattern=[HATCHES[kind] for kind in kinds],
        hatch_color="white",
        hatch_alpha=0.7,
        line_color="white",
        legend_label=list(kinds),
    )
    add_hover(plot, bars, tooltips)
    place_legend(plot)
    plot.x_range.start = 0


def place_legend(plot: Any, *, hide: bool = True) -> None:
    """Put the legend above the chart; a click hides or mutes a line."""
    if not plot.legend:
        return
    legend = plot.legend[0]
    plot.add_layout(legend, "above")
    legend.orientation, legend.click_policy = "horizontal", "hide" if hide else "mute"
    legend.ncols = MOST_ENTRIES
    legend.border_line_color = None
    legend.label_text_font_size, legend.padding, legend.margin = "11px", 2, 0
    legend.spacing, legend.glyph_height, legend.label_height = 12, 14, 14


def add_heat(plot: Any, source: ColumnDataSource, value: str, high: float, unit: str) -> Any:
    """Add tiles of the columns ``x`` and ``y`` with a colour by `value`, from 0 to `high`."""
    mapper = LinearColorMapper(palette=list(HEAT), low=0, high=max(high, 1e-9), nan_color="white")
    tiles = plot.rect(
        x="x",
        y="y",
        width=0.96,
        height=0.92,
        source=source,
        line_color=None,
        fill_color={"field": value, "transform": mapper},
    )
    bar = ColorBar(
        color_mapper=mapper,
        width=10,
        padding=6,
        title=unit,
        title_text_font_style="normal",
        title_text_font_size="11px",
    )
    plot.add_layout(bar, "right")
    plot.grid.grid_line_color = None
    return tiles


def policy_colour(policy: str, place: int) -> str:
    """Return the colour of a policy: always the same for those of this package."""
    if policy in COLOURS:
        return COLOURS[policy]
    known = ["sed", "untrained", "threshold", "lq", "random", "local"]
    known += [name for name in BUILT_IN if name not in known]
    number = known.index(policy) if policy in known else len(known) + place
    return PALETTE[number % (len(PALETTE) - 1)]


def short(values: np.ndarray) -> np.ndarray:
    """Return numbers as their place in a page is worth: 4 bytes each."""
    return np.asarray(values, np.float32)


def capital(text: str) -> str:
    """Return a text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def html_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, label: str, css: str = ""
) -> str:
    """Return a table; its cells are text, the first of each row is its head."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{css}" aria-label="{escape(label)}">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def choices(
    group: str, options: Sequence[tuple[str, str]], sources: Sequence[Any], plots: Sequence[Any]
) -> str:
    """Return buttons of which one is chosen: each shows other columns of some sources.

    A column such as ``x`` then has the values of ``x|OPTION``.

    Parameters
    ----------
    group : str
        Name, also shown.
    options : sequence of tuple of str
        Value and label; the first one is chosen.
    sources, plots : sequence
        Models of Bokeh; the plots get the label as that of their x axis.
    """
    buttons = "".join(
        f'<label><input type="radio" name="{escape(group)}" value="{escape(value)}" '
        f'data-label="{escape(label)}"{" checked" if number == 0 else ""}>{escape(label)}</label>'
        for number, (value, label) in enumerate(options)
    )
    return (
        f'<fieldset class="choices" data-sources="{_ids(sources)}" data-plots="{_ids(plots)}">'
        f"<legend>{escape(group)}</legend>{buttons}</fieldset>"
    )


def toggles(
    group: str,
    names: Sequence[str],
    sources: Sequence[Any],
    *,
    on: bool,
    colours: Sequence[str] = (),
    palette: Sequence[str] = (),
) -> str:
    """Return a button for each row of some sources, which switches its looks.

    A column such as ``alpha`` then has the value of ``alpha|on`` or ``alpha|off`` in that row; with
    a column ``row``, in all rows of that number.

    Parameters
    ----------
    group : str
        What they are, also shown.
    names : sequence of str
    sources : sequence
    on : bool
        Whether they are on at first.
    colours : sequence of str, optional
        Of the names.
    palette : sequence of str, optional
        Colours that the rows of the first source are given while they are on.
    """
    pressed = "true" if on else "false"
    buttons = "".join(
        f'<button type="button" aria-pressed="{pressed}" data-row="{row}" '
        f'style="--mark:{colours[row] if colours else "currentColor"}">{escape(name)}</button>'
        for row, name in enumerate(names)
    )
    return (
        f'<fieldset class="toggles" data-sources="{_ids(sources)}" '
        f'data-palette="{" ".join(palette)}">'
        f"<legend>{escape(group)}</legend>{buttons}</fieldset>"
    )


def _ids(models: Sequence[Any]) -> str:
    return " ".join(model.id for model in models)
