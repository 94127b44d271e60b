"""The command ``fauno``."""

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from fauno_flwr import deploy_command, world_command
from fauno_flwr.config import ConfigError, RunConfig, load_config
from fauno_flwr.cosim_command import evaluate, train
from fauno_flwr.experiment_command import experiment
from fauno_flwr.peersimgym_command import peersimgym
from fauno_flwr.status import status
from sim_env.errors import require_choice
from sim_env.policies import POLICIES

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
deploy = typer.Typer(no_args_is_help=True, help="Deployments: SuperLink, SuperNodes, TLS, keys.")
app.add_typer(deploy, name="deploy")
world = typer.Typer(no_args_is_help=True, help="One world that all nodes share, as a service.")
app.add_typer(world, name="world")
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as workload.rate=1."),
]
BAD_INPUT, FAILED = 2, 1


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"fauno-flwr {version('fauno-flwr')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Asynchronous federated reinforcement learning of task offloading (FAuNO) on Flower."""


def command(function: Callable[..., None], group: typer.Typer = app) -> Callable[..., None]:
    """Register a command; bad input becomes one sentence and exit code 2."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except ConfigError as error:
            typer.echo(f"fauno: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from None

    group.command()(guarded)
    return guarded


@command
def simulate(
    overrides: Overrides = None,
    conf: Annotated[str, typer.Option(help="Preset of conf/, or path of a YAML file.")] = "ether2",
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for the results; default results/<preset>-<time>."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Nodes that train at once; default: one per core.", min=1)
    ] = None,
) -> None:
    """Train a federation through Flower's simulation engine and print the comparison."""
    from fauno_flwr.launcher import Engine, EngineError, stage_app
    from fauno_flwr.results import RunDirectory

    # All nodes of a simulation are ours: their actors may be gathered, unless the user says no.
    overrides = ["federation.collect_actors=true", *(overrides or [])]
    config = load_config(conf, overrides)
    from fauno_flwr.tasks import make_task

    task = make_task(config)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = (out or Path("results") / f"{Path(conf).stem}-{stamp}").expanduser().absolute()
    RunDirectory.check(path)
    agents, cores = len(task.names), len(os.sched_getaffinity(0))
    typer.echo(f"{agents} nodes learn, {task.describe()}; results in {path}")
    _stop_on_signals()
    if Path(conf).suffix:
        conf = str(Path(conf).absolute())
    run_config = {"conf": conf, "overrides": shlex.join(overrides), "out": str(path)}
    try:
        with Engine() as engine:
            staged = stage_app(engine.home / "app")
            run_id = engine.submit(staged, run_config, agents, min(agents, workers or cores))
            follow = Progress(path, agents, config)
            status, details = follow.until_the_end(lambda: engine.status(run_id))
            if status != "finished:completed":
                log = (path if path.is_dir() else Path.cwd()) / "flower.log"
                log.write_text(engine.run_log(run_id) + engine.tail(100_000))
                raise EngineError(f"the run ended as {status}: {details} (log: {log})")
    except EngineError as error:
        typer.echo(f"fauno: {error}", err=True)
        raise typer.Exit(FAILED) from None
    _print_results(path, config)


