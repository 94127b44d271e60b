"""Exported actors: the loader beside them needs neither this package nor torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from fauno_flwr.config.agent import CRITICS
from fauno_flwr.config.loading import load_config
from fauno_flwr.learning.ppo import Population
from fauno_flwr.tasks.export import FEATURES
from fauno_flwr.tasks.load_actor import load_actor
from fauno_flwr.tasks.trained import load_agents
from sim_env.engine.features import OBSERVATIONS
from sim_env.world import World
from tests.fauno_flwr.federation.test_node_state import Node
from tests.fauno_flwr.tasks.test_trained import write_run
from tests.fauno_flwr.tiny import TINY

KINDS = {
    "equivariant": ("agent.critic=state",),
    "padded": ("agent=paper", "observation=paper"),
    "action critic": ("agent.critic=action",),
    "ddqn": ("agent=ddqn", "federation.share=model"),
}
# Runs beside the exported files: prints the probabilities of the stored decisions.
SCRIPT = """
import sys
import numpy as np
from load_actor import load_actor
probabilities = load_actor(sys.argv[1])
seen = np.load(sys.argv[2])
found = [probabilities(*row) for row in zip(seen["local"], seen["destination"], seen["mask"])]
np.save(sys.argv[3], np.array(found))
assert not {"torch", "fauno_flwr", "sim_env"} & set(sys.modules)
"""


def export(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def decisions(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the features of decisions in the network of a run, with different masks."""
    scenario = load_config(str(run / "config.yaml")).build_scenario()
    world, rng = World(scenario, range(8)), np.random.default_rng(0)
    for _ in range(40):
        world.step(rng.integers(0, 2, (8, world.num_nodes)).astype(np.int32))
    seen = world.observe()
    assert (seen.mask.sum(axis=1) > 1).any()
    return *seen.features(), seen.mask


@pytest.mark.parametrize("kind", KINDS)
def test_the_loader_gives_the_probabilities_of_the_actor(kind: str, tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run", *KINDS[kind]), tmp_path / "out"
    printed = export(run, "--out", out)
    agents = load_agents(run)
    local, destination, mask = decisions(run)
    np.savez(tmp_path / "seen.npz", local=local, destination=destination, mask=mask)
    assert printed.count(".safetensors") == len(agents.names)
    agent = len(agents.names) - 1
    file = out / f"{agents.names[agent]}.safetensors"
    subprocess.run(
        [sys.executable, "-c", SCRIPT, file, tmp_path / "seen.npz", tmp_path / "found.npy"],
        check=True,
        cwd=out,
    )
    found = np.load(tmp_path / "found.npy")
    stack = [torch.from_numpy(x).unsqueeze(0) for x in (local, destination, mask)]
    with torch.no_grad():
        one = agents.population.select([agent])
        scores = sum(
            weight * one.networks[name].logits(*stack)[0] for name, weight in one.acting.items()
        )
    if kind == "ddqn":
        expected = np.eye(mask.shape[1])[scores.argmax(1).numpy()]
    else:
        expected = torch.softmax(scores, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)
    about = json.loads((out / "actor.json").read_text())
    assert (about["local"], about["destinations"]) == (local.shape[1], destination.shape[2])
    assert about["network"] == ("padded" if kind == "padded" else "equivariant")


@pytest.mark.parametrize("critic", CRITICS)
def test_the_owner_of_a_node_exports_its_actor_without_the_server(
    critic: str, tmp_path: Path
) -> None:
    config = load_config("ether2", [*TINY, f"agent.critic={critic}"])
    node = Node(config, str(tmp_path / "state"))
    node.train()
    export("--state-dir", tmp_path / "state", "--out", tmp_path / "out")
    about = json.loads((tmp_path / "out" / "actor.json").read_text())
    assert about["files"] == {"agent-0": "agent-0.safetensors"}
    assert (about["observation"], about["scores"]) == ("full", "logits")
    run = write_run(tmp_path / "run", *TINY)
    local, destination, mask = decisions(run)
    row = mask.sum(axis=1).argmax()
    local, destination, mask = local[row], destination[row], mask[row]
    mine = Population(1, config.agent, config.seed)
    untrained = mine.policy().scores(0, local[None], destination[None], mask[None])[0]
    mine.load(node.grid.contexts[1000].state.config_records["agent"]["parameters"])
    scores = mine.policy().scores(0, local[None], destination[None], mask[None])[0]
    assert not np.array_equal(scores, untrained)
    expected = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    found = load_actor(tmp_path / "out" / "agent-0.safetensors")(local, destination, mask)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_one_node_can_be_chosen(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    export(run, "--node", "rpi_1", "--out", tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "actor.json",
        "load_actor.py",
        "rpi_1.safetensors",
    ]


def test_the_features_of_every_built_in_observation_are_named() -> None:
    for name, encoding in OBSERVATIONS.items():
        assert len(FEATURES[name]["local"]) == encoding.local
        assert len(FEATURES[name]["destinations"]) == encoding.destinations


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{run}"], "out is missing: must be a new folder"),
        (["--out", "{out}"], "needs the folder of a run, or --state-dir"),
        (["{run}", "--state-dir", "{run}", "--out", "{out}"], "needs the folder of a run, or"),
        (
            ["{run}", "--observation", "full", "--out", "{out}"],
            "no effect with the folder of",
        ),
        (["--state-dir", "{run}", "--best", "--out", "{out}"], "--best has no effect with --state"),
        (["--state-dir", "{run}", "--node", "rpi_1", "--out", "{out}"], "--node has no effect"),
        (["{run}", "--node", "rpi_99", "--out", "{out}"], "node is 'rpi_99': must be one of"),
        (["{run}", "--best", "--out", "{out}"], "holds no best actors"),
        (["{none}", "--out", "{out}"], "holds no config.yaml"),
        (["--state-dir", "{run}", "--out", "{out}"], "holds no agent-<number>.state"),
        (["--state-dir", "{bad}", "--out", "{out}"], "cannot be read"),
        (["{run}", "--out", "{run}"], "is not empty"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", "topology=ether1")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "agent-0.state").write_text("not json\n")
    places = {"run": run, "out": tmp_path / "o", "none": tmp_path / "n", "bad": tmp_path / "bad"}
    done = CliRunner().invoke(app, ["export", *(a.format(**places) for a in arguments)])
    assert done.exit_code == 2
    assert sentence in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "o").exists()
