"""The command ``fauno``, assembled of its subcommands."""

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.utils import get_params_from_function

from fauno_flwr import __version__
from fauno_flwr.cli import deploy, topology, world
from fauno_flwr.cli.compare import compare
from fauno_flwr.cli.compilation import show_compilation
from fauno_flwr.cli.config import config
from fauno_flwr.cli.evaluate import evaluate
from fauno_flwr.cli.experiment import experiment
from fauno_flwr.cli.export import export
from fauno_flwr.cli.metrics import metrics
from fauno_flwr.cli.options import BAD_INPUT, FAILED
from fauno_flwr.cli.peersimgym import peersimgym
from fauno_flwr.cli.prepare import prepare
from fauno_flwr.cli.replay import replay
from fauno_flwr.cli.report import report
from fauno_flwr.cli.simulate import simulate
from fauno_flwr.cli.status import status
from fauno_flwr.cli.train import train
from fauno_flwr.config.errors import ConfigError
from sim_env.plugins import search_in


class Commands(TyperGroup):
    """The commands; wrong arguments are one sentence, like wrong settings."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; parameters as of :meth:`click.Command.main`."""
        run = partial(super().main, args, prog_name, complete_var, False, windows_expand_args)
        if not standalone_mode:
            return run(**extra)
        try:
            code = run(**extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            # Both typer and click may suggest the same name.
            parts = dict.fromkeys(" ".join(error.format_message().split()).split(" Did you "))
            typer.echo(f"fauno: {' Did you '.join(parts)}", err=True)
            code = error.exit_code
        except click.Abort:
            code = FAILED
        sys.exit(code)


class Command(TyperCommand):
    """A command whose arguments have their help also with click 8.5.

    Its arguments have a help of their own, which overwrites with nothing what the versions of typer
    that Flower admits (before 0.21) have stored there.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        declared = get_params_from_function(options["callback"])
        for parameter in self.params:
            if isinstance(parameter, TyperArgument) and parameter.name is not None:
                parameter.help = declared[parameter.name].default.help


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
deployments = typer.Typer(
    no_args_is_help=True, help="Deployments: SuperLink, SuperNodes, TLS, keys."
)
worlds = typer.Typer(no_args_is_help=True, help="One world that all nodes share, as a service.")
topologies = typer.Typer(
    no_args_is_help=True, help="Networks of your own: from files, as tables, as pictures."
)
app.add_typer(deployments, name="deploy")
app.add_typer(topologies, name="topology")
app.add_typer(worlds, name="world")
COMMANDS: dict[typer.Typer, tuple[Callable[..., None], ...]] = {
    app: (
        simulate,
        compare,
        train,
        evaluate,
        replay,
        export,
        experiment,
        config,
        peersimgym,
        report,
        status,
        metrics,
        prepare,
    ),
    deployments: (deploy.local, deploy.certificates, deploy.key, deploy.worker),
    topologies: (topology.from_graphml, topology.from_edges, topology.show, topology.schema),
    worlds: (world.serve, world.token, world.status),
}


def print_version(requested: bool) -> None:
    """Print the version and exit, if requested."""
    if requested:
        typer.echo(f"fauno-flwr {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Asynchronous federated reinforcement learning of task offloading (FAuNO) on Flower."""
    # Names such as my_rule:MyRule may be modules of the working directory.
    search_in(Path.cwd())
    show_compilation()


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """Turn bad input of a command into one sentence and exit code 2."""

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except ConfigError as error:
            typer.echo(f"fauno: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from None

    return command


for group, functions in COMMANDS.items():
    for each in functions:
        group.command(cls=Command)(guarded(each))
