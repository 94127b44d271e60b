"""Replies downloaded in threads, beside the event loop."""

import threading
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from strategies.background import BackgroundGrid
from strategies.flower_internals import (
    HttpGrid,
    ObjectPushError,
    empty_run,
    set_identity,
    set_metadata,
)


class FakeSuperLink:
    """The calls of the Runtime API with which a grid pulls."""

    def __init__(self) -> None:
        self.replies: dict[str, Message] = {}
        self.objects: dict[str, bytes] = {}
        self.withheld: set[str] = set()
        self.released = threading.Event()
        self.confirmed: list[str] = []
        self.errors: list[int] = []

    def add(self, question: str, reply: Message) -> None:
        set_metadata(reply, message_id=reply.object_id)
        self.replies[question] = reply
        self.objects |= {key: each.deflate() for key, each in get_all_nested_objects(reply).items()}

    def PullMessages(self, request: Any) -> Any:  # noqa: N802
        if self.errors:
            answer = httpx.Response(self.errors.pop(0), request=httpx.Request("POST", "http://x"))
            answer.raise_for_status()
        found = [self.replies.pop(i) for i in request.message_ids if i in self.replies]
        return PullAppMessagesResponse(
            messages_list=[message_to_proto(remove_content_from_message(m)) for m in found],
            message_object_trees=[get_object_tree(m) for m in found],
        )

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        if request.object_id in self.withheld:
            self.released.wait(30)
        content = self.objects[request.object_id]
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802
        self.confirmed.append(request.message_object_id)


class Junk(ConfigRecord):
    """A record that cannot be read."""

    def deflate(self) -> bytes:
        """Return bytes with the right header that are not a record."""
        return b"ConfigRecord 8\x00" + b"\xff" * 8


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> FakeSuperLink:
    monkeypatch.setattr("flwr.app.message.array.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", 4000)
    set_identity(run_id=1, node_id=1, task_id=1)
    return FakeSuperLink()


@pytest.fixture
def grid(link: FakeSuperLink) -> BackgroundGrid:
    inner = HttpGrid("127.0.0.1:1", insecure=True, token="none")
    inner.set_run(empty_run(1))
    inner._client = link  # type: ignore[assignment]
    return BackgroundGrid(inner, max_bytes=10_000)


def question(link: FakeSuperLink, name: str, content: RecordDict) -> str:
    """Add the reply to a message; return the id of the message."""
    sent = Message(RecordDict(), 7, "train", ttl=60)
    set_metadata(sent, message_id=name)
    link.add(name, Message(content, reply_to=sent))
    return name


def arrays(count: int, step: float = 1) -> RecordDict:
    values = step * np.arange(count, dtype=np.float32)
    return RecordDict({"arrays": ArrayRecord([values])})


def pull_until(grid: BackgroundGrid, ids: list[str], count: int) -> dict[str, Message]:
    found: dict[str, Message] = {}
    for _ in range(100):
        left = [each for each in ids if each not in found]
        found |= {r.metadata.reply_to_message_id: r for r in grid.pull_messages(left)}
        if len(found) >= count:
            break
        threading.Event().wait(0.05)
    return found


def test_what_arrives_is_what_was_sent(link: FakeSuperLink, grid: BackgroundGrid) -> None:
    ids = [question(link, f"q{i}", arrays(i + 1)) for i in range(3)]
    found = pull_until(grid, ids, 3)
    for i, each in enumerate(ids):
        (array,) = found[each].content.array_records["arrays"].to_numpy_ndarrays()
        np.testing.assert_array_equal(array, np.arange(i + 1, dtype=np.float32))
    assert len(link.confirmed) == 3
    assert grid.pull_messages(ids) == []


def test_a_reply_that_does_not_arrive_delays_no_other(
    link: FakeSuperLink, grid: BackgroundGrid
) -> None:
    slow = question(link, "slow", arrays(50))
    link.withheld = set(link.objects)
    quick = question(link, "quick", arrays(3))
    link.withheld -= set(get_all_nested_objects(link.replies[quick]))
    assert set(pull_until(grid, [slow, quick], 1)) == {quick}
    assert grid.pull_messages([slow]) == []
    link.released.set()
    assert set(pull_until(grid, [slow], 1)) == {slow}


@pytest.mark.parametrize(
    ("content", "sentence", "deleted"),
    [
        (arrays(10_000), "more than 10000 bytes", 1),
        (RecordDict({"junk": Junk()}), "cannot be read", 2),
    ],
    ids=["large", "junk"],
)
def test_an_unreadable_reply_is_an_error_of_its_node(
    link: FakeSuperLink, grid: BackgroundGrid, content: RecordDict, sentence: str, deleted: int
) -> None:
    """A reply that is too large is not deleted: that would lock the SuperLink's database."""
    bad, good = question(link, "bad", content), question(link, "good", arrays(3))
    found = pull_until(grid, [bad, good], 2)
    assert found[bad].has_error()
    assert sentence in found[bad].error.reason
    assert found[good].has_content()
    assert len(set(link.confirmed)) == deleted


def test_equal_chunks_that_travel_once_count_as_often_as_they_are_used(
    link: FakeSuperLink, grid: BackgroundGrid
) -> None:
    small, large = (
        question(link, "small", arrays(2_000, 0)),
        question(link, "large", arrays(9_000, 0)),
    )
    for each in (small, large):
        parts = get_all_nested_objects(link.replies[each]).values()
        assert sum(len(part.deflate()) for part in parts) < 10_000
    found = pull_until(grid, [small, large], 2)
    assert [found[each].has_error() for each in (small, large)] == [False, True]


def test_a_message_that_cannot_be_uploaded_is_not_sent_and_ends_nothing(
    grid: BackgroundGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under a locked database: the others are sent, and the caller learns which is not."""
    sent = [Message(RecordDict(), node, "train") for node in (7, 8, 9)]

    def push(messages: list[Message]) -> list[str | None]:
        (message,) = messages
        node = message.metadata.dst_node_id
        if node == 8:
            raise ObjectPushError("part", 1, "session")
        return [None if node == 9 else f"to {node}"]

    monkeypatch.setattr(grid.grid, "push_messages", push)
    assert grid.push_messages(sent) == ["to 7", "", ""]


def test_an_internal_error_of_the_superlink_is_retried(
    link: FakeSuperLink, grid: BackgroundGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BackgroundGrid, "PAUSE", 0.0)
    link.errors = [500, 503]
    message_id = question(link, "q", arrays(3))
    assert set(pull_until(grid, [message_id], 1)) == {message_id}
    link.errors = [401]
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        grid.pull_messages(["other"])
