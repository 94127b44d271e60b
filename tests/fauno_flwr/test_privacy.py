"""Private runs: what the nodes send, what the server adds, and what the results tell."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fauno_flwr import client_app
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.federation.failures import RunFailedError
from fauno_flwr.federation.protocol import ARRAYS, METRICS
from fauno_flwr.federation.run import Run
from fauno_flwr.federation.sizing import Sizer
from fauno_flwr.federation.strategy import build_strategy
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.results.html.files import read_run
from fauno_flwr.results.html.notices import notices
from fauno_flwr.results.html.report import run_page
from fauno_flwr.results.prometheus import metrics_of
from fauno_flwr.results.state import State
from fauno_flwr.results.status import format_status, read_events, summarise_status
from fauno_flwr.tasks.edge import EdgeTask
from strategies import AdaptiveClip, CentralPrivacy, LocalPrivacy, ledger
from strategies.arrays import Layout, to_arrays
from strategies.grids import InMemoryGrid
from strategies.ledger import epsilon_of
from strategies.privacy import signal_to_noise
from tests.fauno_flwr.cosim.test_grid import SMALL
from tests.fauno_flwr.tiny import AGENTS, TINY, ask, train_message

pytest.importorskip("dp_accounting")

CENTRAL = ["federation.privacy.kind=central", "federation.privacy.noise_multiplier=2"]
ADAPTIVE = [*CENTRAL, "federation.privacy.clip_quantile=0.5"]
LOCAL = ["federation.privacy.kind=local", "federation.privacy.noise_multiplier=4"]
DELTA = 1e-5


def train(out: Path, *overrides: str) -> list[dict[str, Any]]:
    """Train in co-simulation; return the events."""
    config = load_config("ether2", [*SMALL, "federation.versions=6", *overrides])
    scenario = config.build_scenario()
    Run(
        CosimGrid(config, scenario), config, EdgeTask(config, scenario), RunDirectory(out)
    ).execute()
    return read_events(out)


def flushes(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "flush"]


@pytest.mark.parametrize("privacy", [CENTRAL, LOCAL], ids=["central", "local"])
def test_epsilon_is_in_events_metrics_summary_and_status(
    tmp_path: Path, privacy: list[str]
) -> None:
    events = train(tmp_path, *privacy)
    last = flushes(events)[-1]
    assert last["version"] == 6
    what = {name: last[name] for name in ("epsilon", "delta", "protects")}
    if privacy is CENTRAL:
        named = [member for event in flushes(events) for member in event["members"]]
    else:  # messages that were sent before the last version
        before = events[: events.index(last)]
        named = [event["name"] for event in before if event["event"] == "dispatch"]
    most = max(named.count(member) for member in named)
    assert last["epsilon"] == pytest.approx(epsilon_of(((2.0, most),), DELTA))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["privacy/epsilon"] for row in rows] == [e["epsilon"] for e in flushes(events)]
    assert "train/privacy_epsilon" not in rows[0]
    ratios = [signal_to_noise([e["merged_norm"]], [e["noise_norm"]]) for e in flushes(events)]
    assert [row["privacy/signal_to_noise"] for row in rows] == pytest.approx(ratios)
    page = run_page(tmp_path)
    assert f"Epsilon {what['epsilon']:.4g} at delta 1e-05 protects {what['protects']}." in page
    assert (f"Of a single message it is {last.get('message_epsilon', 0):.4g}" in page) == (
        privacy is LOCAL
    )
    (gauge,) = [m for m in metrics_of(events, "finished") if m.name == "fauno_privacy_epsilon"]
    (sample,) = gauge.samples
    assert sample.value == last["epsilon"]
    assert sample.labels == {"delta": "1e-05", "protects": what["protects"]}
    assert json.loads((tmp_path / "summary.json").read_text())["privacy"] == what
    state = State("finished")
    assert summarise_status(events, 6, state)["privacy"] == what
    assert f"epsilon {what['epsilon']:.4g} at delta 1e-05 (all updates of a node, " in (
        format_status(events, 6, state)
    )
    assert not [event for event in events if event["event"] in ("error", "reject")]


def test_a_run_without_privacy_shows_none(tmp_path: Path) -> None:
    events = train(tmp_path)
    assert "noise_norm" not in flushes(events)[-1]
    assert "fauno_privacy_epsilon" not in [m.name for m in metrics_of(events, "finished")]
    assert 'id="privacy"' not in run_page(tmp_path)


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_clip_that_adapts_moves_to_the_norms_of_the_updates(
    tmp_path: Path, factor: float
) -> None:
    """From ten times too large and too small. Nodes that met no task, with norm 0, say nothing."""

    def norms(made: list[dict[str, Any]]) -> list[float]:
        return [norm for event in made for norm in event["norms"] if norm > 0]

    usual = float(np.median(norms(flushes(train(tmp_path / "plain")))))
    events = train(
        tmp_path / "private",
        "federation.privacy.kind=central",
        "federation.privacy.noise_multiplier=1e-3",
        f"federation.privacy.clip={usual * factor}",
        "federation.privacy.clip_quantile=0.5",
        "federation.privacy.clip_learning_rate=0.5",
        "federation.versions=40",
    )
    made = flushes(events)
    assert made[0]["clip"] == pytest.approx(usual * factor)
    assert len(made) == 40
    assert abs(np.log(made[-1]["clip"] / np.median(norms(made[-10:])))) < np.log(2.5)
    text = (tmp_path / "private" / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["privacy/clip"] for row in rows] == [event["clip"] for event in made]
    page = run_page(tmp_path / "private")
    assert f"Norm to which updates are clipped; {made[-1]['clip']:.3g} in the end" in page


def test_a_clip_that_stays_has_no_chart(tmp_path: Path) -> None:
    events = train(tmp_path, *CENTRAL, "federation.versions=2")
    assert [event["clip"] for event in flushes(events)] == [1.0, 1.0]
    assert "Norm to which updates are clipped" not in run_page(tmp_path)


def test_decisions_are_counted_although_updates_have_no_weights(tmp_path: Path) -> None:
    events = train(tmp_path, *CENTRAL, "federation.buffer_size=1.0", "federation.refill=version")
    steps = sum(event["metrics"]["num-steps"] for event in events if event["event"] == "reply")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["time/total_timesteps"] == pytest.approx(steps, abs=1)


@pytest.mark.parametrize("privacy", [CENTRAL, LOCAL], ids=["central", "local"])
def test_a_co_simulation_repeats_its_noise(tmp_path: Path, privacy: list[str]) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        train(tmp_path / name, *privacy, f"seed={seed}")
    one, same, other = (
        (tmp_path / name / "checkpoints" / "critic.safetensors").read_bytes()
        for name in ("one", "same", "other")
    )
    assert one == same != other


def test_training_stops_at_the_budget_and_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    saving = [
        *CENTRAL,
        "federation.buffer_size=1.0",
        "federation.refill=version",
        f"federation.checkpoints={tmp_path / 'checkpoints'}",
    ]

    def until(versions: int) -> str:
        budget = epsilon_of(((2.0, versions),), DELTA) + 1e-6
        return f"federation.privacy.max_epsilon={budget!r}"

    events = train(tmp_path / "first", *saving, until(2))
    assert flushes(events)[-1]["version"] == 2
    status = format_status(events, 6, State("finished"))
    assert "the budget is over" in status
    said = " ".join(notices(read_run(tmp_path / "first")))
    assert "Training ended before an epsilon above" in said
    assert "scaled down" not in said  # clipping is no fault of a node
    more = train(tmp_path / "second", *saving, until(5))
    assert flushes(more)[-1]["version"] == 5
    assert flushes(more)[-1]["epsilon"] == pytest.approx(epsilon_of(((2.0, 5),), DELTA))


def test_a_budget_for_no_version_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"would pass federation.privacy.max_epsilon = 0.01"):
        train(tmp_path, *CENTRAL, "federation.privacy.max_epsilon=0.01")


def test_a_node_sends_its_update_with_noise_that_it_does_not_repeat() -> None:
    """Mutation: with a seeded generator, whoever knows the settings subtracts the noise."""
    config = load_config("ether2", [*TINY, *LOCAL, "federation.privacy.clip=0.5"])

    def update() -> np.ndarray:
        grid = InMemoryGrid(client_app.app, AGENTS)
        message = train_message(grid, config, 0, 0)
        base = to_arrays(message.content.array_records[ARRAYS])
        reply = ask(grid, message)
        metrics = reply.content.metric_records[METRICS]
        assert (metrics["privacy-clip"], metrics["privacy-noise-multiplier"]) == (0.5, 4.0)
        layout = Layout(base)
        sent = to_arrays(reply.content.array_records[ARRAYS])
        return layout.flatten(sent).astype(float) - layout.flatten(base)

    one, other = update(), update()
    # The same training: what differs is the noise, twice.
    difference = (one - other) / np.sqrt(2)
    assert stats.kstest(difference, "norm", args=(0.0, 4.0 * 0.5)).pvalue > 1e-4


def test_the_strategy_has_the_privacy_of_the_settings() -> None:
    def built(*overrides: str) -> Any:
        config = load_config("ether2", overrides)
        sizer = Sizer(config.training, lambda node_id: node_id)
        return build_strategy(config, sizer, noise_seed=3)

    assert built().privacy is None
    assert built().weighted_by_key == "num-steps"
    assert built(*LOCAL).privacy == LocalPrivacy(1.0, 4.0)
    assert built(*LOCAL).weighted_by_key == "num-steps"
    central = built(*CENTRAL, "federation.privacy.max_epsilon=7", "federation.privacy.delta=1e-4")
    assert central.privacy == CentralPrivacy(1.0, 2.0, 7.0, 1e-4, seed=3)
    assert central.weighted_by_key is None
    quantile = "federation.privacy.clip_quantile=0.7"
    assert built(*CENTRAL, quantile).privacy.adaptive == AdaptiveClip(0.7)
    rate = "federation.privacy.clip_learning_rate=0.1"
    assert built(*CENTRAL, quantile, rate).privacy.adaptive == AdaptiveClip(0.7, 0.1)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["federation.privacy.kind=both"], "federation.privacy.kind is 'both': must be one of"),
        (["federation.privacy.clip=2"], "federation.privacy.clip is 2.0: has no effect with"),
        ([*CENTRAL, "federation.privacy.clip=0"], "federation.privacy.clip is 0"),
        ([*CENTRAL, "federation.privacy.delta=1"], "federation.privacy.delta is 1"),
        ([*CENTRAL, "federation.privacy.clip_quantile=1"], "clip_quantile is 1.* at most 0.99"),
        (
            [*ADAPTIVE, "federation.privacy.clip_learning_rate=0"],
            "clip_learning_rate is 0.*: must be a finite number above 0 and at most 1",
        ),
        (
            [*CENTRAL, "federation.privacy.clip_learning_rate=0.5"],
            "clip_learning_rate is 0.5: has no effect with federation.privacy.clip_quantile=0.0",
        ),
        (
            [*LOCAL, "federation.privacy.clip_quantile=0.5"],
            "clip_quantile is 0.5: has no effect with federation.privacy.kind=local",
        ),
        (
            ["federation.privacy.clip_quantile=0.5"],
            "clip_quantile is 0.5: has no effect with federation.privacy.kind=none",
        ),
        ([*CENTRAL, "federation.merge=median"], "federation.merge is 'median': must be mean with"),
        (
            [*CENTRAL, "federation.weight_factor=2"],
            "federation.weight_factor is 2.0: has no",
        ),
        ([*CENTRAL, "federation.norm_factor=2"], "federation.norm_factor is 2.0: has no"),
    ],
)
def test_impossible_settings(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_config("ether2", overrides)


def test_without_the_accountant_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    ledger.epsilon_of.cache_clear()
    config = load_config("ether2", CENTRAL)
    with pytest.raises(ConfigError, match=r"pip install 'fauno-flwr\[privacy\]'"):
        config.federation.privacy.build(None)