def _stop_on_signals() -> None:
    """Turn a termination into an ordinary exit, so that everything started is stopped."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # once is enough: stopping takes a moment
        typer.echo(f"\nfauno: stopped by {signal.Signals(number).name}", err=True)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, stop)


class Progress:
    """Tells how far a run is, from the events that its server writes.

    Parameters
    ----------
    path : Path
        Folder of the run.
    agents : int
        Nodes that learn.
    config : RunConfig
    """

    POLL, QUIET = 0.5, 6.0

    def __init__(self, path: Path, agents: int, config: RunConfig) -> None:
        self.events, self.agents, self.versions = (
            path / "events.jsonl",
            agents,
            config.federation.versions,
        )
        self.offset, self.stage, self.version, self.heard = 0, "starting Flower", 0, set[str]()
        self.live = sys.stderr.isatty()
        self.training_since = 0.0

    def until_the_end(self, status: Callable[[], tuple[str, str]]) -> tuple[str, str]:
        """Wait until the run has finished; returns its status.

        Parameters
        ----------
        status : callable
            Asks the engine, which takes a second: done only when the events do not tell.
        """
        last_news = last_asked = last_shown = time.monotonic()
        shown = ""
        while True:
            time.sleep(self.POLL)
            now = time.monotonic()
            if self._read():
                last_news = now
            text = self._text(now)
            if text != shown and (self.live or now - last_shown > 5 or self.stage not in shown):
                typer.echo(f"\r\033[K{text}" if self.live else text, err=True, nl=not self.live)
                shown, last_shown = text, now
            quiet = now - max(last_news, last_asked) > self.QUIET
            if self.stage == "done" or quiet:
                answer, last_asked = status(), now
                if answer[0].startswith("finished") or answer[0] == "unknown":
                    if self.live:
                        typer.echo("\r\033[K", err=True, nl=False)
                    return answer

    def _read(self) -> bool:
        """Take in new events; returns whether there were any."""
        if not self.events.exists():
            return False
        with self.events.open() as file:
            file.seek(self.offset)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self.offset += len(whole.encode())
        for line in whole.splitlines():
            event = json.loads(line)
            if event["event"] == "stage":
                self.stage = event["stage"]
                if self.stage == "training":
                    self.training_since = time.monotonic()
            elif event["event"] == "reply":
                self.heard.add(event["name"])
            elif event["event"] == "flush":
                self.version = event["version"]
        return bool(whole)

    def _text(self, now: float) -> str:
        if self.stage != "training":
            return f"{self.stage} ..."
        text = (
            f"training: {len(self.heard)}/{self.agents} nodes heard, "
            f"version {self.version}/{self.versions}"
        )
        if self.version:
            left = (now - self.training_since) / self.version * (self.versions - self.version)
            text += f", {left:.0f} s left"
        return text


@command
def compare(
    overrides: Overrides = None,
    scenario: Annotated[
        str, typer.Option(help="Preset of conf/, or path of a YAML file.")
    ] = "ether2",
    policies: Annotated[
        str | None, typer.Option(help="Heuristics, separated by commas; default: all.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Worlds with different arrivals; default: 16.", min=1)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the tables (JSON, CSV) and the figure.")
    ] = None,
) -> None:
    """Compare heuristics on the same arrivals, without Flower."""
    extra = [] if seeds is None else [f"evaluation.worlds={seeds}"]
    if policies is not None:
        names = [name.strip() for name in policies.split(",")]
        for name in names:
            _require_policy(name)
        extra.append(f"evaluation.policies=[{','.join(names)}]")
    config = load_config(scenario, [*(overrides or []), *extra])
    names = list(dict.fromkeys(config.evaluation.policies))
    if not names:
        raise ConfigError(f"evaluation.policies is []: must be some of {', '.join(POLICIES)}")
    world = config.build_scenario()
    from fauno_flwr.comparison import compare_policies
    from fauno_flwr.results import RunDirectory

    directory = RunDirectory(out.expanduser().absolute()) if out else None
    compare_policies(config, world, {name: POLICIES[name] for name in names}, directory)


def _require_policy(name: str) -> None:
    try:
        require_choice("policies", name, POLICIES)
    except ValueError as error:
        raise ConfigError(str(error)) from error


command(train)
command(evaluate)
command(experiment)
command(peersimgym)
command(status)
for _subcommand in (deploy_command.local, deploy_command.certificates, deploy_command.key):
    command(_subcommand, deploy)
command(world_command.serve, world)
command(world_command.status, world)


@command
def prepare() -> None:
    """Compile the kernels once for this machine, so that no run has to."""
    import numpy as np

    from fauno_flwr.config import AgentConfig
    from fauno_flwr.population import Population
    from sim_env.compiled import cache_root
    from sim_env.world import World

    world = World("ether2", [0])
    world.run(POLICIES["sed"], 100, np.random.default_rng(0))
    Population(1, AgentConfig(), 0).policy().drive(world, 100)
    while not len(seen := world.observe()):
        world.step(np.zeros((1, world.num_nodes), np.int32))
    seen.features()
    typer.echo(f"compiled kernels are in {cache_root()}")


def _print_results(path: Path, config: RunConfig) -> None:
    from fauno_flwr.report import format_rows

    summary = json.loads((path / "summary.json").read_text())
    if summary["table"]:
        typer.echo(format_rows(summary["table"], summary["rho"], config.evaluation.worlds))
    seconds = summary["seconds"]["since_start"]
    trained = seconds["collecting" if "collecting" in seconds else "evaluating"]
    trained -= seconds["training"]
    typer.echo(f"\n{summary['versions']} critic versions in {trained:.0f} s of training; wrote")
    for file in sorted(path.rglob("*")):
        if file.is_file():
            typer.echo(f"  {file}")
