"""The transport against a plain reference, message by message, to the last bit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fauno_flwr.cosim.transport import Transport
from tests.fauno_flwr.cosim.test_transport import line


@dataclass
class Journey:
    """A message in transit; `left` bits are still to be transferred, `wait` ticks follow."""

    key: str
    rows: list[int]
    bits: float
    left: float
    wait: float


class Reference:
    """The rule of :class:`Transport`, in plain Python."""

    def __init__(self, transport: Transport) -> None:
        self.net, self._capacity = transport.net, transport.capacity
        self.journeys: list[Journey] = []
        self.carried, self.busy = np.zeros(len(self._capacity)), np.zeros(len(self._capacity))

    def send(self, key: str, rows: list[int], bits: float) -> None:
        wait = float(self.net.latency[rows[0]]) if rows else 0.0
        self.journeys.append(Journey(key, rows, bits, bits, wait))

    def forget(self, key: str) -> None:
        self.journeys = [journey for journey in self.journeys if journey.key != key]

    def rates(self) -> np.ndarray:
        """Return what messages leave for tasks."""
        moving = [j.rows[0] for j in self.journeys if j.rows and j.left > 0]
        messages = np.bincount(np.array(moving, int), minlength=len(self._capacity))
        return self._capacity / (1 + messages)

    def advance(self, ticks: float, open_links: np.ndarray, tasks: np.ndarray) -> list[str]:
        arrived: list[str] = []
        now = 0.0
        while self.journeys:
            here = [journey for journey in self.journeys if not journey.rows]
            if here:
                arrived += [journey.key for journey in here]
                self.journeys = [journey for journey in self.journeys if journey.rows]
                continue
            busy = np.bincount(
                [journey.rows[0] for journey in self.journeys if journey.left > 0],
                minlength=len(self._capacity),
            )
            rates = [
                self._capacity[j.rows[0]] / (busy[j.rows[0]] + tasks[j.rows[0]])
                if j.left > 0 and open_links[j.rows[0]]
                else 0.0
                for j in self.journeys
            ]
            spans = [
                (j.left / rate if rate > 0 else np.inf) if j.left > 0 else j.wait
                for j, rate in zip(self.journeys, rates, strict=True)
            ]
            step = min(min(spans), ticks - now)
            self.busy[busy > 0] += step
            for journey, rate, span in zip(self.journeys, rates, spans, strict=True):
                if journey.left > 0:
                    journey.left = 0.0 if span <= step else max(journey.left - rate * step, 0.0)
                else:
                    journey.wait = 0.0 if span <= step else journey.wait - step
                if journey.left == 0 and journey.wait == 0:
                    self.carried[journey.rows[0]] += journey.bits
                    journey.rows = journey.rows[1:]
                    if journey.rows:
                        journey.left = journey.bits
                        journey.wait = float(self.net.latency[journey.rows[0]])
            now += step
            if now >= ticks and all(journey.rows for journey in self.journeys):
                break
        return arrived


MESSAGES = st.tuples(
    st.integers(0, 4), st.integers(0, 4), st.sampled_from([0, 1, 70_000, 250_000, 999_999])
)
SENDS = st.lists(MESSAGES, max_size=5)
STEPS = st.lists(
    st.tuples(
        SENDS,
        st.sampled_from([0.1, 1.0, 1.0, 3.7]),
        st.lists(st.booleans(), min_size=4, max_size=4),  # is each link between neighbours up?
        st.lists(st.integers(0, 3), min_size=4, max_size=4),  # tasks on it
        st.sampled_from(["", "", "forget", "restore"]),
    ),
    min_size=1,
    max_size=8,
)


@given(steps=STEPS, latency=st.sampled_from([0.0, 0.3, 0.07]), alike=st.booleans())
def test_messages_travel_as_by_the_reference(steps: list[Any], latency: float, alike: bool) -> None:
    net = line(5, latency)
    if not alike:  # alike, messages arrive at the very end of a tick
        net.rate[:] *= np.linspace(0.3, 1.7, len(net.rate))
    transport = Transport(net)
    reference, sent = Reference(transport), 0
    for sends, ticks, up, tasks, what in steps:
        for source, target, size in sends:
            rows = transport.route(source, target, 8.0 * size)
            transport.send(str(sent), source, target, size)
            reference.send(str(sent), rows, 8.0 * size)
            sent += 1
        if what == "forget":
            transport.forget(str(sent // 2))
            reference.forget(str(sent // 2))
        if what == "restore":
            transport.restore(transport.snapshot())
        links = np.minimum(transport.source, transport.net.neighbour) % 4
        is_open, load = np.array(up)[links], np.array(tasks, float)[links]
        assert transport.advance(ticks, is_open, load) == reference.advance(ticks, is_open, load)
        np.testing.assert_array_equal(transport.net.rate, reference.rates())
        np.testing.assert_array_equal(transport.carried, reference.carried)
        np.testing.assert_array_equal(transport.busy, reference.busy)
        found = [(m["key"], m["rows"], m["left"], m["wait"]) for m in transport.snapshot()]
        assert found == [(j.key, j.rows, j.left, j.wait) for j in reference.journeys]
