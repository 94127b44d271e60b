"""Settings of one group that another one, or a command, does not read."""

from typing import Any

from fauno_flwr.config.agent import PADDED
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.origins import ABSENT, COMMAND_LINE, Resolved
from fauno_flwr.config.settings import GYM, OWN, SHARED
from sim_env.errors import no_effect, shown

# Groups and settings without an effect, by `world.kind`, each with the value that says so itself.
UNREAD_IN_WORLD: dict[str, dict[str, Any]] = {
    OWN: {},
    SHARED: {"training.warmup": None, "training.peers": None},
    GYM: {
        **dict.fromkeys(
            ("topology", "workload", "physics", "reward", "observation", "dynamics", "cosim")
        ),
        **dict.fromkeys(("training.warmup", "training.peers")),
        **dict.fromkeys(("evaluation.warmup", "evaluation.policies", "evaluation.replay")),
        "agent.network": PADDED,
        "agent.prior": 0.0,
    },
}
GOSSIPS = tuple(f"federation.{name}" for name in ("merging", "graph", "peers", "mixing"))
# Overrides that a command refuses; what stands in a file may serve another command.
UNREAD_BY_COMMAND = {
    "compare": (
        *("seed", "agent", "training", "world", "federation", "cosim"),
        *("evaluation.every", "evaluation.greedy", "evaluation.replay"),
    ),
    "evaluate": (
        *("agent", "training", "world", "federation", "cosim"),
        *("evaluation.every", "evaluation.replay"),
    ),
    "replay": (
        *("agent", "training", "world", "federation", "cosim"),
        *("evaluation.every", "evaluation.replay", "evaluation.worlds"),
    ),
    "train": (
        "training.peers",
        "training.seconds_per_message",
        "federation.bind_keys",
        "federation.replace_lost_agents",
        "federation.wait_for_nodes",
    ),
    "simulate": ("cosim", "federation.bind_keys", *GOSSIPS),
    "deploy local": ("cosim", *GOSSIPS),
}


def require_read(found: Resolved, command: str) -> None:
    """Raise :class:`ConfigError` for a setting written by choice that nothing reads.

    Parameters
    ----------
    found : Resolved
    command : str
        A key of :data:`UNREAD_BY_COMMAND`, or empty.
    """
    kind = found.config.world.kind
    chosen = found.origins.get("world.kind", ABSENT).rank
    for key, origin in found.origins.items():
        value = found.value(key)
        for unread, neutral in UNREAD_IN_WORLD[kind].items():
            by_choice = origin.explicit and origin.rank >= chosen and value != neutral
            if by_choice and _within(key, unread):
                raise ConfigError(no_effect(key, value, "world.kind", kind))
        for unread in UNREAD_BY_COMMAND.get(command, ()):
            if _within(key, unread) and origin.rank == COMMAND_LINE:
                raise ConfigError(
                    f"{key} is {shown(value)}: has no effect in fauno {command}, must be left out"
                )


def _within(key: str, setting: str) -> bool:
    return key == setting or key.startswith(f"{setting}.")
