"""How much of a run is computed at once, by the memory that is free."""

import pytest

from fauno_flwr.config.loading import load_config
from fauno_flwr.tasks.memory import evaluations_at_once
from sim_env import memory


def test_no_more_policies_are_evaluated_at_once_than_fit_into_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = load_config("ether2", [])
    scenario = config.build_scenario()
    found = []
    for available in (1e3, 1e6, 1e7, 1e8, 1e9):
        monkeypatch.setattr(memory, "available_memory", lambda free=available: free)
        found.append(evaluations_at_once(config, scenario, 8))
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 8)
    assert set(found) - {1, 8}, "between too little and plenty, some"
