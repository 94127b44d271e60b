"""The tick in plain Python, one object per task: the specification of the kernel.

Nothing here is shared with :mod:`sim_env.kernel` but the arrays of the scenario. A test steps both
with the same actions and compares every task, queue and counter after every tick.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

from sim_env.scenario import Scenario

WORD = 2**64 - 1


def mix(z: int) -> int:
    """Finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


class Stream:
    """Random numbers of one node; they depend on the seed of its world and on the node only."""

    GOLDEN = 0x9E3779B97F4A7C15

    def __init__(self, seed: int, node: int) -> None:
        self.state = mix((mix(seed) + self.GOLDEN * (node + 1)) & WORD)

    def uniform(self) -> float:
        """Next number in (0, 1]."""
        self.state = (self.state + self.GOLDEN) & WORD
        return ((mix(self.state) >> 11) + 1) / 2**53

    def below(self, bound: int) -> int:
        """Next integer in [0, bound)."""
        return min(int(self.uniform() * bound), bound - 1)


@dataclass(eq=False)
class Task:
    """A task from birth to its end."""

    serial: int
    job: int
    born: int
    deadline: int
    origin: int
    work: float
    sender: int = -1
    hops: int = 0
    back: int = 0


@dataclass(eq=False)
class Node:
    """A node's FIFO queue: the decided tasks, then the undecided ones, and the one in service."""

    stream: Stream
    gap: float
    ready: list[Task] = field(default_factory=list)
    pending: list[Task] = field(default_factory=list)
    service: Task | None = None
    incoming: float = 0.0
    accepted: int = 0

    @property
    def load(self) -> int:
        """Tasks here, the one in service included."""
        return len(self.ready) + len(self.pending) + (self.service is not None)

    @property
    def work_ahead(self) -> float:
        """Instructions to execute before the first undecided task."""
        return sum((task.work for task in self.ready), self.service.work if self.service else 0.0)


@dataclass(eq=False)
class Journey:
    """A task, or its output, on the way to a node."""

    task: Task
    due: int
    destination: int
    home: bool


