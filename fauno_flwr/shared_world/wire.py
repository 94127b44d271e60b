"""Requests and answers between a node and a shared world: JSON head, safetensors arrays.

Neither can carry code. gRPC limits the size, :func:`unpack` checks the form, and the receiver
checks names, shapes and types.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.transitions import Decisions
from sim_env.errors import shown
from sim_env.scenario import Scenario

SERVICE = "fauno.World"
PROTOCOL = 1
JOIN, DEPLOY, COLLECT, STATUS = "Join", "Deploy", "Collect", "Status"
AUTHORIZATION, SCHEME = "authorization", "Bearer "
LENGTH = 4  # bytes of the length of the head
LARGEST_REQUEST = 2**20  # bytes beside the actor
LARGEST_ANSWER = 2**28  # bytes; a rollout of thousands of decisions is a few million
AGENT_SETTINGS = ("algorithm", "network", "hidden", "critic")
Head = dict[str, Any]
Arrays = dict[str, np.ndarray]


def pack(head: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> bytes:
    """Encode head and arrays; :func:`unpack` decodes them."""
    text = json.dumps(head).encode()
    body = save({name: np.asarray(a, order="C") for name, a in arrays.items()}) if arrays else b""
    return len(text).to_bytes(LENGTH, "big") + text + body


def unpack(data: bytes) -> tuple[Head, Arrays]:
    """Decode head and arrays.

    Raises
    ------
    ValueError
        If the data are malformed.
    """
    end = LENGTH + int.from_bytes(data[:LENGTH], "big")
    if len(data) < max(end, LENGTH):
        raise ValueError(f"a message of {len(data)} bytes is cut off")
    try:
        head = json.loads(data[LENGTH:end])
        arrays = load(data[end:]) if len(data) > end else {}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"a message cannot be read: {shown(str(error))}") from error
    if not isinstance(head, dict):
        raise ValueError(f"the head of a message is {shown(head)}: must be an object")
    return head, arrays


def field(head: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a value of a head; raise ``ValueError`` if missing or of another type."""
    value = head.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} in a message is {shown(value)}: must be of type {kind.__name__}")
    return value


# ---- decisions ---------------------------------------------------------------------------------


def to_arrays(decisions: Decisions) -> Arrays:
    """Return decisions as named arrays."""
    return dict(vars(decisions))


def to_decisions(arrays: Arrays, local: int, destinations: int) -> Decisions:
    """Return the decisions of which :func:`to_arrays` made these arrays.

    Parameters
    ----------
    arrays : dict of str to array
    local, destinations : int
        Features of a decision and of a slot.

    Raises
    ------
    ValueError
        If the arrays do not hold decisions of these sizes.
    """
    rows = len(arrays["action"]) if "action" in arrays else 0
    slots = arrays["mask"].shape[1] if "mask" in arrays and arrays["mask"].ndim == 2 else 0
    wanted = {
        "local": ((rows, local), np.float32),
        "destination": ((rows, slots, destinations), np.float32),
        "mask": ((rows, slots), np.bool_),
        "action": ((rows,), np.int64),
        "reward": ((rows,), np.float32),
        "last": ((rows,), np.bool_),
        "terminal": ((rows,), np.bool_),
    }
    require_arrays("decisions", arrays, {k: (s, np.dtype(t)) for k, (s, t) in wanted.items()})
    return Decisions(**arrays)


Schema = dict[str, tuple[tuple[int, ...], np.dtype]]


def require_arrays(what: str, arrays: Mapping[str, np.ndarray], schema: Schema) -> None:
    """Raise ``ValueError`` unless arrays have these names, shapes and types and are finite."""
    if arrays.keys() != schema.keys():
        raise ValueError(
            f"{what} are the arrays {', '.join(sorted(arrays)) or 'none'}: "
            f"must be {', '.join(sorted(schema))}"
        )
    for name, (shape, dtype) in schema.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"{name} of {what} is {array.dtype}{list(array.shape)}: must be "
                f"{dtype}{list(shape)}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name} of {what} is not finite")


# ---- comparison of the settings of both ends -----------------------------------------------------


def world_settings(config: RunConfig) -> dict[str, str]:
    """Return the settings on which client and service must agree, as text by dotted key."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            flat[prefix] = repr(value)

    walk("", asdict(config.scenario_spec))
    walk("agent", {name: getattr(config.agent, name, None) for name in AGENT_SETTINGS})
    return flat


def fingerprint(config: RunConfig, scenario: Scenario) -> str:
    """Compute a digest of the settings, and of nodes and jobs, which may come from local files.

    Numbers are rounded to six digits: processors of different types differ in the last ones.
    """
    topology, jobs = scenario.topology, scenario.jobs
    numbers = [topology.speed, topology.capacity, topology.position]
    numbers += [topology.rates, topology.latencies, scenario.net.arrivals]
    numbers += [scenario.net.deadline_high, scenario.net.stated]
    numbers += [scenario.net.reward.delay_factor, scenario.net.reward.loss_factor]
    numbers += [jobs.instructions, jobs.input_bits, jobs.output_bits]
    held = [
        world_settings(config),
        list(topology.names),
        list(topology.roles),
        [list(map(int, row)) for row in topology.neighbours],
        np.flatnonzero(topology.is_agent).tolist(),
        np.flatnonzero(topology.is_source).tolist(),
        [[f"{number:.6g}" for number in np.ravel(array)] for array in numbers],
    ]
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def difference(run: Mapping[str, Any], world: Mapping[str, str]) -> str:
    """Describe up to three differences between the settings of a run and of a served world."""
    keys = [key for key in sorted({*run, *world}) if run.get(key) != world.get(key)]
    if not keys:
        return "the files that they name differ, or the versions of fauno-flwr"
    words = [
        f"{key} is {run.get(key, 'missing')} in the run, {world.get(key, 'missing')} in the world"
        for key in keys[:3]
    ]
    more = f", and {len(keys) - 3} more" if len(keys) > 3 else ""
    return "; ".join(words)[:400] + more
