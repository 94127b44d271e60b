"""The reports: of a run, of runs side by side, of one training with several seeds."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.results.directory import write_atomically
from fauno_flwr.results.html.charts import Section
from fauno_flwr.results.html.experiment import experiment_page
from fauno_flwr.results.html.federation import federation_section
from fauno_flwr.results.html.files import RunFiles, read_run
from fauno_flwr.results.html.flow import flow_section, replay_part
from fauno_flwr.results.html.folders import (
    EXPERIMENT,
    SEEDS,
    kind_of,
    read_summary,
    require_kinds,
    seed_folders,
)
from fauno_flwr.results.html.learning import learning_section
from fauno_flwr.results.html.notices import notices
from fauno_flwr.results.html.page import make_page
from fauno_flwr.results.html.privacy import privacy_section
from fauno_flwr.results.html.several import linked, side_by_side
from fauno_flwr.results.html.summary import comparison, summary_section
from sim_env.errors import shown

FILE = "report.html"


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of a run, an experiment, or several runs.

    Parameters
    ----------
    folders : sequence of Path
        Several must be runs.
    out : Path, optional
        The file; default ``report.html`` in the folder of the first one, or ``report-N.html`` of N
        runs.

    Raises
    ------
    ConfigError
        If a folder holds something else, or the file cannot be written.
    """
    require_kinds(list(folders))
    kind = kind_of(folders[0])
    name = FILE if len(folders) == 1 else f"report-{len(folders)}.html"
    path = folders[0] / name if out is None else out
    if len(folders) > 1:
        page = runs_page(folders, path)
    elif kind == EXPERIMENT:
        page = experiment_page(folders[0])
    elif kind == SEEDS:
        page = seeds_page(folders[0], path)
    else:
        page = run_page(folders[0])
    try:
        return write_atomically(path, page)
    except OSError as error:
        raise ConfigError(
            f"out is {shown(str(path))}: cannot be written ({error.strerror})"
        ) from error


def run_page(folder: Path) -> str:
    """Return the report of one run."""
    run = read_run(folder)
    sections: list[Section | None] = [
        summary_section(run),
        learning_section([run], [run.name]),
        federation_section(run),
        privacy_section(run),
    ]
    warnings = notices(run)
    try:
        replay = run.read_replay()
    except ValueError as error:
        warnings.append(f"There is no replay: {error}.")
        replay = None
    if replay is not None and replay.recordings:
        sections += [replay_part(replay), flow_section(replay)]
    return make_page(run.name, _lead(run), warnings, _present(sections))


def runs_page(folders: Sequence[Path], path: Path) -> str:
    """Return the report of runs side by side, which will be written to `path`."""
    runs = [read_run(folder) for folder in folders]
    names = _names(folders)
    sections = [side_by_side(runs, names, _links(folders, path)), learning_section(runs, names)]
    lead = f"{len(runs)} runs: {', '.join(names)}."
    return make_page(" and ".join(names), lead, _warnings(runs, names), _present(sections))


def seeds_page(folder: Path, path: Path) -> str:
    """Return the report of the trainings of one command, which will be written to `path`."""
    folders = seed_folders(folder)
    runs, names = [read_run(each) for each in folders], [each.name for each in folders]
    found = read_summary(folder)
    links = _links(folders, path)
    warnings = _warnings(runs, names)
    if found:
        over = "over seeds and worlds" if len(runs) > 1 else "over worlds only"
        rest = (
            f'<p class="quiet">Offered load {found["rho"]:.3f}. Intervals of FAuNO: {over}; of the '
            f"others: over worlds.</p>"
        )
        parts = [*comparison(found["table"], found["rho"]), rest, linked(names, links)]
        sections: list[Section | None] = [Section("summary", "Summary", parts)]
    else:
        warnings.insert(0, "Not all seeds have finished: there is no common table yet.")
        sections = [side_by_side(runs, names, links)]
    sections.append(learning_section(runs, names))
    lead = f"The same training with {len(runs)} seeds: {', '.join(names)}."
    return make_page(folder.name, lead, warnings, _present(sections))


def _lead(run: RunFiles) -> str:
    """Describe a run in one sentence."""
    settings = run.settings
    if settings.get("world.kind") == "gym":
        where = f"each in {settings['world.env_id']}"
    else:
        where = f"in a network of the kind {settings.get('topology.kind')}"
    nodes = len({event["name"] for event in run.events if event["event"] == "dispatch"})
    share = settings.get("federation.share")
    return (
        f"{nodes} nodes learn {where} with {str(settings.get('agent.algorithm', '')).upper()}"
        f"{f' and share their {share}' if share != 'nothing' else ''}; {run.state}."
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the names of folders, with those above them where they are equal."""
    counts = Counter(folder.name for folder in folders)
    return [
        folder.name if counts[folder.name] == 1 else f"{folder.parent.name}/{folder.name}"
        for folder in folders
    ]


def _links(folders: Sequence[Path], path: Path) -> list[str | None]:
    """Return the reports in folders, seen from that of `path`; None where there is none."""
    return [
        os.path.relpath(folder / FILE, path.parent) if (folder / FILE).is_file() else None
        for folder in folders
    ]


def _warnings(runs: Sequence[RunFiles], names: Sequence[str]) -> list[str]:
    return [
        f"{name}: {text}" for run, name in zip(runs, names, strict=True) for text in notices(run)
    ]


def _present(sections: Sequence[Section | None]) -> list[Section]:
    return [section for section in sections if section is not None]
