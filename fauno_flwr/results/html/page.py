"""Sections put together: one page that needs no network."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import chain

from bokeh.embed import components
from bokeh.resources import Resources

from fauno_flwr.results.html.charts import MOST_ENTRIES, Chart, Section
from fauno_flwr.results.html.style import SCRIPT, STYLE
from sim_env.replay.script import SCRIPT as PLAYER
from sim_env.replay.style import STYLE as PLAYER_STYLE


def make_page(title: str, lead: str, warnings: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
    lead : str
        A sentence below it.
    warnings : sequence of str
        What a reader has to know before the numbers.
    sections : sequence of Section
    """
    made = [_section(section) for section in sections]
    body = "".join(html for html, _ in made)
    scripts = "".join(script for _, script in made)
    links = "".join(
        f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in sections
    )
    has_player = 'class="replay"' in body
    library = _library() if scripts else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
        f"<style>{STYLE}{PLAYER_STYLE if has_player else ''}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p>{escape(lead)}</p>{_warnings(warnings)}</header>"
        f'<nav aria-label="Sections"><div>{links}</div></nav><main>{body}</main>'
        f"<footer>Written by fauno report from the files of the run. Charts: "
        f"drag to zoom, reset in their toolbar; a click on a legend hides a line.</footer>"
        f"{library}{scripts}<script>{SCRIPT if scripts else ''}</script>"
        f"<script>{PLAYER if has_player else ''}</script></body></html>\n"
    )


def _library() -> str:
    """Return BokehJS without what the charts do not use: widgets, tables, WebGL, formulas."""
    resources = Resources(mode="inline")
    resources.components = ["bokeh"]
    return resources.render_js()


def _warnings(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="warnings" role="note" aria-label="Warnings"><ul>{items}</ul></div>'


def _section(section: Section) -> tuple[str, str]:
    """Return a section and the script that draws its charts."""
    charts = list(chain.from_iterable(part for part in section.parts if not isinstance(part, str)))
    script = ""
    places: Iterator[str] = iter(())
    if charts:
        script, found = components(tuple(chart.plot for chart in charts))
        places = iter(found)
    parts = [
        part
        if isinstance(part, str)
        else f'<div class="grid">{"".join(_chart(chart, next(places)) for chart in part)}</div>'
        for part in section.parts
    ]
    html = (
        f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>{"".join(parts)}</section>'
    )
    return html, script


def _chart(chart: Chart, place: str) -> str:
    note = f"<small>{escape(chart.note)}</small>" if chart.note else ""
    entries = sum(len(legend.items) for legend in chart.plot.legend)
    looks = {"wide": chart.wide, "long-legend": entries > MOST_ENTRIES}
    names = " ".join(name for name, given in looks.items() if given)
    return (
        f'<figure class="{names}" '
        f'aria-label="{escape(chart.text)}"><figcaption>{escape(chart.title)}{note}</figcaption>'
        f'<div class="plot">{place}</div></figure>'
    )
