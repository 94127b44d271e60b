"""What grids offer beyond Flower's interface, and the one ``send_and_receive`` of the package."""

import math
import time
from collections.abc import Callable, Iterable

import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from strategies.clock import Clock, VirtualClock
from strategies.flower_internals import set_metadata
from strategies.grid_protocols import (
    HasClock,
    HasPollInterval,
    KnowsAllNodes,
    Resumable,
    all_node_ids,
    clock_of,
    poll_interval_of,
)
from strategies.grids import InMemoryGrid, LocalGrid
from strategies.virtual_time import VirtualTimeGrid


def make_app() -> ClientApp:
    """Return an app that answers every query with nothing."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return app


def query(node: int, ttl: float = 1000.0) -> Message:
    return Message(RecordDict(), dst_node_id=1000 + node, message_type=MessageType.QUERY, ttl=ttl)


class TickClock:
    """Virtual time in whole ticks of 0.1 s."""

    def __init__(self, grid: "TickGrid") -> None:
        self.grid, self.ticks = grid, 0

    def monotonic(self) -> float:
        """Return the virtual time."""
        return self.ticks * 0.1

    def sleep(self, seconds: float) -> None:
        """Advance to the next arrival, by `seconds` at most and a tick at least."""
        end = self.ticks + max(1, math.ceil(round(seconds / 0.1, 6)))
        arrivals = [tick for tick, _ in self.grid.pending.values() if tick > self.ticks]
        self.ticks = min([end, *arrivals])


class TickGrid(LocalGrid):
    """A grid with a clock of another kind, that replies after a number of ticks."""

    poll_interval = 0.1

    def __init__(self, ticks: list[int]) -> None:
        super().__init__()
        self.clock: Clock = TickClock(self)
        self.delays = ticks
        self.pending: dict[str, tuple[int, Message]] = {}

    def get_node_ids(self) -> list[int]:
        """Return the nodes that are online: the even ones."""
        return self.get_all_node_ids()[::2]

    def get_all_node_ids(self) -> list[int]:
        """Return all nodes."""
        return [1000 + i for i in range(len(self.delays))]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages."""
        ids = []
        for message in messages:
            set_metadata(message, message_id=f"m{len(self.pending)}")
            reply = Message(RecordDict(), reply_to=message)
            tick = self.clock.ticks + self.delays[message.metadata.dst_node_id - 1000]
            self.pending[message.metadata.message_id] = tick, reply
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that have arrived."""
        due = [i for i in message_ids if i in self.pending and self.pending[i][0] <= self.now]
        return [self.pending.pop(i)[1] for i in sorted(due, key=lambda i: self.pending[i][0])]

    @property
    def now(self) -> int:
        """The tick."""
        return self.clock.ticks


def in_memory(durations: list[int]) -> InMemoryGrid:
    return InMemoryGrid(make_app(), len(durations), duration=lambda i, k: durations[i] / 10)


def virtual(durations: list[int]) -> VirtualTimeGrid:
    engine = InMemoryGrid(make_app(), len(durations), duration=0.0)
    partitions = {1000 + i: i for i in range(len(durations))}
    return VirtualTimeGrid(engine, lambda i, k: durations[i] / 10, partitions=partitions)


GRIDS = [in_memory, virtual, TickGrid]


@pytest.mark.parametrize("make", GRIDS)
@given(
    durations=st.lists(st.integers(1, 80), min_size=1, max_size=6),
    timeout=st.none() | st.integers(1, 90),
)
def test_all_grids_receive_what_arrives_before_the_timeout(
    make: Callable, durations: list[int], timeout: int | None
) -> None:
    """Replies in the order of arrival; time stops at the last one, or at the timeout."""
    grid = make(durations)
    limit = None if timeout is None else timeout / 10
    replies = grid.send_and_receive([query(i) for i in range(len(durations))], timeout=limit)
    end = math.inf if timeout is None else timeout
    expected = sorted(duration for duration in durations if duration <= end)
    assert [durations[r.metadata.src_node_id - 1000] for r in replies] == expected
    late = len(expected) < len(durations)
    assert grid.clock.monotonic() == pytest.approx((end if late else max(durations)) / 10)


def test_a_message_without_a_reply_is_waited_for_until_the_timeout_only() -> None:
    grid = InMemoryGrid(make_app(), 2, faults=lambda i, k: "silent" if i == 0 else None)
    assert len(list(grid.send_and_receive([query(0), query(1)]))) == 1
    assert grid.clock.monotonic() == 1.0
    assert grid.send_and_receive([query(0)], timeout=7.5) == []
    assert grid.clock.monotonic() == 8.5


def test_a_reply_that_arrives_with_the_timeout_counts() -> None:
    grid = in_memory([5])
    assert len(list(grid.send_and_receive([query(0)], timeout=0.5))) == 1


def test_nothing_is_sent_for_nothing() -> None:
    grid = in_memory([5])
    assert grid.send_and_receive([]) == []
    assert grid.clock.monotonic() == 0.0


def test_what_a_grid_offers_is_used() -> None:
    grid = TickGrid([1, 1, 1])
    assert isinstance(grid, HasClock)
    assert isinstance(grid, HasPollInterval)
    assert isinstance(grid, KnowsAllNodes)
    assert not isinstance(grid, Resumable)
    assert clock_of(grid) is grid.clock
    assert poll_interval_of(grid, 0.02) == 0.1
    assert all_node_ids(grid) == [1000, 1001, 1002]


def test_what_a_grid_does_not_offer_has_a_default() -> None:
    plain = in_memory([1, 1])
    assert poll_interval_of(plain, 0.02) == 0.02
    assert all_node_ids(plain) == [1000, 1001]
    assert isinstance(plain, Resumable)
    del plain.clock
    assert clock_of(plain) is time


def test_the_real_poll_interval_of_an_engine_is_not_one_of_virtual_time() -> None:
    grid = virtual([1])
    assert isinstance(clock_of(grid), VirtualClock)
    assert poll_interval_of(grid, 1.0) == 1.0
