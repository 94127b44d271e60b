"""Networks in words."""

import pytest

from sim_env.envs.description import bits_per_second


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.5, "0.5 bit/s"),
        (56e3, "56 kbit/s"),
        (999_949.0, "1 Mbit/s"),
        (12_345_678.0, "12.3 Mbit/s"),
        (1e12, "1000 Gbit/s"),
    ],
)
def test_rates_have_three_figures_and_no_exponent(rate: float, text: str) -> None:
    assert bits_per_second(rate) == text
