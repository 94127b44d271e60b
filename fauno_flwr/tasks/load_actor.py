"""Load an exported actor; numpy and safetensors are enough. ``actor.json`` has the sizes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def load_actor(path: str | Path) -> Callable[..., np.ndarray]:
    """Return ``probabilities(local, destinations, mask)`` of the actor in a safetensors file.

    local (F,), destinations (K, D) and mask (K,), nonzero where legal, are the features of one
    decision; the result (K,) sums to 1. Of action values, all probability is on the highest.
    """
    arrays, about = load_file(path), json.loads(Path(path).with_name("actor.json").read_text())

    def probabilities(local: np.ndarray, destinations: np.ndarray, mask: np.ndarray) -> np.ndarray:
        legal = np.flatnonzero(mask)
        if about["network"] == "equivariant":  # a row per legal slot
            own = destinations[legal]
            common = np.broadcast_to(local, (len(legal), len(local)))
            x = np.concatenate([common, own, own - own.min(axis=0)], axis=1)
        else:  # one row with all slots, padded, and a bit per legal one
            slots = np.zeros((about["slots"], about["destinations"] + 1), np.float32)
            slots[legal] = np.concatenate([destinations[legal], np.ones((len(legal), 1))], axis=1)
            x = np.concatenate([local, slots.ravel()])[None]
        for layer in range(3):
            x = x @ arrays[f"weights.{layer}"] + arrays[f"biases.{layer}"]
            x = np.tanh(x) if layer < 2 else x
        scores = x[:, 0] if about["network"] == "equivariant" else x[0, legal]
        if about["scores"] == "logits":
            weight = np.exp(scores - scores.max())
        else:
            weight = np.eye(len(legal))[scores.argmax()]
        result = np.zeros(len(mask))
        result[legal] = weight / weight.sum()
        return result

    return probabilities
