"""A replay as HTML that needs no network: a section of a page, or a page of its own."""

import base64
import html
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sim_env.engine.state import BORN
from sim_env.policies.heuristics import TITLES
from sim_env.replay.files import Replay, to_columns
from sim_env.replay.recording import Recording
from sim_env.replay.script import SCRIPT
from sim_env.replay.style import STYLE

SPEEDS = (0.5, 1, 2, 5, 10, 30)
COLUMNS = ("born", "finished", "overflow", "deadline", "client", "failure", "response s")
KEY = (
    ("#7a8794", "on its way, will finish"),
    ("#0072B2", "will be lost: queue full"),
    ("#E69F00", "deadline"),
    ("#009E73", "late at the client"),
    ("#CC79A7", "failure"),
)


def replay_page(replay: Replay, title: str, titles: dict[str, str] | None = None) -> str:
    """Return a replay as a page of its own; parameters as of :func:`replay_section`."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>body {{ margin: 16px; }} {STYLE}"
        f"@media (prefers-color-scheme: dark) {{ body {{ background: #15191d; }} }}"
        f"</style></head><body>"
        f"{replay_section(replay, titles, heading=title)}<script>{SCRIPT}</script></body></html>\n"
    )


def replay_section(
    replay: Replay, titles: dict[str, str] | None = None, *, heading: str = ""
) -> str:
    """Return a replay as a section of a page that has :data:`STYLE` and, at its end, `SCRIPT`.

    Parameters
    ----------
    replay : Replay
        With at least one recording; the first two are shown side by side.
    titles : dict of str to str, optional
        Of policies that are no heuristics of this package.
    heading : str
        Above it.
    """
    known = {**TITLES, **(titles or {})}
    names = [known.get(each.policy, each.policy) for each in replay.recordings]
    shown = range(min(2, len(names)))
    speeds = "".join(
        f'<option value="{speed}"{" selected" if speed == 1 else ""}>{speed:g} x</option>'
        for speed in SPEEDS
    )
    key = "".join(f'<i style="background:{colour}"></i>{what}' for colour, what in KEY)
    network = {key: value for key, value in replay.network.items() if key != "sizes"}
    sizes = np.array(replay.network["sizes"], np.int32)
    recordings = [_packed(each, sizes) for each in replay.recordings]
    data = json.dumps({"network": network, "recordings": recordings}).replace("</", "<\\/")
    head = f"<h2>{html.escape(heading)}</h2>" if heading else ""
    return (
        f'<section class="replay" tabindex="0" aria-label="Replay of the network">{head}'
        f'<div class="controls">'
        f'<button class="play">Play</button>'
        f'<button class="back" aria-label="one tick back">&lsaquo;</button>'
        f'<button class="forward" aria-label="one tick forward">&rsaquo;</button>'
        f'<label>speed <select class="speed">{speeds}</select></label>'
        f'<input type="range" min="0" value="0" step="any" aria-label="time">'
        f'<span class="clock"></span></div>'
        f'<div class="panels">{"".join(_panel(names, number) for number in shown)}</div>'
        f'<p class="key">Mark of a node: darker the fuller its queue, larger the faster. Mark on a '
        f"link: a task, larger the more work; a small square is a result on its way home. {key}. "
        f"A ring around a node: a task lost there. Space plays and pauses, arrows step, a node "
        f"under the pointer tells more.</p>"
        f'<script type="application/json" class="data">{data}</script></section>'
    )


def _panel(names: Sequence[str], chosen: int) -> str:
    options = "".join(
        f"<option{' selected' if number == chosen else ''}>{html.escape(name)}</option>"
        for number, name in enumerate(names)
    )
    head = "".join(f"<th>{column}</th>" for column in COLUMNS)
    return (
        f'<div class="panel"><label>policy <select>{options}</select></label>'
        f'<canvas role="img" aria-label="The network under a policy: queues of its nodes, tasks on '
        f'its links"></canvas><div class="tip" hidden></div>'
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody></tbody></table></div>"
    )


def _packed(recording: Recording, sizes: np.ndarray) -> dict[str, Any]:
    """Return a recording as JSON has it: columns of int32, deflated, as text.

    The value of a birth is the size of its job there.
    """
    columns = to_columns(recording.events)
    born = columns[1] == BORN
    columns[4, born] = sizes[columns[4, born]]
    arrays = {
        "events": list(map(_pack, columns)),
        "nodes": list(map(_pack, recording.nodes.T)),
        "links": list(map(_pack, recording.links.T)),
    }
    made = recording.decisions
    if made is not None:
        scores = (np.rint(1e4 * made.probability), np.rint(1e3 * made.value))
        arrays["decisions"] = list(map(_pack, (*made[:4], *scores)))
    return {
        "policy": recording.policy,
        "window": recording.window,
        "ticks": recording.ticks,
        "arrays": arrays,
    }


def _pack(column: np.ndarray) -> str:
    """Return a column of whole numbers, as the player unpacks it.

    First the lowest bytes of all numbers, then the next: those of small numbers are mostly equal.
    """
    planes = column.astype("<i4").view(np.uint8).reshape(-1, 4).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode()