class ReferenceWorld:
    """One world. Same constructor arguments as one world of :class:`sim_env.world.World`."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.net = scenario.net
        self.now = 0
        self.nodes = []
        for n, rate in enumerate(self.net.arrivals):
            stream = Stream(seed, n)
            first = -math.log(stream.uniform()) if rate > 0 else math.inf
            self.nodes.append(Node(stream, first))
        self.journeys: list[Journey] = []
        self.counts: Counter[str] = Counter()
        self.published = [[0] * len(self.nodes)]  # queue lengths before the first tick

    def step(self, actions: list[int]) -> None:
        """Advance one tick: apply, deliver, and per node arrive, process, expire, publish."""
        for n, action in enumerate(actions):
            if self.net.is_agent[n]:
                self._apply(n, int(action))
        self._deliver()
        for n, node in enumerate(self.nodes):
            self._arrive(n, node)
            self._process(n, node)
            self._expire(node)
            node.incoming = 0.95 * node.incoming + 0.05 * node.accepted
            node.accepted = 0
        self.published.append([node.load for node in self.nodes])
        self.now += 1

    def travel(self, n: int, slot: int, bits: float) -> int:
        """Whole ticks that a message takes, at least one."""
        return max(1, math.ceil(bits / self.net.rate[n, slot] + self.net.latency[n, slot]))

    def _apply(self, n: int, action: int) -> None:
        node = self.nodes[n]
        if not node.pending:
            self.counts["masked"] += action != 0
            return
        task = node.pending.pop(0)
        if action != 0 and (not 0 < action < self.net.slots[n] or task.hops >= self.net.hop_cap):
            self.counts["masked"] += 1
            action = 0
        if action == 0:
            node.ready.append(task)
            return
        self.counts["offloaded"] += 1
        task.sender = n
        task.hops += 1
        task.back += self.travel(n, action, self.net.job_output[task.job])
        due = self.now + self.travel(n, action, self.net.job_input[task.job])
        self.journeys.append(Journey(task, due, int(self.net.neighbour[n, action]), home=False))

    def _deliver(self) -> None:
        arriving = [journey for journey in self.journeys if journey.due == self.now]
        self.journeys = [journey for journey in self.journeys if journey.due != self.now]
        for journey in arriving:
            task = journey.task
            if journey.home:
                self._end(task, "finished" if self.now <= task.deadline else "client", self.now)
            elif task.deadline <= self.now:
                self._end(task, "deadline", self.now)
            else:
                self._enter(journey.destination, task)

    def _enter(self, n: int, task: Task) -> None:
        node = self.nodes[n]
        if node.load >= self.net.capacity[n]:
            self._end(task, "overflow", self.now)
            return
        node.pending.append(task)
        node.accepted += 1

    def _arrive(self, n: int, node: Node) -> None:
        node.gap -= self.net.arrivals[n]
        while node.gap <= 0:
            node.gap -= math.log(node.stream.uniform())
            job = node.stream.below(len(self.net.job_work))
            slack = self.net.deadline_low + node.stream.below(
                self.net.deadline_high - self.net.deadline_low
            )
            serial = self.counts["created"]
            self.counts["created"] += 1
            work = float(self.net.job_work[job])
            self._enter(n, Task(serial, job, self.now, self.now + slack, n, work))

    def _process(self, n: int, node: Node) -> None:
        power = float(self.net.speed[n])
        while power > 0:
            if node.service is None:
                queue = node.ready or node.pending
                if not queue:
                    return
                node.service = queue.pop(0)
            task = node.service
            if task.work > power:
                task.work -= power
                return
            power -= task.work
            task.work = 0.0
            node.service = None
            done = self.now + 1
            if task.back:
                self.journeys.append(Journey(task, done + task.back, task.origin, home=True))
            else:
                self._end(task, "finished" if done <= task.deadline else "client", done)

    def _expire(self, node: Node) -> None:
        now = self.now + 1
        for queue in (node.ready, node.pending):
            for task in [task for task in queue if task.deadline <= now]:
                queue.remove(task)
                self._end(task, "deadline", now)
        task_in_service = node.service
        if task_in_service and self.net.cancel_in_service and task_in_service.deadline <= now:
            node.service = None
            self._end(task_in_service, "deadline", now)

    def _end(self, task: Task, outcome: str, now: int) -> None:
        self.counts[outcome] += 1
        if outcome == "finished":
            self.counts["response"] += now - task.born

    def observe(self) -> dict[int, list[dict[str, float]]]:
        """For each agent with an undecided task, what it knows about each of its slots."""
        net, seen = self.net, {}
        known = self.published[max(self.now - net.information_delay, 0)]
        for n, node in enumerate(self.nodes):
            if not net.is_agent[n] or not node.pending:
                continue
            task = node.pending[0]
            slots = []
            for k in range(net.slots[n]):
                m = int(net.neighbour[n, k])
                queue = node.load if k == 0 else known[m]
                work = node.work_ahead if k == 0 else queue * net.mean_work
                send = self.travel(n, k, net.job_input[task.job]) if k else 0
                back = self.travel(n, k, net.job_output[task.job]) if k else 0
                execute = net.job_work[task.job] / net.speed[m]
                delay = work / net.speed[m] + execute + send + back
                free = (net.capacity[m] - queue - (k > 0)) / net.capacity[m]
                slots.append(
                    {
                        "queue": queue,
                        "wait": work / net.speed[m],
                        "execute": execute,
                        "send": send,
                        "back": back,
                        "legal": k == 0 or task.hops < net.hop_cap,
                        "reward": net.utility
                        - min(delay, net.delay_cap) / net.reward_scale
                        - net.overload_weight * -math.log10(max(free, 0.001)),
                    }
                )
            seen[n] = slots
        return seen
