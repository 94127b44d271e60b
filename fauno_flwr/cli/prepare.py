"""The command ``fauno prepare``."""

from typing import TYPE_CHECKING, Annotated

import typer

from fauno_flwr.config.loading import load_config

if TYPE_CHECKING:
    import numpy as np

    from sim_env.engine.observation import Observation

# A reward in Python is what makes the loop over ticks one in Python.
OWN_REWARD = f"reward.kind={__name__}:no_reward"
Settings = tuple[str, list[str]]  # preset and overrides
COMMON: dict[str, Settings] = {"ether2": ("ether2", [])}
RARE: dict[str, Settings] = {
    "peersimgym": ("peersimgym", []),
    "own reward": ("ether2", [OWN_REWARD]),
}


def prepare(
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Also those that few runs use: quirks of PeersimGym, own rewards."
        ),
    ] = False,
) -> None:
    """Compile the kernels once for this machine, so that no run has to."""
    typer.echo("loading numba and torch", err=True)
    from fauno_flwr.cosim.links import compile_links
    from fauno_flwr.learning.kernels import PARTS, compile_kernels
    from sim_env.engine.compilation import cache_root

    compile_links()
    chosen = {**COMMON, **(RARE if every else {})}
    for i, (title, (conf, overrides)) in enumerate(chosen.items()):

        def report(part: str, title: str = title, before: int = i * len(PARTS)) -> None:
            number = before + PARTS.index(part) + 1
            typer.echo(f"{number}/{len(chosen) * len(PARTS)} {title}: {part}", err=True)

        config = load_config(conf, overrides)
        compile_kernels(config, config.build_scenario(), report)
    typer.echo(f"compiled kernels are in {cache_root()}")


def no_reward(observation: "Observation") -> "np.ndarray":
    """Earn nothing with any action; array of float, shape (R, K)."""
    return observation.mask * 0.0
