"""Export of actors: arrays, their sizes and features, and a loader that needs only numpy."""

import io
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from scipy.linalg import block_diag

from fauno_flwr.config.agent import EQUIVARIANT, PADDED
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import GYM, RunConfig
from fauno_flwr.learning.agents import Arrays
from fauno_flwr.learning.networks import Widths
from fauno_flwr.results.directory import RunDirectory, write_atomically
from fauno_flwr.tasks import load_actor
from fauno_flwr.tasks.registry import make_task
from sim_env.engine.features import OBSERVATIONS, find_encoding

FORMAT = 1
LOGITS, VALUES = "logits", "action values"
# Names of the features, in their order; times in ticks.
FEATURES = {
    "full": {
        "local": [
            "1",
            "tasks / capacity",
            "log1p(undecided tasks) / 4",
            "log2(speed / 2e7) / 4",
            "log1p(execution here) / 4",
            "log1p(megabytes of input) / 4",
            "min(ticks to the deadline / 300, 3)",
            "hops / 4",
            "decided tasks / capacity",
            "incoming tasks per tick",
            "min(legal actions / 10, 10)",
            "log1p(backlog) / 5",
        ],
        "destinations": [
            "queue / capacity",
            "log1p(queue) / 4",
            "log2(speed / 2e7) / 4",
            "log1p(execution) / 4",
            "log1p(wait) / 4",
            "log1p(transfer there and back) / 4",
            "is this node",
            "log1p(delay) / 4; delay = wait + execution + transfer there and back",
            "the task came from there",
            "min(delay / 100, 6) / 2",
        ],
    },
    "paper": {
        "local": [
            "1",
            "queue / capacity",
            "log2(speed / 2e7) / 4",
            "min(legal actions / 10, 10)",
            "log1p(execution here) / 4",
            "log1p(megabytes of input) / 4",
            "log1p(megabytes of output) / 4",
        ],
        "destinations": ["queue / capacity", "free places / capacity", "is this node"],
    },
}


@dataclass(frozen=True)
class Exported:
    """Actors to export.

    Parameters
    ----------
    actors : mapping of str to dict of str to array
        By name.
    observation : str
        Name of the observation; the id of an environment of gymnasium after training in one.
    widths : Widths
        Numbers of features.
    scores : str
        ``logits``, whose softmax are the probabilities, or ``action values``.
    """

    actors: Mapping[str, Arrays]
    observation: str
    widths: Widths
    scores: str


def of_run(config: RunConfig, actors: Mapping[str, Arrays]) -> Exported:
    """Return the actors of a run for export."""
    population = make_task(config).make_population(1)
    scores = LOGITS if population.exploration()[0] else VALUES
    observation = config.world.env_id if config.world.kind == GYM else config.observation
    single = {name: one_network(actor, population.acting) for name, actor in actors.items()}
    return Exported(single, observation, population.encoding, scores)


def one_network(actor: Arrays, acting: Mapping[str, float]) -> Arrays:
    """Return the arrays of one network that acts as several do.

    Parameters
    ----------
    actor : dict of str to array
        As :meth:`fauno_flwr.learning.agents.AgentStack.get_actor` returns it.
    acting : mapping of str to float
        See :attr:`fauno_flwr.learning.agents.AgentStack.acting`.
    """
    if len(acting) == 1:
        return actor

    def of_all(name: str) -> list[np.ndarray]:
        return [actor[f"{network}.{name}"] for network in acting]

    def scaled(name: str) -> list[np.ndarray]:
        scales = map(np.float32, acting.values())
        return [scale * array for scale, array in zip(scales, of_all(name), strict=True)]

    return {
        **{name: np.concatenate(of_all(name), axis=1) for name in ("weights.0", "biases.0")},
        "weights.1": block_diag(*of_all("weights.1")),
        "biases.1": np.concatenate(of_all("biases.1"), axis=1),
        "weights.2": np.concatenate(scaled("weights.2")),
        "biases.2": np.add.reduce(scaled("biases.2")),
    }


def of_states(parameters: Mapping[str, bytes], observation: str = "") -> Exported:
    """Return the actors in the saved parameters of agents for export.

    Parameters
    ----------
    parameters : mapping of str to bytes
        By name of the actor, from :meth:`fauno_flwr.learning.agents.AgentStack.save` of one agent.
    observation : str, optional
        Observation of the training; default: the built-in one whose widths fit.

    Raises
    ------
    ConfigError
        If no observation fits.
    """
    saved = {
        name: torch.load(io.BytesIO(data), weights_only=True) for name, data in parameters.items()
    }
    actors = {name: _acting_of(state) for name, state in saved.items()}
    first = next(iter(actors.values()))
    try:
        widths = {
            each: find_encoding(each) for each in ([observation] if observation else OBSERVATIONS)
        }
    except ValueError as error:
        raise ConfigError(str(error)) from error
    fitting = [each for each in widths if network_of(first, widths[each])]
    if not fitting:
        raise ConfigError(
            f"observation is {observation or 'not given'!r}: must be that of the training, whose "
            f"actors have {len(first['weights.0'])} inputs"
        )
    logits = all("critic" in state["networks"] for state in saved.values())
    return Exported(actors, fitting[0], widths[fitting[0]], LOGITS if logits else VALUES)


def _acting_of(state: Mapping[str, Any]) -> Arrays:
    """Return the network that acts, of the saved state of one agent."""
    acting, networks = state["acting"], state["networks"]
    if len(acting) == 1:
        return {key: tensor[0].numpy() for key, tensor in networks["actor"].items()}
    arrays = {
        f"{network}.{key}": tensor[0].numpy()
        for network in acting
        for key, tensor in networks[network].items()
    }
    return one_network(arrays, acting)


def network_of(actor: Arrays, widths: Widths) -> str:
    """Return the network of an actor whose input has these widths; empty if none fits."""
    inputs, slots = len(actor["weights.0"]), actor["biases.2"].size
    if slots == 1 and inputs == widths.local + 2 * widths.destinations:
        return EQUIVARIANT
    return PADDED if inputs == widths.local + slots * (widths.destinations + 1) else ""


def write_export(exported: Exported, out: Path) -> list[Path]:
    """Write actors to a new folder: ``<name>.safetensors``, ``actor.json``, ``load_actor.py``.

    Returns
    -------
    list of Path
        The files.
    """
    folder = RunDirectory.check(out)
    first, widths = next(iter(exported.actors.values())), exported.widths
    slots = int(first["biases.2"].size)
    network = network_of(first, widths)
    if not network:
        raise ConfigError(f"the actors do not fit the observation {exported.observation!r}")
    files = {name: re.sub(r"[^\w.-]", "-", name) + ".safetensors" for name in exported.actors}
    for name, actor in exported.actors.items():
        save_file({key: np.ascontiguousarray(a) for key, a in actor.items()}, folder / files[name])
    about: dict[str, Any] = {
        "format": FORMAT,
        "network": network,
        "scores": exported.scores,
        "observation": exported.observation,
        "local": widths.local,
        "destinations": widths.destinations,
        "slots": slots if network == PADDED else None,
        "hidden": int(first["biases.0"].size),
        "features": FEATURES.get(exported.observation),
        "files": files,
    }
    written = write_atomically(folder / "actor.json", json.dumps(about, indent=2) + "\n")
    loader = folder / "load_actor.py"
    shutil.copyfile(load_actor.__file__, loader)
    return [*(folder / file for file in files.values()), written, loader]
