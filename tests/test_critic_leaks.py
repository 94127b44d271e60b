"""The attack on critics finds what is there, and nothing where nothing is."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import critic_leaks

NODES, WIDTH = 19, 60


def runs(strength: float) -> list[dict[str, np.ndarray]]:
    """Return runs in which every property moves the features by so much."""
    rng = np.random.default_rng(1)
    of_load, of_pi = rng.normal(size=(2, WIDTH))
    of_node = rng.normal(size=(NODES, WIDTH))
    pi, cluster = np.arange(NODES) < 16, np.arange(NODES) < 6
    made = []
    for _ in range(2 * critic_leaks.SEEDS):
        heavy = np.append(rng.permutation(np.arange(16) < 8), [False] * 3)
        moved = np.outer(heavy, of_load) + np.outer(pi, of_pi) + of_node
        features = rng.normal(size=(NODES, WIDTH)) + strength * moved
        made.append({"features": features, "pi": pi, "cluster": cluster, "heavy": heavy})
    return made


def test_what_a_node_tells_is_found() -> None:
    for accuracy in critic_leaks.accuracies(runs(3.0)).values():
        assert len(accuracy) == critic_leaks.SEEDS
        assert accuracy.mean() > 0.95


@pytest.mark.parametrize(
    ("what", "chance"),
    [("load", 1 / 2), ("device", 1 / 2), ("cluster", 1 / 2), ("node", 1 / NODES)],
)
def test_without_a_trace_of_it_guesses_are_as_good_as_chance(what: str, chance: float) -> None:
    """Mutation: guesses about runs that were known beforehand."""
    assert critic_leaks.accuracies(runs(0.0))[what].mean() == pytest.approx(chance, abs=0.12)


def test_a_random_half_of_the_raspberry_pis_has_the_heavy_load() -> None:
    settings = [critic_leaks.settings("30", seed) for seed in (1, 2)]
    for config, heavy in settings:
        assert heavy.sum() == critic_leaks.PIS / 2
        rates = config.workload.source_rates
        assert [rates[f"rpi_{i}"] for i in range(critic_leaks.PIS)] == np.where(
            heavy, 3.0, 1.0
        ).tolist()
        assert config.federation.privacy.max_epsilon == 30
    assert (settings[0][1] != settings[1][1]).any()
