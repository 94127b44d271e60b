"""Trained actors in another network."""

import numpy as np
import pytest

from fauno_flwr.config.loading import load_config
from fauno_flwr.learning.registry import make_population
from fauno_flwr.tasks.transfer import make_trained, transfer
from sim_env.scenario import Scenario

SMALL = load_config("ether2", ["topology=ether2"]).build_scenario()
LARGE = load_config("ether2", ["topology=ether4"]).build_scenario()


def names_of(scenario: Scenario) -> list[str]:
    return [scenario.topology.names[node] for node in scenario.agents]


def trained(scenario: Scenario) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    """Actors that hold their number, and the roles of their nodes."""
    actors = {name: {"at": np.array(i)} for i, name in enumerate(names_of(scenario))}
    return actors, dict(zip(scenario.topology.names, scenario.topology.roles, strict=True))


def chosen(target: Scenario, seed: int = 1, keep_own: bool = True) -> list[str]:
    """Names of the nodes whose actors the agents of a target get."""
    names, (actors, role_of) = names_of(SMALL), trained(SMALL)
    found = transfer(actors, role_of, target, seed, keep_own=keep_own)
    return [names[int(actor["at"])] for actor in found]


def test_in_its_own_network_every_node_keeps_its_actor() -> None:
    assert chosen(SMALL) == names_of(SMALL)


@pytest.mark.parametrize("keep_own", [True, False])
def test_every_node_gets_an_actor_of_its_role(keep_own: bool) -> None:
    role_of = trained(SMALL)[1]
    roles = [role_of[name] for name in chosen(LARGE, keep_own=keep_own)]
    assert roles == [LARGE.topology.roles[node] for node in LARGE.agents]


def test_a_node_of_both_networks_keeps_its_actor_unless_all_are_drawn() -> None:
    both = set(names_of(SMALL)) & set(names_of(LARGE))
    assert len(both) > 5
    kept = dict(zip(names_of(LARGE), chosen(LARGE), strict=True))
    assert all(kept[name] == name for name in both)
    drawn = dict(zip(names_of(LARGE), chosen(LARGE, keep_own=False), strict=True))
    assert any(drawn[name] != name for name in both)


def test_draws_depend_on_the_seed_only() -> None:
    assert chosen(LARGE, 1) == chosen(LARGE, 1) != chosen(LARGE, 2)


def test_a_role_that_was_not_trained_is_one_sentence() -> None:
    actors, role_of = trained(SMALL)
    some = {name: actor for name, actor in actors.items() if role_of[name] != "nuc"}
    with pytest.raises(ValueError, match=r"^role of nuc_0 is 'nuc': must be a role of a trained"):
        transfer(some, role_of, SMALL, 1)


def test_agents_are_made_with_the_actors_that_are_given() -> None:
    config, rng = load_config("ether2"), np.random.default_rng(0)
    untrained = make_population(1, config, SMALL).get_actor()
    actors = [
        {name: rng.normal(size=array.shape).astype(np.float32) for name, array in untrained.items()}
        for _ in range(3)
    ]
    population = make_trained(actors, config, SMALL)
    assert population.agents == 3
    for agent, actor in enumerate(actors):
        for name, array in population.get_actor(agent).items():
            np.testing.assert_array_equal(array, actor[name])


def test_actors_of_another_network_are_one_sentence() -> None:
    actor = make_population(1, load_config("ether2", ["agent.hidden=16"]), SMALL).get_actor()
    for overrides in ([], ["agent.network=padded"]):
        with pytest.raises(ValueError, match="must"):
            make_trained([actor], load_config("ether2", overrides), SMALL)
