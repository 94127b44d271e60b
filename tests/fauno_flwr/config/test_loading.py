"""Files of conf/, layers of settings, and one sentence for a bad setting."""

import dataclasses

import pytest
import yaml

from fauno_flwr.config.agent import DDQNConfig, PPOConfig
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import choices, conf_dir, from_yaml, load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.sizing import Sizer
from fauno_flwr.federation.strategy import build_strategy
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
def test_a_file_holds_what_differs_from_its_dataclass(group: str) -> None:
    assert choices(group)
    for name in choices(group):
        path = conf_dir() / group / f"{name}.yaml"
        built = getattr(load_config("ether2", [f"{group}={name}"]), group)
        reference = PPOConfig() if group == "agent" else type(built)()
        for key, value in (yaml.safe_load(path.read_text()) or {}).items():
            assert getattr(built, key) != getattr(reference, key), f"{path}: {key}: {value}"


@pytest.mark.parametrize("preset", choices("preset"))
def test_a_preset_holds_what_differs_from_the_default(preset: str) -> None:
    config, default = load_config(preset), RunConfig()
    values = yaml.safe_load((conf_dir() / "preset" / f"{preset}.yaml").read_text()) or {}
    for key, value in values.items():
        assert getattr(config, key) != getattr(default, key), key
        if isinstance(value, dict):
            for name in value:
                assert getattr(getattr(config, key), name) != getattr(getattr(default, key), name)


def test_a_group_chosen_by_name_replaces_an_earlier_choice() -> None:
    """A file holds differences: what an earlier file of the group has set must not remain."""
    assert load_config("paper", ["agent=ppo"]).agent == PPOConfig()
    assert load_config("balanced", ["topology=ether2"]).topology == RunConfig().topology


def test_the_settings_of_an_algorithm_are_its_own() -> None:
    agent = load_config("ether2", ["agent.algorithm=ddqn", "agent.hidden=16", "agent.replay=50"])
    assert agent.agent == DDQNConfig(hidden=16, replay=50)
    for override in ("agent.clip=0.1", "agent.entropy=0"):
        with pytest.raises(ConfigError, match="key is 'agent"):
            load_config("ether2", ["agent=ddqn", override])
    with pytest.raises(ConfigError, match=r"key is 'agent\.replay'"):
        load_config("ether2", ["agent.replay=50"])


@pytest.mark.parametrize(
    ("written", "value", "needed"), [("1", 1, 1), ("1.0", 1.0, 19), ("0.5", 0.5, 10), ("7", 7, 7)]
)
def test_a_whole_buffer_size_counts_nodes_and_a_fraction_is_of_all(
    written: str, value: float, needed: int
) -> None:
    config = load_config("ether2", [f"federation.buffer_size={written}"])
    again = from_yaml(config.to_yaml()).federation.buffer_size
    assert (again, type(again)) == (value, type(value))
    strategy = build_strategy(config, Sizer(config.training, lambda node_id: node_id))
    assert strategy.updates_needed(19) == needed


def test_settings_survive_a_round_trip_through_yaml() -> None:
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
        ("ether2", ["agent.hidden=abc"], "agent.hidden is 'abc': must be a whole number"),
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
        ("ether2", ["agent.algorithm=ppp"], "agent.algorithm is 'ppp': must be one of ppo, ddqn"),
        ("ether2", ["agent.algorithm=no_module:X"], "agent.algorithm is 'no_module:X': cannot be"),
        ("ether2", ["agent.algorithm=os.path:join"], "must have a class attribute Config"),
        ("ether2", ["agent.network=cnn"], "agent.network is 'cnn': must be one of equivariant"),
        ("ether2", ["federation.merge=meen"], "federation.merge is 'meen': must be one of mean"),
        ("ether2", ["federation.merge={fraction: 1}"], "must be a name, or a mapping with a name"),
        (
            "ether2",
            ["federation.merge={name: trimmed-mean, fraction: 0.7}"],
            "federation.merge.fraction is 0.7",
        ),
        (
            "ether2",
            ["federation.staleness={name: polynomial, power: 1}"],
            "federation.staleness.polynomial: got an unexpected keyword argument 'power'; its "
            "parameters: exponent",
        ),
        (
            "ether2",
            ["federation.compression={name: none, fraction: 1}"],
            "federation.compression: none has no parameters, but fraction is set",
        ),
        ("ether2", ["federation.server_optimizer=[1]"], "federation.server_optimizer is [1]"),
        ("ether2", ["federation.max_norm=0"], "federation.max_norm is 0"),
        ("ether2", ["cosim.slowdown={rpi_3: 0}"], "cosim.slowdown.rpi_3 is 0"),
        (
            "ether2",
            ["cosim.slowdown='rpi_3 10'"],
            "cosim.slowdown is 'rpi_3 10': must be of the form {rpi_3: 10, nuc_0: 2}",
        ),
        (
            "ether2",
            ["dynamics.nodes='rpi_3 20-60'"],
            "dynamics.nodes is 'rpi_3 20-60': must be of the form {rpi_3: [{down: 20, up: 60}]",
        ),
        (
            "ether2",
            ["dynamics.nodes={rpi_3: [{dwn: 20}]}"],
            "dynamics.nodes is {'rpi_3': [{'dwn': 20}]}: must be of the form {rpi_3: [{down: 20",
        ),
        (
            "ether2",
            ["workload.schedule.steps=1-100"],
            "workload.schedule.steps is '1-100': must be of the form [{multiplier: 1, seconds: 10",
        ),
        ("ether2", ["world.heuristic=my_module:Rule"], "world.heuristic is 'my_module:Rule'"),
        (
            "ether2",
            ["physics.quirks.queue_ordr=lifo"],
            "key is 'physics.quirks.queue_ordr': must be one of physics.quirks.queue_order, ",
        ),
    ],
)
def test_bad_settings_get_one_sentence(conf: str, overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(conf, overrides).build_scenario()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
