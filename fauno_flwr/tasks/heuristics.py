"""Heuristics by name: built in, registered by an installed package, or at an import path."""

from collections.abc import Iterable

from fauno_flwr.config.settings import ConfigError
from sim_env.plugins import find
from sim_env.policies.heuristics import POLICIES, Policy

GROUP = "fauno.policies"  # of entry points


def find_heuristic(setting: str, name: str) -> Policy:
    """Return the policy of that name.

    Parameters
    ----------
    setting : str
        Where the name comes from, for the error message.
    name : str
        Such as ``sed``, or ``package.module:attribute``. A class is instantiated without arguments.

    Raises
    ------
    ConfigError
        If there is none, if it cannot be imported, or if it is not callable.
    """
    try:
        found = find(setting, name, POLICIES, GROUP)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:  # whatever the constructor raises
            raise ConfigError(
                f"{setting} is {name!r}: the class cannot be instantiated without arguments "
                f"({error!s})"
            ) from error
    if not callable(found):
        raise ConfigError(
            f"{setting} is {name!r}: must be a function of an observation and a generator"
        )
    policy: Policy = found
    return policy


def find_heuristics(setting: str, names: Iterable[str]) -> dict[str, Policy]:
    """Return the policies of some names, each once; raise as :func:`find_heuristic`."""
    return {name: find_heuristic(setting, name) for name in dict.fromkeys(names)}
