"""Deployments on loopback with short trainings, and the results of their runs."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fauno_flwr.config.loading import load_config
from fauno_flwr.deployment.engine import stage_app
from fauno_flwr.deployment.local import Deployment
from fauno_flwr.results.directory import read_lines

LITTLE = [
    "training.worlds=2",
    "training.ticks=40",
    "training.seconds_per_message=4",
    "evaluation.worlds=2",
    "evaluation.warmup=20",
    "evaluation.window=60",
]
THREE = ["training=deployment", "topology=full20", "topology.nodes=3", *LITTLE]
COMPLETED = "finished:completed"


class Started:
    """A run of three nodes in a deployment."""

    def __init__(self, deployment: Deployment, out: Path, *settings: str) -> None:
        self.deployment, self.out = deployment, out
        config = {"conf": "ether2", "overrides": " ".join([*THREE, *settings]), "out": str(out)}
        app = deployment.home / "app"
        if not app.exists():
            stage_app(app)
        self.run_id = deployment.submit_run(app, config)

    def events(self, kind: str = "", node: str = "") -> list[dict[str, Any]]:
        return [
            event
            for event in read_lines(self.out / "events.jsonl")
            if kind in ("", event["event"]) and node in ("", event.get("name"))
        ]

    def wait(self, until: Callable[[], Any], patience: float = 240.0) -> Any:
        """Wait for a condition; fail if the run ends before."""
        end, polled = time.monotonic() + patience, time.monotonic()
        while not (found := until()):
            assert time.monotonic() < end, self.said()
            if time.monotonic() - polled > 10:  # polling takes a second
                status, details = self.deployment.status(self.run_id)
                polled, found = time.monotonic(), until()
                assert found or not status.startswith("finished"), f"{details}\n{self.said()}"
            time.sleep(0.2)
        return found

    def end(self, patience: float = 240.0) -> None:
        """Wait until the run is complete."""

        def done() -> bool:
            return [event["stage"] for event in self.events("stage")][-1:] == ["done"]

        self.wait(done, patience)
        end = time.monotonic() + 60
        while not (status := self.deployment.status(self.run_id)[0]).startswith("finished"):
            assert time.monotonic() < end, self.said()
            time.sleep(1)
        assert status == COMPLETED, self.said()

    def said(self) -> str:
        logs = [f"{path.name}\n{path.read_text()[-1500:]}" for path in self.logs()]
        return "\n".join([self.deployment.run_log(self.run_id)[-3000:], *logs])

    def logs(self) -> list[Path]:
        return sorted(self.deployment.home.glob("*.log"))

    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.out / "summary.json").read_text()))


def names_of(run: Started) -> dict[int, str]:
    """Return the name of each agent, once the run has written its settings."""
    settings = run.out / "config.yaml"
    run.wait(settings.exists)
    scenario = load_config(str(settings)).build_scenario()
    return {i: str(scenario.topology.names[node]) for i, node in enumerate(scenario.agents)}
