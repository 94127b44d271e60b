"""A line on standard error when kernels are compiled."""

import logging

import typer

LINE = "compiling the simulator for this machine, once: about 30 s"


class CompilationNotice(logging.Handler):
    """Handler of the compilation log that prints one line per process."""

    shown = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line, unless it has been printed."""
        if not self.shown:
            self.shown = True
            typer.echo(LINE, err=True)


def show_compilation() -> None:
    """Print a line when, and only when, a kernel is compiled in this process."""
    # By name: importing the module would import numba, which --help does not need.
    logger = logging.getLogger("sim_env.engine.compilation")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [CompilationNotice()]
