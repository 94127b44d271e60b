"""A session as numbers and arrays, for a checkpoint, and back."""

from dataclasses import asdict, replace
from logging import WARNING
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import MetricRecord
from flwr.common.logger import log

from strategies.arrays import to_record
from strategies.checkpoint import State, Tensors
from strategies.evaluation import Evaluation
from strategies.flights import Flight
from strategies.guard import RejectedError
from strategies.wire import message_from_bytes, message_to_bytes

if TYPE_CHECKING:
    from strategies.session import Session

HISTORIES = (
    "train_metrics_clientapp",
    "evaluate_metrics_clientapp",
    "evaluate_metrics_serverapp",
)


@runtime_checkable
class Resumable(Protocol):
    """A grid that can be put back to where it was; then no message is lost on resume."""

    def save_state(self) -> dict[str, bytes]:
        """All that the grid's future depends on."""

    def load_state(self, state: dict[str, bytes]) -> None:
        """Go on from what :meth:`save_state` has returned."""


def freeze(session: "Session") -> tuple[State, Tensors]:
    """What the future of a session depends on."""
    evaluation = session.evaluation
    state: State = {
        "version": session.version,
        "time": session.now(),
        "last_look": session.last_look,
        "wake": session.wake,
        "needed": session.needed,
        "unmatched": session.unmatched,
        "evaluated": session.evaluated,
        "rng": session.rng.bit_generator.state,
        "guard": session.strategy.guard.state(),
        "result": {
            name: {str(v): dict(record) for v, record in getattr(session.result, name).items()}
            for name in HISTORIES
        },
        "buffer": [
            {**asdict(u.flight), "steps": u.steps, "arrived_at": u.arrived_at}
            for u in session.buffer
        ],
        **session.flights.state(),
        "evaluation": None,
    }
    tensors: Tensors = {f"base/{version}": base for version, base in session.bases.items()}
    for name, array in session.strategy.server_optimizer.state.items():
        tensors[f"optimizer/{name}"] = array
    for i, update in enumerate(session.buffer):
        tensors[f"reply/{i}"] = as_tensor(message_to_bytes(update.reply))
    if evaluation is not None:
        state["evaluation"] = {
            "version": evaluation.version,
            "waiting": sorted(evaluation.waiting),
            "opened_at": evaluation.opened_at,
            "replies": len(evaluation.replies),
        }
        for name, sent in evaluation.arrays.items():
            tensors[f"evaluated/{name}"] = sent.numpy()
        for i, reply in enumerate(evaluation.replies):
            tensors[f"evaluation/{i}"] = as_tensor(message_to_bytes(reply))
    if isinstance(session.grid, Resumable):
        for name, data in session.grid.save_state().items():
            tensors[f"grid/{name}"] = as_tensor(data)
    return state, tensors


def thaw(session: "Session", state: State, tensors: Tensors) -> None:
    """Put a fresh session, and its grid if that can be done, to where :func:`freeze` took it."""
    grid, strategy = session.grid, session.strategy
    grid_state = {name: array.tobytes() for name, array in under(tensors, "grid").items()}
    in_flight = False
    if grid_state and isinstance(grid, Resumable):
        grid.load_state(grid_state)
        in_flight = True
    elif state["flights"]:
        log(WARNING, "%s messages were in flight: their nodes start anew", len(state["flights"]))
    session.zero = session.clock.monotonic() - state["time"]
    session.version, session.needed = state["version"], state["needed"]
    session.unmatched, session.evaluated = state["unmatched"], state["evaluated"]
    session.wake, session.last_look = state["wake"], state["last_look"]
    session.rng.bit_generator.state = state["rng"]
    session.bases = {int(version): base for version, base in under(tensors, "base").items()}
    session.result.arrays = to_record(session.layout.unflatten(session.bases[session.version]))
    for name in HISTORIES:
        records = {int(v): MetricRecord(values) for v, values in state["result"][name].items()}
        getattr(session.result, name).update(records)
    session.flights.load(state, in_flight=in_flight)
    strategy.server_optimizer.state.update(under(tensors, "optimizer"))
    for i, about in enumerate(state["buffer"]):
        steps, arrived_at = about.pop("steps"), about.pop("arrived_at")
        _thaw_update(session, tensors[f"reply/{i}"], Flight(**about), steps, arrived_at)
    strategy.guard.load(state["guard"])
    if state["evaluation"] is not None and in_flight:
        session.evaluation = _thaw_evaluation(state["evaluation"], tensors)
    elif state["evaluation"] is not None:
        session.evaluated = 0  # asked again, at the latest when training is over


def _thaw_update(
    session: "Session", data: np.ndarray, flight: Flight, steps: float, arrived_at: float
) -> None:
    reply = message_from_bytes(data.tobytes())
    base = session.bases[flight.base_version]
    try:
        update = session.strategy.guard.check(reply, flight, base, arrived_at)
    except RejectedError as rejection:  # the guard, or the compression, is not what it was
        log(WARNING, "node %s: its buffered update is left out: %s", flight.node_id, rejection)
        return
    session.buffer.put(replace(update, steps=steps))


def _thaw_evaluation(about: dict[str, Any], tensors: Tensors) -> Evaluation:
    replies = [
        message_from_bytes(tensors[f"evaluation/{i}"].tobytes()) for i in range(about["replies"])
    ]
    return Evaluation(
        about["version"],
        to_record(under(tensors, "evaluated")),
        set(about["waiting"]),
        about["opened_at"],
        replies,
    )


def under(tensors: Tensors, folder: str) -> Tensors:
    """Tensors whose name begins with `folder` and a slash, without it."""
    start = f"{folder}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def as_tensor(data: bytes) -> np.ndarray:
    """Bytes as an array."""
    return np.frombuffer(data, np.uint8)
