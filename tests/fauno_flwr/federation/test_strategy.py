"""The strategy that the settings describe."""

from collections.abc import Callable

import numpy as np
import pytest

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.federation.sizing import SizedAsync, Sizer
from fauno_flwr.federation.strategy import build_strategy
from strategies import Adam, CutOff, Hinge, Int8, NormFiltered, Polynomial, TopK, TrimmedMean


def build(*overrides: str) -> SizedAsync:
    config = load_config("ether2", overrides)
    return build_strategy(config, Sizer(config.training, lambda node_id: node_id))


def half_life(staleness: int) -> float:
    return 0.5**staleness


class Scaled:
    """A merge rule with a parameter."""

    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def __call__(self, deltas: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """Merge."""
        return self.factor * sum(w * d for w, d in zip(weights, deltas, strict=True))


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("staleness={name: polynomial, exponent: 2}", "staleness", Polynomial(2)),
        ("staleness={name: hinge, slope: 3, delay: 1}", "staleness", Hinge(3, 1)),
        ("staleness={name: cut-off, limit: 4}", "staleness", CutOff(4)),
        ("merge={name: trimmed-mean, fraction: 0.1}", "merge", TrimmedMean(0.1)),
        ("merge={name: norm-filtered, factor: 2}", "merge", NormFiltered(2)),
        ("compression={name: top-k, fraction: 0.2}", "compression", TopK(0.2)),
        ("compression=8-bit", "compression", Int8()),
        ("compression=none", "compression", None),
    ],
)
def test_a_rule_has_its_name_and_parameters(override: str, read: str, expected: object) -> None:
    assert getattr(build(f"federation.{override}"), read) == expected


def test_the_server_optimizer_and_the_bound_of_the_guard_are_settings() -> None:
    strategy = build(
        "federation.server_optimizer={name: adam, rate: 0.3, beta1: 0.5}", "federation.max_norm=7"
    )
    assert repr(strategy.server_optimizer) == repr(Adam(rate=0.3, beta1=0.5))
    assert strategy.guard.max_norm == 7


def test_a_rule_of_ones_own_is_a_function_or_a_class_with_parameters() -> None:
    rule: Callable[[int], float] = build(f"federation.staleness={__name__}:half_life").staleness
    assert rule(3) == 0.125
    merge = build(f"federation.merge={{name: '{__name__}:Scaled', factor: 3}}").merge
    deltas = [np.ones(2), np.zeros(2)]
    assert merge(deltas, np.array([0.5, 0.5])).tolist() == [1.5, 1.5]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("staleness=no_such_module:rule", "cannot be imported"),
        (f"staleness={{name: '{__name__}:half_life', x: 1}}", "has no parameters, but x is set"),
        (f"merge={{name: '{__name__}:Scaled', fact: 3}}", "its parameters: factor"),
    ],
)
def test_a_rule_that_cannot_be_built_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(f"federation.{override}")
