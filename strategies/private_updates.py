"""Updates that are clipped and noised before they leave a node."""

from collections.abc import Callable

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MessageType, MetricRecord

from strategies.arrays import Layout, to_arrays, to_record
from strategies.checks import require_number, require_whole
from strategies.privacy import CLIP, NOISE_MULTIPLIER, ROUNDING

STATE = "privacy"  # record of the node's state, with seeded noise


def privatize(
    trained: ArrayRecord,
    received: ArrayRecord,
    clip: float,
    noise_multiplier: float,
    rng: np.random.Generator,
) -> ArrayRecord:
    """Clip an update and add noise (Gaussian mechanism, Dwork and Roth 2014, appendix A).

    ::

        received + delta min(1, clip / |delta|) + N(0, (noise_multiplier clip)^2 I)

    Parameters
    ----------
    trained, received : ArrayRecord
        The update is their difference ``delta``.
    clip : float
        Largest Euclidean norm, over all arrays.
    noise_multiplier : float
        Standard deviation of the noise of each value, in units of `clip`.
    rng : numpy Generator

    Returns
    -------
    ArrayRecord
        With the names, shapes and types of `received`.

    Raises
    ------
    ValueError
        If the update is not finite: no noise would hide that.
    """
    base = to_arrays(received)
    layout = Layout(base)
    origin = layout.flatten(base).astype(np.float64)
    delta = layout.flatten(to_arrays(trained)) - origin
    norm = float(np.linalg.norm(delta))
    if not np.isfinite(norm):
        raise ValueError("the update is not finite: nothing is sent")
    delta *= min(1.0, clip * ROUNDING / norm) if norm > 0 else 1.0
    noise = rng.normal(0.0, noise_multiplier * clip, layout.size)
    return to_record(layout.unflatten(origin + delta + noise))


def describe(clip: float, noise_multiplier: float) -> dict[str, float]:
    """Return the metrics by which a node tells what it did to its update."""
    return {CLIP: float(clip), NOISE_MULTIPLIER: float(noise_multiplier)}


def private_mod(
    clip: float,
    noise_multiplier: float,
    *,
    arrayrecord_key: str = "arrays",
    seed: int | None = None,
) -> Callable[[Message, Context, Callable[[Message, Context], Message]], Message]:
    """Return a mod for Flower's ClientApp that clips and noises what a node has learned.

    ``ClientApp(mods=[private_mod(1.0, 2.0)])`` and
    ``BufferedAsync(privacy=LocalPrivacy(1.0, 2.0))``. With :func:`strategies.compression_mod`, that
    one comes first in the list: the update is compressed after the noise.

    The mod protects the arrays of replies to train messages, and tells clip and noise in the
    metrics. Whatever else a reply holds leaves the node as it is: send no metrics of the data.

    Flower's ``fixedclipping_mod`` takes the norm from the server, which is the one to be protected
    from. Its ``LocalDpMod`` computes the noise by a formula that holds for an epsilon below 1 only,
    and draws it from numpy's global generator, which apps seed.

    Parameters
    ----------
    clip : float
        Largest norm of an update, over all arrays.
    noise_multiplier : float
        Standard deviation of the noise of each value, in units of `clip`.
    arrayrecord_key : str, default "arrays"
        Name of the record that holds the arrays; a reply with another record of arrays fails.
    seed : int, optional
        Makes the noise repeatable, for tests and experiments: who knows it can subtract it.
        Default: a new generator for each message, seeded by the operating system.

    Raises
    ------
    ValueError
        If a parameter is impossible.
    """
    require_number("clip", clip, above=0)
    require_number("noise_multiplier", noise_multiplier, above=0)
    if seed is not None:
        require_whole("seed", seed, at_least=0)

    def generator(context: Context) -> np.random.Generator:
        if seed is None:
            return np.random.default_rng()
        # Kept with the node: no two of its messages may have the same noise.
        kept = context.state.metric_records.get(STATE, MetricRecord({"messages": 0}))
        messages = int(kept["messages"]) + 1  # type: ignore[arg-type]
        context.state[STATE] = MetricRecord({"messages": messages})
        return np.random.default_rng([seed, context.node_id, messages])

    def mod(
        message: Message, context: Context, call_next: Callable[[Message, Context], Message]
    ) -> Message:
        received = message.content.array_records.get(arrayrecord_key)
        reply = call_next(message, context)
        kind = message.metadata.message_type.partition(".")[0]
        if kind != MessageType.TRAIN or reply.has_error():
            return reply
        names = list(reply.content.array_records)
        if received is None or names != [arrayrecord_key]:
            raise ValueError(
                f"the reply has the records of arrays {names}: must be [{arrayrecord_key!r}] with "
                f"private_mod(), as in the message"
            )
        trained = reply.content.array_records[arrayrecord_key]
        reply.content[arrayrecord_key] = privatize(
            trained, received, clip, noise_multiplier, generator(context)
        )
        told = describe(clip, noise_multiplier)
        # In the record of metrics that is there: Flower's strategies take one only.
        name = next(iter(reply.content.metric_records), "metrics")
        held = reply.content.metric_records.get(name, MetricRecord())
        reply.content[name] = MetricRecord({**held, **told})
        return reply

    return mod
