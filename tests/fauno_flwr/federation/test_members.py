"""Which node is which agent, when nodes come and go."""

from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fauno_flwr.federation.members import Members
from strategies.grids import InMemoryGrid


class Grid(InMemoryGrid):
    """A grid whose nodes leave, and that counts the questions to each."""

    offline: set[int]
    asked: list[int]

    def get_node_ids(self) -> list[int]:
        return [node_id for node_id in super().get_node_ids() if node_id not in self.offline]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        kept = list(messages)
        self.asked += [message.metadata.dst_node_id for message in kept]
        return list(super().push_messages(kept))


class Federation:
    """Nodes 1000, 1001, ... of which node i says it is agent i modulo 2, or fails."""

    def __init__(self, nodes: int, failing: set[int]) -> None:
        app, self.failing = ClientApp(), failing

        @app.query()
        def query(message: Message, context: Context) -> Message:
            number = int(context.node_config["partition-id"])
            if number in self.failing:
                raise RuntimeError("not now")
            return Message(
                RecordDict({"node": ConfigRecord({"agent": number % 2})}), reply_to=message
            )

        self.grid = Grid(app, nodes)
        self.grid.asked, self.grid.offline = [], set()
        self.members = Members(
            {1000: 0, 1001: 1},
            lambda node_id: Message(RecordDict(), node_id, "query", ttl=60),
            lambda reply: int(reply.content.config_records["node"]["agent"]),
            self.grid.clock,
        )

    def after(self, seconds: float) -> list[int]:
        end = self.grid.clock.monotonic() + seconds
        while self.grid.clock.monotonic() < end:
            found = self.members(self.grid)
            self.grid.clock.sleep(1.0)
        return found


@pytest.fixture
def federation() -> Federation:
    return Federation(4, {3})


def test_one_that_comes_back_takes_its_place_when_the_old_id_has_left(
    federation: Federation,
) -> None:
    assert federation.after(10) == [1000, 1001]
    federation.grid.offline.add(1000)
    assert federation.after(10) == [1001, 1002]
    assert federation.members.agent_of[1002] == 0


def test_one_that_did_not_answer_is_asked_again_ever_more_rarely(federation: Federation) -> None:
    federation.grid.offline.add(1001)
    federation.after(200)
    often = federation.grid.asked.count(1003)
    assert 4 <= often <= 8
    federation.failing.clear()
    assert 1003 in federation.after(Members.LONGEST_BACKOFF + 5)
    federation.after(50)
    assert federation.grid.asked.count(1003) <= often + 2
