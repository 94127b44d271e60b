"""Rules of the strategy by name and parameters: staleness, merge, server optimiser, compression.

In the settings, a rule is a name (``mean``), or a mapping of its name and parameters
(``{name: trimmed-mean, fraction: 0.1}``). A name is built in, registered as an entry point, or an
import path: of a class, which is built from the parameters, or of any other object, which is the
rule itself, such as a function of the staleness.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim_env import plugins
from strategies.compression import Int8, TopK
from strategies.merge import Mean, Median, NormFiltered, TrimmedMean
from strategies.optimizers import SGD, Adam
from strategies.staleness import Constant, CutOff, Hinge, Polynomial

NAME = "name"


@dataclass(frozen=True)
class Kind:
    """A kind of rule.

    Parameters
    ----------
    setting : str
        Key of the setting.
    known : mapping of str to class
        The built-in rules; None stands for no rule.
    group : str
        Entry-point group.
    """

    setting: str
    known: Mapping[str, type | None]
    group: str


STALENESS = Kind(
    "federation.staleness",
    {"constant": Constant, "polynomial": Polynomial, "hinge": Hinge, "cut-off": CutOff},
    "fauno.staleness",
)
MERGE = Kind(
    "federation.merge",
    {
        "mean": Mean,
        "trimmed-mean": TrimmedMean,
        "median": Median,
        "norm-filtered": NormFiltered,
    },
    "fauno.merge",
)
SERVER_OPTIMIZER = Kind(
    "federation.server_optimizer", {"sgd": SGD, "adam": Adam}, "fauno.server_optimizers"
)
COMPRESSION = Kind(
    "federation.compression",
    {"none": None, "top-k": TopK, "8-bit": Int8},
    "fauno.compressions",
)


def split(kind: Kind, rule: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the parameters of a rule.

    Raises
    ------
    ValueError
        If it is neither a name nor a mapping with one.
    """
    if isinstance(rule, str):
        return rule, {}
    if isinstance(rule, Mapping) and isinstance(rule.get(NAME), str):
        return rule[NAME], {str(key): value for key, value in rule.items() if key != NAME}
    raise ValueError(
        f"{kind.setting} is {rule!r}: must be a name, or a mapping with a {NAME} and parameters"
    )


def validate(kind: Kind, rule: Any) -> None:
    """Raise ``ValueError`` for a rule that cannot be built; imports nothing.

    The parameters of a rule that is not built in are checked when it is built: only the server
    needs the code.
    """
    name, _ = split(kind, rule)
    plugins.require_name(kind.setting, name, kind.known, kind.group)
    if name in kind.known:
        build(kind, rule)


def build(kind: Kind, rule: Any) -> Any:
    """Build a rule.

    Raises
    ------
    ValueError
        For an unknown name, a code that cannot be imported, or parameters that do not fit.
    """
    name, parameters = split(kind, rule)
    found = plugins.find(kind.setting, name, kind.known, kind.group)
    if not isinstance(found, type):
        if parameters:
            raise ValueError(
                f"{kind.setting}: {name} has no parameters, but {', '.join(parameters)} is set"
            )
        return found
    signature = inspect.signature(found)
    try:
        signature.bind(**parameters)
    except TypeError as error:
        allowed = ", ".join(signature.parameters) or "none"
        raise ValueError(f"{kind.setting}.{name}: {error}; its parameters: {allowed}") from None
    try:
        return found(**parameters)
    except ValueError as error:
        raise ValueError(f"{kind.setting}.{error}") from error
