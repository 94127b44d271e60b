"""Differential privacy of a run: settings, and what they build."""

from dataclasses import dataclass
from typing import ClassVar

from fauno_flwr.config.errors import ConfigError
from sim_env.errors import (
    Use,
    require_choice,
    require_effect,
    require_number,
    with_kind,
    without_kind,
)
from strategies.adaptive_clip import AdaptiveClip
from strategies.privacy import CentralPrivacy, LocalPrivacy, Privacy

PRIVACIES = NONE, CENTRAL, LOCAL = ("none", "central", "local")


@dataclass
class PrivacyConfig:
    """Differential privacy of what is shared; see :mod:`strategies.privacy`.

    Parameters
    ----------
    kind : str
        Who adds the noise: nobody (``none``); the server, to each version (``central``): nodes
        trust it; or each node, to its update before it leaves (``local``).
    clip : float
        Largest Euclidean norm of an update; a larger one is scaled down to it. With
        ``clip_quantile`` that of the first version.
    clip_quantile : float
        Fraction of the updates that are to be within the clip, which the server then adapts after
        each version; 0: it stays. With ``central`` only. Costs 2 % more noise, and no epsilon.
    clip_learning_rate : float
        Step of the logarithm of the clip; less of it where few nodes or much noise make it wander.
    noise_multiplier : float
        Standard deviation of the noise: in units of ``clip`` divided by the updates in the version
        with ``central``, of ``clip`` with ``local``.
    max_epsilon : float
        Training ends before epsilon of a node would be larger; 0: it is only counted.
    delta : float
        Probability with which epsilon does not hold; less than one in the number of nodes.
    """

    uses: ClassVar[dict[str, Use]] = {
        **dict.fromkeys(
            ("clip", "noise_multiplier", "max_epsilon", "delta"), without_kind("kind", NONE)
        ),
        "clip_quantile": with_kind("kind", CENTRAL),  # a node would need the clip of the server
        "clip_learning_rate": Use("clip_quantile", bool),
    }

    kind: str = NONE
    clip: float = 1.0
    clip_quantile: float = 0.0
    clip_learning_rate: float = AdaptiveClip.learning_rate
    noise_multiplier: float = 1.0
    max_epsilon: float = 0.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        require_choice("federation.privacy.kind", self.kind, PRIVACIES)
        for name in ("clip", "noise_multiplier"):
            require_number(f"federation.privacy.{name}", getattr(self, name), above=0)
        name = "federation.privacy.clip_quantile"
        require_number(name, self.clip_quantile, at_least=0, at_most=0.99)
        name = "federation.privacy.clip_learning_rate"
        require_number(name, self.clip_learning_rate, above=0, at_most=1)
        require_number("federation.privacy.max_epsilon", self.max_epsilon, at_least=0)
        require_number("federation.privacy.delta", self.delta, above=0, at_most=0.5)
        require_effect("federation.privacy.", self, self.uses)

    def build(self, seed: int | None) -> Privacy | None:
        """Return the privacy of a strategy; None without.

        Parameters
        ----------
        seed : int, optional
            Seed of the noise of the server; None: that of the operating system.

        Raises
        ------
        ConfigError
            Without the package that counts epsilon.
        """
        if self.kind == NONE:
            return None
        most, adaptive = self.max_epsilon or None, None
        if self.clip_quantile:
            adaptive = AdaptiveClip(self.clip_quantile, self.clip_learning_rate)
        made: Privacy = (
            CentralPrivacy(self.clip, self.noise_multiplier, most, self.delta, seed, adaptive)
            if self.kind == CENTRAL
            else LocalPrivacy(self.clip, self.noise_multiplier, most, self.delta)
        )
        try:
            made.ledger()
        except ImportError as error:
            raise ConfigError(
                f"federation.privacy.kind is {self.kind!r}: must be {NONE} without the package "
                f"dp-accounting (pip install 'fauno-flwr[privacy]')"
            ) from error
        return made
