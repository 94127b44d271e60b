"""A service of a shared world that every test gets anew."""

from collections.abc import Iterator

import pytest

from fauno_flwr.shared_world.server import WorldService
from tests.fauno_flwr.shared_world.helpers import (
    serving,
    settings,
)


@pytest.fixture
def service() -> Iterator[WorldService]:
    with serving(settings()) as service:
        yield service
