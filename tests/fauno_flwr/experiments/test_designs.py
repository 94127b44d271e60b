"""What an experiment is made of: its methods and cells, and what becomes of one cell."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fauno_flwr.config.loading import load_config
from fauno_flwr.experiments import EXPERIMENTS
from fauno_flwr.experiments.cells import fingerprint, run_cell, train
from fauno_flwr.experiments.design import (
    DEVELOPMENT_SEED,
    HELD_OUT_SEED,
    Arm,
    Condition,
    Design,
    Experiment,
    cells,
)
from fauno_flwr.experiments.methods import METHODS, Method
from fauno_flwr.learning.registry import make_population
from sim_env.policies.heuristics import POLICIES
from tests.fauno_flwr.experiments.tiny import SHORT, SMALL, TINY, tiny


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_made_of_cells_with_names_of_their_own(name: str) -> None:
    made = cells(EXPERIMENTS[name], True, 1)
    keys = [cell.key for cell in made]
    assert len(set(keys)) == len(keys)
    assert set(EXPERIMENTS[name].rivals) <= {
        "lq",
        "sed",
        "threshold",
        *EXPERIMENTS[name].methods,
    }
    assert {cell.method for cell in made} - {"heuristics"} <= set(EXPERIMENTS[name].methods)
    # Or the tables would mix a method and a heuristic.
    assert not set(EXPERIMENTS[name].methods) & {*POLICIES, *EXPERIMENTS[name].heuristics}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_nothing_is_evaluated_on_seeds_of_training_or_development(name: str) -> None:
    """But for the tuning, which has no part in any result."""
    first, end = HELD_OUT_SEED, 10_000_000
    if name == "tuning":
        first, end = DEVELOPMENT_SEED, HELD_OUT_SEED
    for cell in cells(EXPERIMENTS[name], True, 2):
        for world in cell.worlds.values():
            assert first <= min(world.evaluation.seeds) < end
        assert cell.training is None or cell.training.seed < 1000


def test_the_full_baseline_is_on_worlds_of_its_own_and_the_quick_one_where_it_was() -> None:
    design = EXPERIMENTS["baseline"].design
    assert (design(True).first_world, design(False).first_world) == (HELD_OUT_SEED, 4_000_000)


@pytest.mark.parametrize("name", ["baseline", "buffer", "gossip"])
def test_arms_get_the_same_data_whatever_makes_a_version(name: str) -> None:
    for cell in cells(EXPERIMENTS[name], True, 1):
        if cell.training:
            agents = len(cell.training.build_scenario().agents)
            federation = cell.training.federation
            size = agents if federation.merging == "gossip" else federation.buffer_size
            updates = cell.training.federation.versions * (size if size >= 1 else size * agents)
            assert updates / agents == pytest.approx(EXPERIMENTS[name].design(True).messages, 0.1)


def test_only_some_methods_can_be_asked_for() -> None:
    some = cells(EXPERIMENTS["baseline"], True, 1, ["fauno", "scratch"])
    assert {cell.method for cell in some} == {"heuristics", "fauno", "scratch"}
    with pytest.raises(ValueError, match=r"method is 'funo': .*did you mean fauno"):
        cells(EXPERIMENTS["baseline"], True, 1, ["funo"])
    with pytest.raises(ValueError, match=r"methods are sync: must have 'fauno' among them"):
        cells(EXPERIMENTS["baseline"], True, 1, ["sync"])


def test_methods_are_compared_as_their_presets_evaluate() -> None:
    for name, method in METHODS.items():
        preset = load_config("paper" if name == "paper" else "ether2")
        assert method.greedy == preset.evaluation.greedy


def test_a_cell_is_a_matter_of_its_settings_only(done) -> None:
    cell = next(cell for cell in cells(TINY, True, 2) if cell.key == "small.fauno.2")
    first = next(found for found in done[1] if found["key"] == cell.key)
    again = json.loads(json.dumps(run_cell(cell)))
    assert again["worlds"]["small"]["policies"]["greedy"]["finished_ratio"] == pytest.approx(
        first["worlds"]["small"]["policies"]["greedy"]["finished_ratio"], rel=1e-5
    )
    assert again["training"]["versions"] == 4
    assert len(again["worlds"]["small"]["policies"]["sampled"]["response_mean"]) == 3


def test_training_seeds_differ_and_worlds_are_common(done) -> None:
    by_key = {found["key"]: found for found in done[1]}
    one, two = (by_key[f"small.fauno.{seed}"]["worlds"]["small"] for seed in (1, 2))
    assert one["policies"]["greedy"]["created"] == two["policies"]["greedy"]["created"]
    heuristics = by_key["small.heuristics"]["worlds"]["small"]["policies"]
    assert heuristics["sed"]["created"] == one["policies"]["greedy"]["created"]
    assert by_key["small.fauno.1"]["training"] != by_key["small.fauno.2"]["training"]


def test_agents_observe_in_the_evaluation_as_they_did_in_training() -> None:
    def paper(quick: bool) -> Design:
        return replace(tiny(quick), arms=[Arm("paper", "small")], messages=1)

    heuristics, trained = cells(Experiment("paper", "?", paper, METHODS), True, 1)
    by_cell = [run_cell(cell)["worlds"]["small"]["policies"] for cell in (heuristics, trained)]
    assert by_cell[1]["greedy"]["created"] == by_cell[0]["sed"]["created"]


def test_newcomers_are_evaluated_before_and_after_they_learn() -> None:
    """With what others share, and without; at first they have nothing but that."""
    source = Condition("source", "source", SMALL, SHORT, 2)
    stages = [
        Condition(name, name, ("topology=random10", *SMALL[1:]), SHORT, 4, (), "source", decisions)
        for name, decisions in (("first", 0), ("early", 5), ("end", None))
    ]
    arms = [Arm(name, "end", ("first", "early", "end")) for name in ("shared", "alone")]
    methods = {
        "shared": Method("shared"),
        "alone": Method("alone", ("federation.share=nothing",)),
    }
    design = Design([source, *stages], arms, 2)
    made = cells(Experiment("new", "?", lambda quick: design, methods), True, 1)
    shared, alone = (cell for cell in made if cell.training)
    assert shared.start is not None
    assert shared.start.topology == next(iter(made)).worlds["source"].topology
    assert alone.start is None
    assert fingerprint(shared) != fingerprint(replace(shared, start=None))
    assert fingerprint(shared) != fingerprint(replace(shared, decisions={"first": 1}))

    trained = train(shared.training, shared.start, {0, 5})
    assert sorted(trained.earlier) == [0, 5]
    received = train(shared.start).shared
    untrained = make_population(1, shared.training, shared.training.build_scenario()).get_actor()
    for actor in trained.earlier[0]:
        for name, array in actor.items():
            part, _, rest = name.partition(".")
            expected = received[rest] if part == "critic" else untrained[name]
            assert np.array_equal(array, expected)
    stage = [trained.earlier[0], trained.earlier[5], trained.actors]
    for before, after in pairwise(stage):
        pairs = zip(before, after, strict=True)
        assert any(not np.array_equal(b[name], a[name]) for b, a in pairs for name in b)

    found = run_cell(alone)["worlds"]
    assert list(found) == ["first", "early", "end"]
    finished = [found[name]["policies"]["greedy"]["finished_ratio"] for name in found]
    assert finished[0] != finished[2]
    with pytest.raises(ValueError, match=r"decisions is 100000: must be at most \d+ here"):
        train(alone.training, None, {100_000})
