"""Heuristics by name, with the errors of settings."""

from collections.abc import Iterable

from fauno_flwr.config.errors import ConfigError
from sim_env.policies.heuristics import Policy, get_policy


def find_heuristic(setting: str, name: str) -> Policy:
    """Return the policy of that name.

    Parameters
    ----------
    setting : str
        Source of the name, for the error message.
    name : str
        As in :func:`sim_env.policies.heuristics.get_policy`.

    Raises
    ------
    ConfigError
        If there is none, or it cannot be imported.
    """
    try:
        return get_policy(name, setting)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def find_heuristics(setting: str, names: Iterable[str]) -> dict[str, Policy]:
    """Return the policies of some names, each once; raises as :func:`find_heuristic`."""
    return {name: find_heuristic(setting, name) for name in dict.fromkeys(names)}
