"""Every setting of a run changes what a co-simulation does, or is refused by it."""

import json
from pathlib import Path

import pytest
import torch

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.gossip import make_grid
from fauno_flwr.federation.logs import quiet_flower
from fauno_flwr.federation.run import Run
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.tasks.edge import EdgeTask
from tests.fauno_flwr.config.effects import leaves, require_effect

SMALL = [
    "topology=ether1",
    "workload.rate=4",
    "training.worlds=1",
    "training.ticks=60",
    "training.warmup=20",
    "agent.hidden=8",
    "federation.versions=4",
    "federation.collect_actors=true",
    "evaluation.worlds=2",
    "evaluation.warmup=20",
    "evaluation.window=100",
    "evaluation.policies=[sed]",
]
GROUPS = ("seed", "agent", "training", "federation", "cosim", "evaluation", "world")
BASES: list[tuple[list[str], tuple[str, ...]]] = [
    ([], GROUPS),
    (["agent=ddqn", "federation.share=model"], ("agent",)),
    (["federation.privacy.kind=central"], ("federation.privacy",)),
    (
        ["federation.privacy.kind=central", "federation.privacy.clip_quantile=0.5"],
        ("federation.privacy",),
    ),
    (["federation.privacy.kind=local"], ("federation.privacy",)),
    (["federation.merging=gossip"], ("cosim",)),
    (["federation.merging=gossip", "cosim.slowdown={rpi_0: 50}"], ("federation",)),
    (["federation.merging=gossip", "federation.graph=random"], ("federation.peers",)),
]
SETTINGS = [
    # Double DQN has no critic to share.
    (("federation.share=model",) if key == "agent.algorithm" else tuple(base), key)
    for base, groups in BASES
    for key, _ in leaves(load_config("ether2", base))
    if any(key == group or key.startswith(f"{group}.") for group in groups)
]


class Runs:
    """Co-simulations in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.expected: dict[tuple[str, ...], bytes] = {}

    def fingerprint(self, config: RunConfig) -> bytes:
        """Run; return critics and actors (the best too), events, table, and what else is there."""
        self.count += 1
        directory = RunDirectory(self.folder / str(self.count))
        scenario = config.build_scenario()
        torch.set_num_threads(1)
        grid = make_grid(config, scenario)
        with quiet_flower():
            rows = Run(grid, config, EdgeTask(config, scenario), directory).execute()
        files = sorted(directory.path.glob("checkpoints/**/*.safetensors"))
        saved = config.federation.checkpoints and Path(config.federation.checkpoints).exists()
        parts = [path.read_bytes() for path in files]
        text = (directory.path / "events.jsonl").read_text()
        events = [json.loads(line) for line in text.splitlines()]
        told = ("event", "version", "t", "epsilon")
        kinds = [[event.get(name) for name in told] for event in events]
        replay = (directory.path / "replay.npz").exists()
        return b"|".join([*parts, json.dumps([kinds, rows, bool(saved), replay]).encode()])

    def base(self, settings: tuple[str, ...]) -> bytes:
        """Return the fingerprint without a change, which is the same every time."""
        if settings not in self.expected:
            config = load_config("ether2", [*SMALL, *settings], "train")
            found = [self.fingerprint(config) for _ in range(2)]
            assert found[0] == found[1]
            self.expected[settings] = found[0]
        return self.expected[settings]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
@pytest.mark.parametrize(("base", "key"), SETTINGS, ids=[" ".join((k, *b)) for b, k in SETTINGS])
def test_every_setting_of_a_run_has_an_effect_or_is_refused(
    base: tuple[str, ...], key: str, runs: Runs
) -> None:
    expected = runs.base(base)
    settings = [*SMALL, *base]
    require_effect(settings, key, runs.fingerprint, expected, runs.folder, "train")
