"""CPU time of an update with each critic, and with each number of decisions and slots.

Compare the ratios within one run, not times between machines.
"""

import numpy as np
import pytest
import torch

from fauno_flwr.config.agent import CRITICS, PPOConfig
from fauno_flwr.learning.ppo import Population
from fauno_flwr.learning.transitions import Decisions
from sim_env.engine.features import OBSERVATIONS

FULL = OBSERVATIONS["full"]


def decisions(rows: int, slots: int) -> Decisions:
    """Return random decisions, all slots of which are legal."""
    rng = np.random.default_rng(0)
    return Decisions(
        local=rng.standard_normal((rows, FULL.local)).astype(np.float32),
        destination=rng.standard_normal((rows, slots, FULL.destinations)).astype(np.float32),
        mask=np.ones((rows, slots), np.bool_),
        action=rng.integers(slots, size=rows),
        reward=rng.standard_normal(rows).astype(np.float32),
        last=np.arange(rows) == rows - 1,
    )


@pytest.mark.parametrize(("rows", "slots"), [(350, 6), (9000, 10)])
@pytest.mark.parametrize("critic", CRITICS)
def test_an_update_of_one_agent(benchmark, critic: str, rows: int, slots: int) -> None:
    """One message of a client."""
    torch.set_num_threads(1)
    population = Population(1, PPOConfig(critic=critic), 0)
    batch, rng = decisions(rows, slots), np.random.default_rng(0)
    benchmark.pedantic(lambda: population.update([batch], 1e-3, [rng]), rounds=7, warmup_rounds=1)
