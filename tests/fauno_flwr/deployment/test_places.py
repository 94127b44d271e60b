"""Places that are bound to the keys of SuperNodes, on the real engine; a minute or two."""

import json
from pathlib import Path

import pytest

from fauno_flwr.deployment.local import Deployment
from tests.fauno_flwr.deployment.conftest import Started

pytestmark = pytest.mark.slow


def test_every_agent_is_bound_to_the_key_of_its_node(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Deployment(3, tls=True, auth=True) as deployment:
        settings = (f"federation.checkpoints={state}", "federation.bind_keys=true")
        run = Started(deployment, tmp_path / "run", "federation.versions=2", *settings)
        run.wait(lambda: run.events("flush"))
        deployment.services["supernode-0"].process.kill()  # it returns with its key
        run.end()
    bound = json.loads((state / "keys.json").read_text())
    assert set(bound) == {"0", "1", "2"}
    assert len(set(bound.values())) == 3
