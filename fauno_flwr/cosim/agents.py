"""The agents of a co-simulation and the train messages that they work on."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from safetensors.numpy import load, save

from fauno_flwr.federation.local_training import LocalTraining, Progress
from fauno_flwr.federation.protocol import ARRAYS
from fauno_flwr.learning.transitions import Decisions
from strategies.flower_internals import (
    message_from_bytes,
    message_to_bytes,
    records_from_bytes,
    records_to_bytes,
)

ARRIVING, COLLECTING, UPDATING, RETURNING = "arriving", "collecting", "updating", "returning"


@dataclass
class RoundTrip:
    """A train message, from when it is sent until its reply arrives.

    Parameters
    ----------
    message : Message
    training : LocalTraining
    sent_at, expires : float
        Ticks.
    phase : str
        ``arriving`` at the node, ``collecting`` a rollout, ``updating`` the agent, or
        ``returning`` to the server.
    due : int
        Tick at which the present rollout or update is complete.
    totals : array
        Counters of the worlds when the message arrived.
    rollout : Decisions, optional
        Rollout of the present update.
    update : ArrayRecord
        What travels back.
    """

    message: Message
    training: LocalTraining
    sent_at: float
    expires: float
    phase: str = ARRIVING
    due: int = 0
    totals: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rollout: Decisions | None = None
    update: ArrayRecord = field(default_factory=ArrayRecord)


@dataclass
class Agent:
    """An agent of a co-simulation, beside its networks.

    Parameters
    ----------
    index : int
        Place in the stack of agents.
    node : int
        Its node in the network.
    slowdown : float
        Factor by which its updates take longer.
    rng : Generator
        Random stream of its updates.
    progress : Progress
    since : int
        Tick from which its decisions are those of its present policy.
    trip : RoundTrip, optional
        Train message in progress.
    known : ArrayRecord, optional
        The last version that it has received, from which it would take over the server.
    """

    index: int
    node: int
    slowdown: float
    rng: np.random.Generator
    progress: Progress = field(default_factory=Progress)
    since: int = 0
    trip: RoundTrip | None = None
    known: ArrayRecord | None = None

    def snapshot(self) -> dict[str, bytes]:
        """Return all that the agent's future depends on, beside its networks."""
        progress = self.progress
        about: dict[str, Any] = {
            "rng": self.rng.bit_generator.state,
            "messages": progress.messages,
            "version": progress.version,
            "since": self.since,
        }
        blobs = {}
        if progress.residual is not None:
            blobs["residual"] = progress.residual.tobytes()
        if self.trip is not None:
            about["trip"] = _describe(self.trip)
            blobs |= _blobs(self.trip)
        return {**blobs, "about": json.dumps(about).encode()}

    def restore(
        self,
        blobs: Mapping[str, bytes],
        make_training: Callable[[RecordDict], LocalTraining],
    ) -> None:
        """Restore what :meth:`snapshot` has returned; an update in progress begins again.

        Parameters
        ----------
        blobs : mapping of str to bytes
        make_training : callable
            Makes the training of this agent for the content of a train message.
        """
        about = json.loads(blobs["about"])
        self.rng.bit_generator.state = about["rng"]
        residual = blobs.get("residual")
        self.progress.messages, self.progress.version = about["messages"], about["version"]
        self.progress.residual = None if residual is None else np.frombuffer(residual).copy()
        self.since, self.trip = about["since"], None
        if "trip" in about:
            message = message_from_bytes(blobs["message"])
            training = make_training(message.content)
            self.trip = _rebuild(about["trip"], blobs, message, training)


def _describe(trip: RoundTrip) -> dict[str, Any]:
    """Return the numbers of a round trip, as JSON can hold them."""
    return {
        "sent_at": trip.sent_at,
        "expires": trip.expires,
        "phase": trip.phase,
        "due": trip.due,
        "totals": trip.totals.tolist(),
        "updates": trip.training.updates,
        "rewards": trip.training.rewards,
    }


def _blobs(trip: RoundTrip) -> dict[str, bytes]:
    """Return the message and the arrays of a round trip."""
    blobs = {
        "message": message_to_bytes(trip.message),
        "update": records_to_bytes(RecordDict({ARRAYS: trip.update})),
    }
    if trip.rollout is not None:
        blobs["rollout"] = save(vars(trip.rollout))
    return blobs


def _rebuild(
    about: Mapping[str, Any],
    blobs: Mapping[str, bytes],
    message: Message,
    training: LocalTraining,
) -> RoundTrip:
    """Rebuild a round trip of what :func:`_describe` and :func:`_blobs` have returned."""
    training.updates, training.rewards = about["updates"], about["rewards"]
    trip = RoundTrip(message, training, about["sent_at"], about["expires"], about["phase"])
    trip.due, trip.totals = about["due"], np.array(about["totals"])
    trip.update = records_from_bytes(blobs["update"]).array_records[ARRAYS]
    if "rollout" in blobs:
        trip.rollout = Decisions(**load(blobs["rollout"]))
    return trip
