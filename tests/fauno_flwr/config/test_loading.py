"""conf/ equals the dataclasses, and bad settings get one sentence."""

import dataclasses

import pytest
import yaml

from fauno_flwr.config.loading import choices, conf_dir, from_yaml, load_config
from fauno_flwr.config.settings import ConfigError, RunConfig
from sim_env.scenario import SCENARIOS

GROUPS = [
    item.name
    for item in dataclasses.fields(RunConfig)
    if dataclasses.is_dataclass(type(getattr(RunConfig(), item.name)))
]


def test_the_default_preset_equals_the_dataclasses() -> None:
    assert load_config("ether2") == RunConfig()


@pytest.mark.parametrize("name", SCENARIOS)
def test_presets_equal_the_scenarios_of_the_world(name: str) -> None:
    assert load_config(name).scenario_spec == SCENARIOS[name]()


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_holds_every_key_of_its_dataclass(group: str) -> None:
    keys = {item.name for item in dataclasses.fields(getattr(RunConfig(), group))}
    assert choices(group)
    for name in choices(group):
        path = conf_dir() / group / f"{name}.yaml"
        assert set(yaml.safe_load(path.read_text())) == keys, path
        assert getattr(load_config("ether2", [f"{group}={name}"]), group) is not None


def test_settings_survive_the_journey_as_yaml() -> None:
    config = load_config("balanced", ["seed=7", "evaluation.policies=[lq]"])
    assert from_yaml(config.to_yaml()) == config


def test_the_yaml_of_a_run_repeats_it(tmp_path) -> None:
    config = load_config("ether2", ["topology=ether4", "workload.rate=1"])
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert load_config(str(path)) == config


@pytest.mark.parametrize("turn", [1, -1])
def test_a_group_and_a_key_of_it_go_together_in_any_order(turn: int) -> None:
    overrides = ["topology=ether4", "topology.memory_per_task=430e6"][::turn]
    topology = load_config("ether2", overrides).topology
    assert (topology.clusters, topology.memory_per_task) == (4, 430e6)


@pytest.mark.parametrize("name", ["ether2", "balanced"])
def test_the_presets_have_the_stated_load(name: str) -> None:
    rho = {"ether2": 0.41, "balanced": 0.985}[name]
    assert load_config(name).build_scenario().rho == pytest.approx(rho, abs=0.005)


@pytest.mark.parametrize(
    ("conf", "overrides", "sentence"),
    [
        (
            "eter2",
            [],
            "conf is 'eter2': must be one of balanced, cartpole, ether2, paper, peersimgym",
        ),
        ("ether2", ["workload.rate=-1"], "workload.rate is -1.0: must be a finite number above 0"),
        ("ether2", ["workload.rate=nan"], "workload.rate is nan"),
        ("ether2", ["federation.bufer_size=3"], "did you mean federation.buffer_size?"),
        ("ether2", ["federation.buffer_size=20"], "is 20: must be at most 19"),
        ("ether2", ["federation.buffer_size=2.5"], "is 2.5: must be a whole number"),
        ("ether2", ["agent.hidden=abc"], "agent.hidden: Value 'abc'"),
        ("ether2", ["training.peers=lqq"], "training.peers is 'lqq'"),
        ("ether2", ["evaluation.policies=[lq,best]"], "evaluation.policies is 'best'"),
        ("ether2", ["topology=ether9"], "topology is 'ether9': must be one of"),
        ("ether2", ["topology=3"], "topology is 3: must be a name or a mapping"),
        ("ether2", ["nonsense=1"], "key is 'nonsense'"),
        ("ether2", ["observation=papr"], "observation is 'papr': must be one of full, paper"),
        ("ether2", ["reward.kind=dense"], "reward.kind is 'dense': must be one of delay"),
        ("ether2", ["workload.rate"], "must be of the form key=value"),
        ("ether2", ["workload.rate=[1"], "override 'workload.rate=[1'"),
        ("ether2", ["seed=99999999999999999999"], "seed"),
        ("ether2", ["physics.power=-3000"], "a link of node"),
        ("missing.yaml", [], "'missing.yaml' cannot be read"),
    ],
)
def test_bad_settings_get_one_sentence(conf: str, overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(conf, overrides).build_scenario()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
