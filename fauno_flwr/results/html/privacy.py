"""The section of privacy: epsilon and the noise over the versions, and what epsilon protects."""

from html import escape

import numpy as np
from bokeh.models import ColumnDataSource

from fauno_flwr.results.html.charts import Chart, Section, add_hover, count_whole, make_plot, short
from fauno_flwr.results.html.files import RunFiles
from fauno_flwr.results.status import privacy
from strategies.privacy import signal_to_noise

COLOUR = "#0072B2"
OPEN_END = (
    "Metrics, the event log, and which nodes take part in which version are not protected, nor are "
    "actors that are collected."
)


def privacy_section(run: RunFiles) -> Section | None:
    """Return the section; None for a run without privacy, or before its first version."""
    flushes = [e for e in run.events if e["event"] == "flush" and "epsilon" in e]
    spent = privacy(run.events)
    if not flushes or spent is None:
        return None
    told = "Epsilon {epsilon:.4g} at delta {delta:g} protects {protects}.".format(**spent)
    if "message_epsilon" in flushes[-1]:
        told += f" Of a single message it is {flushes[-1]['message_epsilon']:.4g}."
    versions = np.array([event["version"] for event in flushes], np.int32)
    epsilon = np.array([event["epsilon"] for event in flushes], float)
    most = float(run.settings.get("federation.privacy.max_epsilon") or 0.0)
    charts = [_curve(versions, epsilon, "epsilon", _about(spent["protects"], epsilon, most), most)]
    noisy = [e for e in flushes if "noise_norm" in e]  # earlier versions of the app left it out
    if noisy:
        ratios = [signal_to_noise([e["merged_norm"]], [e["noise_norm"]]) for e in noisy]
        at = np.array([event["version"] for event in noisy], np.int32)
        mean = signal_to_noise(*([e[key] for e in noisy] for key in ("merged_norm", "noise_norm")))
        text = f"Signal to noise of the merged update, estimated; {mean:.2g} over all versions"
        charts.append(_curve(at, np.array(ratios), "signal to noise", text))
    clips = {event["version"]: event["clip"] for event in noisy if "clip" in event}
    if len(set(clips.values())) > 1:  # one that adapts
        at, values = np.array(list(clips), np.int32), np.array(list(clips.values()))
        text = f"Norm to which updates are clipped; {values[-1]:.3g} in the end"
        charts.append(_curve(at, values, "clip", text))
    return Section("privacy", "Privacy", [f"<p>{escape(told)} {OPEN_END}</p>", charts])


def _about(protects: str, epsilon: np.ndarray, most: float) -> str:
    budget = f" of at most {most:g}" if most else ""
    return f"Epsilon by version, {epsilon[-1]:.4g} in the end{budget}; it protects {protects}"


def _curve(
    versions: np.ndarray, values: np.ndarray, label: str, text: str, most: float = 0
) -> Chart:
    """Chart values by version, with a line at the largest one that is allowed."""
    source = ColumnDataSource({"version": versions, "value": short(values)})
    plot = make_plot("version", label, height=240)
    count_whole(plot)
    plot.line("version", "value", source=source, color=COLOUR)
    dots = plot.scatter("version", "value", source=source, size=5, color=COLOUR)
    add_hover(plot, dots, [("version", "@version"), (label, "@value{0.000}")])
    if most:
        plot.hspan(y=[most], line_color="#D55E00", line_dash="dashed")
    plot.y_range.start = 0
    note = text.partition("; ")[2]
    return Chart(plot, label.capitalize(), text, note=note)
