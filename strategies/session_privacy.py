"""The part of a training that accounts for privacy before anything is released."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from logging import WARNING
from typing import Any

from flwr.app import Message
from flwr.common.logger import log

from strategies.buffer import Update
from strategies.checkpoint import CheckpointError, State, Tensors
from strategies.ledger import Spent
from strategies.merge import MergeRule
from strategies.norms import FEW
from strategies.privacy import CentralPrivacy, LocalPrivacy
from strategies.result import MAX_EPSILON
from strategies.session_evaluation import SessionEvaluation


class SessionPrivacy(SessionEvaluation):
    """Charge every release to the members that take part in it, and stop before the budget is over.

    With :class:`CentralPrivacy` a release is a version, with :class:`LocalPrivacy` an update that
    a node is asked for. It is written to a file before it is made: a server that dies has released
    versions, or sent messages, that are in no checkpoint yet.
    """

    def charge(self, members: Iterable[int]) -> bool:
        """Charge a release to its members; if it would exceed the budget, stop, and return False.

        Raises
        ------
        CheckpointError
            If what is spent cannot be written.
        """
        ledger, members = self.ledger, list(members)
        if ledger is None or not members:
            return True
        if not ledger.allows(members):
            spent, most = self.spent, ledger.max_epsilon
            log(WARNING, "training ends early, by max_epsilon = %g: %s", most, spent)
            self.exchange.emit("budget", version=self.version, max_epsilon=most, **self.privacy)
            self.stop(MAX_EPSILON)
            return False
        ledger.charge(members)
        checkpoints = self.strategy.checkpoint
        if checkpoints is not None:
            try:
                checkpoints.note(ledger.state())
            except OSError as error:
                reason = error.strerror or str(error)
                raise CheckpointError(
                    f"training ends, because the privacy that is spent cannot be written: {reason}"
                ) from error
        self.result.privacy = self.spent
        return True

    def charge_version(self, members: Iterable[int]) -> bool:
        """Charge a version to the members in it, unless their updates are private already."""
        return not isinstance(self.strategy.privacy, CentralPrivacy) or self.charge(members)

    def charge_messages(self, messages: Iterable[Message]) -> bool:
        """Charge the updates that train messages ask for, if those are what is released."""
        if not isinstance(self.strategy.privacy, LocalPrivacy):
            return True
        return self.charge(self.strategy.member_of(m.metadata.dst_node_id) for m in messages)

    @property
    def spent(self) -> Spent | None:
        """Privacy spent so far; None in a training without."""
        ledger, privacy = self.ledger, self.strategy.privacy
        if ledger is None or privacy is None:
            return None
        return Spent(ledger.epsilon, ledger.delta, privacy.protects)

    @property
    def privacy(self) -> dict[str, Any]:
        """Privacy spent so far, as the fields of an event; none in a training without."""
        spent, ledger = self.spent, self.ledger
        if spent is None or ledger is None:
            return {}
        message = isinstance(self.strategy.privacy, LocalPrivacy)
        return {**spent.fields(), **({"message_epsilon": ledger.one} if message else {})}

    @property
    def noise(self) -> dict[str, float]:
        """Norms of the last merged update and of the noise in it, and the clip, for an event.

        The first is that of the update with its noise, which is released anyway: what follows from
        it (:func:`strategies.privacy.signal_to_noise`) costs no privacy. The second is as expected.
        The clip is known beforehand: it was made of earlier noisy counts.
        """
        merged, privacy = self.versions.merged, self.in_force
        if self.ledger is None or privacy is None or merged is None:
            return {}
        norm, weights = merged
        expected = privacy.noise_norm(weights, self.versions.layout.size)
        norms = {"merged_norm": float(f"{norm:.4g}"), "noise_norm": float(f"{expected:.4g}")}
        return norms | ({"clip": privacy.clip} if isinstance(privacy, CentralPrivacy) else {})

    def adapt_clip(self, updates: Sequence[Update]) -> None:
        """Adapt the clip to the updates in a version that was made, if it is to adapt."""
        if self.ledger is not None and isinstance(self.in_force, CentralPrivacy):
            norms = [update.norm for update in updates]
            self.in_force = self.in_force.after(self.ledger.releases, norms)

    @property
    def rule(self) -> MergeRule:
        """Rule that merges the updates of the version that is being made."""
        privacy = self.in_force
        if self.ledger is None or not isinstance(privacy, CentralPrivacy):
            return self.strategy.merge
        return privacy.rule(self.ledger.releases)

    def most_norm(self, base_version: int) -> float:
        """Return the norm to which larger updates from a version are scaled down."""
        if isinstance(self.in_force, CentralPrivacy):
            return self.in_force.most_norm
        others = len(self.present) + len(self.banned) >= FEW
        return self.strategy.guard.most_norm(base_version, others)

    def resume(self) -> None:
        """Resume as without privacy, and from what was spent when the server died."""
        super().resume()
        checkpoints = self.strategy.checkpoint
        if self.ledger is not None and checkpoints is not None:
            noted = checkpoints.noted()
            if noted is not None:
                self.ledger.load(noted)
        self.result.privacy = self.spent

    def state(self) -> tuple[State, Tensors]:
        """Return what the future of the training depends on."""
        state, tensors = super().state()
        if self.ledger is not None:
            state["privacy"] = self.ledger.state()
        if isinstance(self.in_force, CentralPrivacy):
            state["clip"] = self.in_force.clip
        return state, tensors

    def load(self, state: State, tensors: Tensors) -> None:
        """Restore :meth:`state`; ``CheckpointError`` if its versions were made without privacy."""
        if self.ledger is not None:
            if "privacy" not in state:
                raise CheckpointError(
                    "the versions in this checkpoint were made without privacy: no epsilon holds"
                )
            self.ledger.load(state["privacy"])
        # A fixed clip is that of the settings; an older training has had one, and adapts from here.
        privacy = self.in_force
        if isinstance(privacy, CentralPrivacy) and privacy.adaptive is not None:
            self.in_force = replace(privacy, clip=state.get("clip", privacy.clip))
        super().load(state, tensors)
