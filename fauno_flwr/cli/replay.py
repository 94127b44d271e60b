"""The command ``fauno replay``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fauno_flwr.cli.options import Best, Conf, joined, split_names
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig, require_different

if TYPE_CHECKING:
    from sim_env.replay.files import Replay

SUFFIXES = (".html", ".gif", "")
STEP = 0.5  # seconds of the network between two frames
FRAMES_PER_SECOND = 10.0
MOST_FRAMES = 2000


def replay(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] [KEY=VALUE]...",
            help="Folder of a run, whose agents act; settings to change, such as workload.rate=1.",
        ),
    ] = None,
    conf: Conf = "ether2",
    policies: Annotated[
        str | None,
        typer.Option(
            help="Policies, separated by commas, such as fauno,sed; default: fauno, if there is a "
            "run, and evaluation.policies."
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .html for the player, .gif for slides, no suffix for a new folder "
            "of PNG files."
        ),
    ] = Path("replay.html"),
    seconds: Annotated[
        str | None,
        typer.Option(help="Part of the network's time in a .gif or PNG files, such as 60:90."),
    ] = None,
    best: Best = False,
) -> None:
    """Show a network at work under several policies, on the same arrivals, side by side."""
    settings = list(arguments or [])
    run = Path(settings.pop(0)).expanduser() if settings and "=" not in settings[0] else None
    path = out.expanduser().absolute()
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"out is {str(out)!r}: must end in .html or .gif, or be a new folder")
    if not path.parent.is_dir():
        raise ConfigError(f"out is {str(out)!r}: must be in a folder that exists")
    if seconds is not None and out.suffix == ".html":
        raise ConfigError(f"seconds is {seconds!r}: has no effect on .html, must be left out")
    if best and run is None:
        raise ConfigError("best is set: has no effect without the folder of a run")
    from fauno_flwr.learning.policy import FAUNO

    names = None if policies is None else split_names(policies)
    if names is not None:
        require_different("policies", names)
        if FAUNO in names and run is None:
            raise ConfigError(f"policies is {policies!r}: {FAUNO} needs the folder of a run")
        settings.append(f"evaluation.policies={joined(n for n in names if n != FAUNO)}")
    if run is not None:
        from fauno_flwr.tasks.trained import read_settings

        read_settings(run)
        conf = str(run / "config.yaml")
    config = load_config(conf, settings, "replay")
    found = _record(config, run, names, best)
    title = f"Replay of {conf if run is None else run.name}"
    try:
        if path.suffix == ".html":
            from sim_env.replay.page import replay_page

            path.write_text(replay_page(found, title, {FAUNO: "FAuNO"}))
        else:
            _draw(config, found, path, seconds)
    except OSError as error:
        raise ConfigError(f"out is {str(out)!r}: cannot be written ({error.strerror})") from error
    typer.echo(f"replay of {', '.join(each.policy for each in found.recordings)} in {path}")


def _record(config: RunConfig, run: Path | None, names: list[str] | None, best: bool) -> "Replay":
    """Record the first world of the evaluation under the policies."""
    from fauno_flwr.learning.policy import FAUNO
    from fauno_flwr.tasks.heuristics import find_heuristics
    from sim_env.replay.files import record_policies

    scenario, evaluation = config.build_scenario(), config.evaluation
    policies, scores = dict(find_heuristics("policies", evaluation.policies)), {}
    if run is not None and (names is None or FAUNO in names):
        from fauno_flwr.tasks.trained import read_actors, read_settings, transferred

        actors = read_actors(run, best=best)
        agents = transferred(read_settings(run), actors, config, scenario, config.seed)
        acting = agents.policy(scenario.agent_of_node, evaluation.greedy)
        policies = {FAUNO: acting, **policies}
        scores = {FAUNO: agents.scores(scenario.agent_of_node)}
    if names is not None:
        policies = {name: policies[name] for name in names}
    if not policies:
        raise ConfigError("evaluation.policies is []: there is nothing to show")
    return record_policies(
        scenario,
        policies,
        evaluation.seed,
        warmup=evaluation.warmup,
        window=evaluation.window,
        scores=scores,
    )


def _draw(config: RunConfig, found: "Replay", path: Path, seconds: str | None) -> None:
    """Draw the first two recordings into a GIF or a new folder."""
    import numpy as np

    from fauno_flwr.results.report import title
    from sim_env.envs.render import save_frames
    from sim_env.network.topology import build_topology
    from sim_env.replay.frames import frames, save_gif

    tick = config.physics.tick
    end = max(recording.ticks for recording in found.recordings) * tick
    start, stop = (0.0, end) if seconds is None else _span(seconds, end)
    times = np.arange(start, stop, STEP)
    if len(times) > MOST_FRAMES:
        raise ConfigError(
            f"seconds is {start:g}:{stop:g}: must be at most {MOST_FRAMES * STEP:g} seconds"
        )
    titled = [(title(each.policy), each) for each in found.recordings[:2]]
    drawn = frames(build_topology(config.topology), titled, tick, times.tolist())
    if path.suffix == ".gif":
        save_gif(drawn, path, FRAMES_PER_SECOND)
        return
    try:
        save_frames(drawn, path)
    except FileExistsError as error:
        raise ConfigError(f"out is {str(path)!r}: {error}") from error


def _span(text: str, end: float) -> tuple[float, float]:
    """Return the start and the end of a part of the time such as ``60:90``."""
    try:
        start, stop = (float(part) for part in text.split(":"))
    except ValueError:
        start, stop = 1.0, 0.0
    if not 0 <= start < stop <= end:
        raise ConfigError(
            f"seconds is {text!r}: must be START:STOP between 0 and {end:g}, such as 60:90"
        )
    return start, stop
