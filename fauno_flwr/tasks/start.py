"""Version 0 of the shared parameters: initial ones, or those of an earlier run."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.agents import AgentStack, Arrays


def first_version(config: RunConfig, untrained: AgentStack) -> Arrays:
    """Return version 0 of the shared parameters: of ``federation.start``, if it is set.

    Parameters
    ----------
    config : RunConfig
    untrained : AgentStack
        Agents of these settings.

    Raises
    ------
    ConfigError
        If the file cannot be read, or has other arrays than these agents share.
    """
    initial = untrained.get_shared(config.federation.share)
    start = config.federation.start
    if not start:
        return initial
    name = f"federation.start is {start!r}"
    if not Path(start).is_file():
        raise ConfigError(f"{name}: must be a file, as checkpoints/critic.safetensors of a run")
    try:
        found = load_file(start)
    except Exception as error:  # of safetensors, of several classes
        raise ConfigError(f"{name}: cannot be read: {error}") from error
    for key in sorted(initial.keys() | found.keys()):
        theirs, ours = (arrays.get(key) for arrays in (found, initial))
        if theirs is None or ours is None or theirs.shape != ours.shape:
            raise ConfigError(
                f"{name}: its array {key} {_shape(theirs)}, and here {_shape(ours)}: must be of a "
                f"run with the same agent, observation and federation.share"
            )
        if not np.isfinite(theirs).all():
            raise ConfigError(f"{name}: its array {key} has values that are not finite")
    return {key: found[key].astype(array.dtype) for key, array in initial.items()}


def start_agents(config: RunConfig, untrained: AgentStack) -> AgentStack:
    """Give every agent version 0 of the shared parameters, if they are an earlier run's.

    Parameters and errors as of :func:`first_version`.

    Returns
    -------
    AgentStack
        `untrained`, as its agents act before their first update.
    """
    if config.federation.start:
        arrays = first_version(config, untrained)
        for agent in range(untrained.agents):
            untrained.set_shared(arrays, agent)
    return untrained


def _shape(array: np.ndarray | None) -> str:
    return "is missing" if array is None else f"has the shape {array.shape}"
