"""Settings that nothing reads: refused if written by choice, discarded with an earlier choice."""

from pathlib import Path

import pytest

from fauno_flwr.config.agent import DDQNConfig
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import choices, from_yaml, load_config
from sim_env.network.topology import TopologySpec
from sim_env.workload.workload import WorkloadSpec


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["topology.nodes=30"], "topology.nodes is 30: has no effect with topology.kind=ether"),
        (["topology.nodes=20"], "topology.nodes is 20: has no effect with topology.kind=ether"),
        (["topology.path=n.json"], "has no effect with topology.kind=ether, must be left out"),
        (["topology=grid20", "topology.clusters=2"], "no effect with topology.kind=grid"),
        (["workload.path=/j.csv"], "has no effect with workload.jobs=alibaba"),
        (["workload.types=[{weight: 2}]"], "has no effect with workload.jobs=alibaba"),
        (["workload.schedule.low=1"], "has no effect with workload.schedule.kind=constant"),
        (["physics.rate=1e9"], "has no effect with physics.link=wireless"),
        (["physics=fixed", "physics.power=30"], "has no effect with physics.link=fixed"),
        (["reward=sparse", "reward.scale=3"], "has no effect with reward.kind=sparse"),
        (["reward.kind=my:own", "reward.utility=2"], "has no effect with reward.kind=my:own"),
        (["dynamics.node_mttr=5"], "has no effect with dynamics.node_mttf=0.0"),
        (["agent=paper", "agent.prior=3"], "has no effect with agent.network=padded"),
        (["world.nodes=3"], "world.nodes is 3: has no effect with world.kind=own"),
        (["world.keep=9"], "world.keep is 9: has no effect with world.kind=own"),
        (["world=gym", "workload.rate=3"], "workload.rate is 3.0: has no effect with world.kind"),
        (["world=shared", "training.peers=lq"], "has no effect with world.kind=shared"),
    ],
)
def test_a_setting_without_an_effect_is_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("ether2", overrides)
    assert sentence in str(caught.value)


def test_python_refuses_what_differs_from_the_default() -> None:
    with pytest.raises(ValueError, match=r"topology\.nodes is 30: has no effect"):
        TopologySpec(nodes=30)
    with pytest.raises(ValueError, match=r"workload\.path is '/x.csv': has no effect"):
        WorkloadSpec(path="/x.csv")
    assert TopologySpec("my_module:build", clusters=3, nodes=30).nodes == 30


@pytest.mark.parametrize("preset", choices("preset"))
def test_the_resolved_settings_of_a_preset_are_read(preset: str, tmp_path: Path) -> None:
    """They hold the defaults of what has no effect."""
    config = load_config(preset)
    assert from_yaml(config.to_yaml()) == config
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert load_config(str(path)) == config


def test_another_kind_discards_the_settings_of_the_one_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(load_config("balanced", ["topology=ether4"]).to_yaml())
    found = load_config(str(path), ["topology.kind=ring", "reward.kind=sparse"])
    assert found.topology == TopologySpec("ring", memory_per_task=320e6)
    assert (found.reward.scale, found.reward.overload_weight) == (10.0, 3.0)
    assert load_config("peersimgym", ["physics.link=fixed"]).physics.noise_bandwidth == "link"
    path.write_text(load_config("ether2", ["agent.clip=0.1", "agent.hidden=8"]).to_yaml())
    assert load_config(str(path), ["agent.algorithm=ddqn"]).agent == DDQNConfig(
        hidden=8, prior=10.0, learning_rate=3e-3
    )


def test_a_file_written_by_hand_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("topology:\n  nodes: 20\n")
    with pytest.raises(ConfigError, match=r"topology\.nodes is 20: has no effect"):
        load_config(str(path))


@pytest.mark.parametrize(
    ("command", "override"),
    [
        ("compare", "seed=2"),
        ("compare", "agent.hidden=8"),
        ("compare", "federation.versions=3"),
        ("evaluate", "training.ticks=5"),
        ("evaluate", "agent=ddqn"),
        ("evaluate", "federation.versions=3"),
        ("train", "training.peers=lq"),
        ("train", "training=deployment"),
        ("train", "federation.wait_for_nodes=3"),
        ("simulate", "cosim.training_work=1"),
        ("deploy local", "cosim.server=nuc_0"),
    ],
)
def test_a_command_refuses_overrides_that_it_does_not_read(command: str, override: str) -> None:
    with pytest.raises(ConfigError, match=f"has no effect in fauno {command}, must be left out"):
        load_config("ether2", [override], command)
    load_config("ether2", [override])  # another command may read it
