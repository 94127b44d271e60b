"""The command ``fauno report``."""

from pathlib import Path
from typing import Annotated

import typer

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.results.html.folders import require_kinds

WithReport = Annotated[
    bool,
    typer.Option("--report/--no-report", help="Write report.html beside the results at the end."),
]


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folder of a run, of train --seeds or of an experiment; or of several runs, which "
            "are compared.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file; default: report.html in the folder, of N runs report-N.html in that of "
            "the first."
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Serve it on this machine, anew as the run goes on, until it has ended.",
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(help="With --follow; 0: any that is free.", min=0, max=65535)
    ] = 0,
) -> None:
    """Write a run as one HTML file: summary, curves, messages, a replay of its network."""
    folders = [run.expanduser().absolute() for run in runs]
    if follow and len(folders) > 1:
        raise ConfigError(f"--follow takes one run, not {len(folders)}")
    if port and not follow:
        raise ConfigError(f"port is {port}: has no effect without --follow")
    path = out.expanduser().absolute() if out else None
    require_kinds(folders)
    if path is not None and not path.parent.is_dir():
        raise ConfigError(f"out is {str(out)!r}: must be a file in a folder that exists")
    # After the folders are checked: importing the library of the charts takes seconds.
    if follow:
        from fauno_flwr.results.html.live import serve_report

        serve_report(folders[0], port, lambda address: typer.echo(address, err=True))
    from fauno_flwr.results.html.report import write_report

    written = write_report(folders, path)
    typer.echo(f"{written} ({written.stat().st_size / 2**20:.1f} MB)")


def report_at_end(folder: Path, wanted: bool) -> None:
    """Write the report of a run that is over, if it is wanted; a failure is a warning."""
    if not wanted:
        return
    from fauno_flwr.federation.summary import attempt

    def write() -> Path:
        from fauno_flwr.results.html.report import write_report

        return write_report([folder])

    attempt("report.html", write)
