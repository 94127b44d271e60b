"""The strategy that the settings describe."""

from collections.abc import Mapping
from typing import Any

from fauno_flwr.config import rules
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.privacy import CENTRAL
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.checkpoints import make_checkpoints
from fauno_flwr.federation.periodic import EvaluatedAsync, MemberGuard
from fauno_flwr.federation.protocol import ARRAYS, CONFIG
from fauno_flwr.federation.sizing import Sizer
from fauno_flwr.learning.metrics import STEPS
from strategies.checkpoint import Part


def build_strategy(
    config: RunConfig,
    sizer: Sizer,
    parts: Mapping[str, Part] | None = None,
    *,
    noise_seed: int | None = None,
    **wiring: Any,
) -> EvaluatedAsync:
    """Build the strategy of a run.

    Parameters
    ----------
    config : RunConfig
        Its group ``federation``: buffer, staleness, merge, server optimiser, compression, privacy,
        guard and checkpoints.
    sizer : Sizer
        Number of rollouts and time-to-live of each message.
    parts : mapping of str to Part, optional
        What checkpoints hold beside the states of strategy and sizer.
    noise_seed : int, optional
        Seed of the noise of ``federation.privacy.kind=central``; None: that of the operating
        system.
    **wiring
        What connects the strategy to a run; further parameters of
        :class:`strategies.BufferedAsync`.

    Raises
    ------
    ConfigError
        If a rule cannot be built, or epsilon cannot be counted.
    """
    federation = config.federation
    try:
        chosen = {
            "staleness": rules.build(rules.STALENESS, federation.staleness),
            "merge": rules.build(rules.MERGE, federation.merge),
            "server_optimizer": rules.build(rules.SERVER_OPTIMIZER, federation.server_optimizer),
            "compression": rules.build(rules.COMPRESSION, federation.compression),
        }
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return EvaluatedAsync(
        sizer,
        federation.buffer_size,
        # What a node reports of its data is not private.
        weighted_by_key=None if federation.privacy.kind == CENTRAL else STEPS,
        arrayrecord_key=ARRAYS,
        configrecord_key=CONFIG,
        guard=MemberGuard(sizer, max_norm=federation.max_norm, norm_factor=federation.norm_factor),
        weight_factor=federation.weight_factor,
        checkpoint=make_checkpoints(config, {"sizer": sizer, **(parts or {})}),
        refill=federation.refill,
        time_limit=federation.timeout,
        fraction_evaluate=0.0,  # set when an evaluation is due
        min_train_nodes=1,
        min_available_nodes=1,  # the run has waited for its nodes
        privacy=federation.privacy.build(noise_seed),
        **chosen,
        **wiring,
    )
