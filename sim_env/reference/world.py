"""The tick in plain Python, one object per task: the specification of the kernel.

It shares only the arrays of the scenario with :mod:`sim_env.engine.kernel`. A test steps both with
the same actions and compares every task, queue and counter after every tick.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

from sim_env.reference.reward import decision_reward
from sim_env.scenario import Scenario
from sim_env.workload.schedule import multipliers

WORD = 2**64 - 1
DECIDERS = 16  # newest decisions about a task, which earn when it ends


def mix(z: int) -> int:
    """Apply the finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


class Stream:
    """Random numbers of one node; they depend only on the seed of its world and on the node."""

    GOLDEN = 0x9E3779B97F4A7C15

    def __init__(self, seed: int, node: int) -> None:
        self.state = mix((mix(seed) + self.GOLDEN * (node + 1)) & WORD)

    def word(self) -> int:
        """Draw 64 random bits."""
        self.state = (self.state + self.GOLDEN) & WORD
        return mix(self.state)

    def uniform(self) -> float:
        """Draw a number in (0, 1]."""
        return ((self.word() >> 11) + 1) / 2**53

    def below(self, bound: int) -> int:
        """Draw an integer in [0, bound)."""
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
    receiver: int = -1
    from_receiver: int = 0
    decided: bool = False
    deciders: dict[int, int] = field(default_factory=dict)  # node that decided, by hops


@dataclass(eq=False)
class Node:
    """A node: its queue in the order of service, its client and its counters.

    ``intake`` holds tasks of the client that have not entered the queue yet; ``gaps`` maps a slot
    to the remaining gap until the client's next birth for the node in that slot.
    """

    stream: Stream
    gaps: dict[int, float]
    queue: list[Task] = field(default_factory=list)
    intake: list[Task] = field(default_factory=list)
    service: Task | None = None
    incoming: float = 0.0
    accepted: int = 0
    dirty: bool = False
    up: bool = True
    own_finished: int = 0  # own tasks that came home
    dropped_here: int = 0
    decided_finished: int = 0  # decisions here about tasks that finished
    decided_lost: int = 0

    @property
    def load(self) -> int:
        """Tasks here, the one in service included."""
        return len(self.queue) + len(self.intake) + (self.service is not None)

    @property
    def undecided(self) -> Task | None:
        """The task that a decision is about."""
        return next((task for task in [*self.queue, *self.intake] if not task.decided), None)

    @property
    def work_ahead(self) -> float:
        """Instructions in service and decided to be executed here."""
        decided = (task.work for task in self.queue if task.decided)
        return sum(decided, self.service.work if self.service else 0.0)


@dataclass(eq=False)
class Journey:
    """A message in flight: ``birth`` (client to worker), ``offload`` or ``result``."""

    kind: str
    task: Task
    due: int
    destination: int


class ReferenceWorld:
    """One world. Same constructor arguments as one world of :class:`sim_env.world.World`."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.net, self.physics = scenario.net, scenario.spec.physics
        self.quirks = self.physics.quirks
        self.now = 0
        self.schedule = scenario.spec.workload.schedule
        self.nodes = [self._new_node(seed, n) for n in range(len(self.net.speed))]
        self.order = Stream(seed, 0)
        self.order.state = mix(self.order.state ^ Stream.GOLDEN)
        self.journeys: list[Journey] = []
        self.counts: Counter[str] = Counter()
        # Published queue lengths by tick; the first entry is from before the first tick.
        self.published = [[0] * len(self.nodes)]
        self.after_action: list[Event] = []
        self.action_at = (0, 1)
        self.outages = scenario.outages([seed])
        self.broken: set[tuple[int, int]] = set()
        self._change()
        if self.quirks.tick_order == "random":
            self._open_tick()

    def _new_node(self, seed: int, n: int) -> Node:
        stream, gaps = Stream(seed, n), {}
        slots = range(self.net.slots[n]) if self.quirks.serve_neighbours else [0]
        for k in slots:
            rate = self.net.arrivals[self._neighbour(n, k)]
            if self.net.arrivals[n] > 0 and rate > 0:
                gaps[k] = -math.log(stream.uniform())
                if self.quirks.arrivals == "one_per_tick":
                    gaps[k] = math.floor(gaps[k] / (rate * (self._factor() or 1.0)) + 0.5)
        return Node(stream, gaps)

    def _neighbour(self, n: int, slot: int) -> int:
        return int(self.net.neighbour[self.net.first[n] + slot])

    def _factor(self) -> float:
        """Return the multiplier of the arrival rates in this tick."""
        return float(multipliers(self.schedule, self.now + 1, self.physics.tick)[-1])

    def step(self, actions: list[int]) -> None:
        """Advance one tick.

        Fixed order: apply the actions, deliver, and per node give birth, serve, cancel, publish.
        In a random order the joint action has its place among the other events of a tick, and a
        step goes from one joint action to the next.
        """
        for n, action in enumerate(actions):
            if self.net.is_agent[n]:
                self._act(n, int(action))
        if self.quirks.tick_order == "random":
            for event in self.after_action:
                self._run(event)
        else:
            self._begin_row()
            for journey in self._take_due():
                self._deliver(journey)
            for n in range(len(self.nodes)):
                self._client(n)
                self._worker(n)
        self.now += 1
        if self.quirks.tick_order == "random":
            self._open_tick()
        self._change()

    def _change(self) -> None:
        """Apply the failures and repairs of nodes and links."""
        for change in self.outages.due(self.now):
            if change.kind == "link":
                a, b = (int(n) for n in self.outages.links[change.index])
                (self.broken.discard if change.up else self.broken.add)((a, b))
                continue
            node = self.nodes[change.index]
            node.up = change.up
            if not node.up:
                for task in [*node.queue, *node.intake, *filter(None, [node.service])]:
                    self._end(task, "failure", self.now, change.index)
                node.queue, node.intake, node.service = [], [], None

    def may_send(self, n: int, m: int) -> bool:
        """Return whether neighbours are linked now, and the second one is up."""
        return self.nodes[m].up and (min(n, m), max(n, m)) not in self.broken

    # ---- the order of events within a tick -----------------------------------------------------

    def _begin_row(self) -> None:
        self.published.append(list(self.published[-1]))

    def _take_due(self) -> list[Journey]:
        due = [journey for journey in self.journeys if journey.due == self.now]
        self.journeys = [journey for journey in self.journeys if journey.due != self.now]
        return due

    def _open_tick(self) -> None:
        """Shuffle the events of the tick and run those before the joint action."""
        self._begin_row()
        events: list[Event] = ["action"]
        events += [("client", n) for n in range(len(self.nodes))]
        events += [("worker", n) for n in range(len(self.nodes))]
        events += self._take_due()
        for last in range(len(events) - 1, 0, -1):
            chosen = self.order.word() % (last + 1)
            events[last], events[chosen] = events[chosen], events[last]
        place = events.index("action")
        for event in events[:place]:
            self._run(event)
        self.after_action, self.action_at = events[place + 1 :], (place, len(events))

    def _run(self, event: "Event") -> None:
        if isinstance(event, Journey):
            self._deliver(event)
        else:
            {"client": self._client, "worker": self._worker}[event[0]](int(event[1]))

    # ---- messages ------------------------------------------------------------------------------

    def travel(self, n: int, slot: int, bits: float) -> int:
        """Compute the whole ticks that a message takes, at least one."""
        net, physics = self.net, self.physics
        link = net.first[n] + slot
        ticks = bits / net.rate[link] + net.latency[link]
        if physics.noise_bandwidth == "message" and physics.link == "wireless" and bits > 0:
            snr = net.signal[link] - (-174 + 10 * math.log10(bits))
            rate = physics.bandwidth * math.log2(1 + 10 ** (snr / 10))
            ticks = bits / rate * net.ticks_per_second
        if physics.latency_unit == "second":
            ticks = math.floor(ticks / net.ticks_per_second + 0.5) * net.ticks_per_second
        return max(1, math.ceil(ticks))

    def _send(self, kind: str, task: Task, due: int, destination: int) -> None:
        self.journeys.append(Journey(kind, task, due, destination))

    def _deliver(self, journey: Journey) -> None:
        task = journey.task
        if journey.kind == "result":
            self._come_home(task, self.now, journey.destination)
        elif self._is_late(task):
            self._end(task, "deadline", self.now, journey.destination)
        else:
            self._receive(journey.destination, task, journey.kind == "birth")

    def _is_late(self, task: Task) -> bool:
        grace = self.quirks.expiry_grace
        return self.quirks.cancel_on_arrival and task.deadline + grace <= self.now

    def _receive(self, n: int, task: Task, from_client: bool) -> None:
        node = self.nodes[n]
        if not node.up:
            self._end(task, "failure", self.now, n)
            return
        full = node.load >= self.net.capacity[n]
        node.dirty |= not from_client or not full
        if full:
            self._end(task, "overflow", self.now, n)
            return
        node.accepted += 1
        if from_client and self.quirks.intake_period:
            node.intake.append(task)
        else:
            self._join(node, task)

    def _join(self, node: Node, task: Task) -> None:
        if self.quirks.queue_order == "lifo":
            node.queue.insert(0, task)
        else:
            node.queue.append(task)

    # ---- client, worker, agent -----------------------------------------------------------------

    def _client(self, n: int) -> None:
        """Run the client's own stream and, in a tick in which that is not due, its neighbours'."""
        node = self.nodes[n]
        if not node.up:
            return
        if self.quirks.arrivals == "poisson":
            for k in node.gaps:
                node.gaps[k] -= self.net.arrivals[self._neighbour(n, k)] * self._factor()
        if 0 not in node.gaps:
            return
        if not self._serve_stream(node, n, 0):
            for k in node.gaps:
                if k:
                    self._serve_stream(node, n, k)

    def _serve_stream(self, node: Node, n: int, k: int) -> int:
        """Create the due tasks for the node in slot k; return their number."""
        if self.quirks.arrivals == "one_per_tick":
            if node.gaps[k] > self.now or self._factor() == 0:
                return 0
            rate = self.net.arrivals[self._neighbour(n, k)] * self._factor()
            node.gaps[k] = math.floor(self.now - math.log(node.stream.uniform()) / rate + 0.5)
            self._give_birth(n, k)
            return 1
        births = 0
        while node.gaps[k] <= 0:
            node.gaps[k] -= math.log(node.stream.uniform())
            self._give_birth(n, k)
            births += 1
        return births

    def _give_birth(self, n: int, k: int) -> None:
        net, stream = self.net, self.nodes[n].stream
        job = stream.below(len(net.job_work))
        low, high = int(net.deadline_low[n]), int(net.deadline_high[n])
        slack = low + stream.below(high - low)
        serial = self.counts["created"]
        self.counts["created"] += 1
        task = Task(serial, job, self.now, self.now + slack, n, float(net.job_work[job]))
        task.receiver = self._neighbour(n, k)
        task.from_receiver = self.quirks.self_hop
        if k:
            task.from_receiver = self.travel(n, k, net.job_output[job])
        task.back = task.from_receiver
        if k:
            due = self.now + self.travel(n, k, net.job_input[job])
            self._send("birth", task, due, self._neighbour(n, k))
        elif self.quirks.self_hop:
            self._send("birth", task, self.now + self.quirks.self_hop, n)
        else:
            self._receive(n, task, from_client=True)

    def _worker(self, n: int) -> None:
        """Serve, take in, cancel, publish."""
        node, quirks = self.nodes[n], self.quirks
        self._serve(n, node)
        if node.intake and (not node.queue or self.now % quirks.intake_period == 0):
            self._take_in(node)
        self._cancel(n, node)
        if quirks.publish == "change" or node.dirty:
            self.published[-1][n] = node.load
        node.dirty = False
        node.incoming = 0.95 * node.incoming + 0.05 * node.accepted
        node.accepted = 0

    def _serve(self, n: int, node: Node) -> None:
        power = float(self.net.speed[n])
        while power > 0:
            if node.service is None:
                if not node.queue:
                    self._take_in(node)
                if not node.queue:
                    return
                node.service = node.queue.pop(0)
            task = node.service
            if task.work > power:
                task.work -= power
                return
            power -= task.work
            task.work = 0.0
            node.service = None
            self._complete(n, task)

    def _take_in(self, node: Node) -> None:
        """Move the waiting tasks of the client into the queue."""
        for task in node.intake:
            self._join(node, task)
        node.intake = []

    def _complete(self, n: int, task: Task) -> None:
        """Send the output; without transfer it is home at the end of the tick."""
        hop, back, elsewhere = self.quirks.self_hop, task.back, task.hops > 0
        if self.quirks.home_shortcut and task.receiver == n:
            back, elsewhere = task.from_receiver, False
        if hop:
            self._send("result", task, self.now + back + (hop if elsewhere else 0), task.origin)
        elif back:
            self._send("result", task, self.now + 1 + back, task.origin)
        else:
            self._come_home(task, self.now + 1, n)

    def _come_home(self, task: Task, now: int, n: int) -> None:
        late = now > task.deadline and self.quirks.late_results == "lost"
        forgotten = self.quirks.client_forgets and task.born + task.deadline < now
        outcome = "client" if late or forgotten else "finished"
        self._end(task, outcome if self.nodes[task.origin].up else "failure", now, n)

    def _cancel(self, n: int, node: Node) -> None:
        now = self.now + 1
        limit = now - self.quirks.expiry_grace
        for task in [task for task in node.queue if task.deadline <= limit]:
            node.queue.remove(task)
            self._end(task, "deadline", now, n)
        served = node.service
        if served and self.physics.cancel_in_service and served.deadline <= limit:
            node.service = None
            self._end(served, "deadline", now, n)

    def _act(self, n: int, action: int) -> None:
        node = self.nodes[n]
        if action != 0 or not node.queue:
            self._take_in(node)
        task = next((task for task in node.queue if not task.decided), None)
        if task is None:
            self.counts["masked"] += action != 0
            return
        if action != 0 and not self.is_legal(n, action, task):
            self.counts["masked"] += 1
            action = 0
        if action == 0:
            first = self.quirks.keep_marks == "first"
            kept = node.queue[0] if first else task
            if not kept.decided:
                kept.deciders[kept.hops] = n
            kept.decided = True
            return
        node.dirty = True
        node.queue.remove(task)
        self.counts["offloaded"] += 1
        task.sender = n
        task.deciders[task.hops] = n
        task.hops += 1
        if self.quirks.home_shortcut and n == task.receiver:
            task.back = task.from_receiver  # on its way back the output goes no further than here
        task.back += self.travel(n, action, self.net.job_output[task.job])
        due = self.now + self.travel(n, action, self.net.job_input[task.job])
        self._send("offload", task, due, self._neighbour(n, action))

    def is_legal(self, n: int, slot: int, task: Task) -> bool:
        """Return whether an action about a task is legal."""
        if slot == 0 or not 0 < slot < self.net.slots[n]:
            return slot == 0
        return task.hops < self.net.hop_cap and self.may_send(n, self._neighbour(n, slot))

    def _end(self, task: Task, outcome: str, now: int, n: int) -> None:
        """End a task at node n; credit the nodes that it pays."""
        self.counts[outcome] += 1
        if outcome == "finished":
            self.nodes[task.origin].own_finished += 1
        elif outcome in ("overflow", "deadline"):
            self.nodes[n].dropped_here += 1
        for hops, decider in task.deciders.items():
            if hops > task.hops - DECIDERS:
                self.nodes[decider].decided_finished += outcome == "finished"
                self.nodes[decider].decided_lost += outcome != "finished"
        if outcome == "finished":
            self.counts["response"] += now - task.born

    # ---- what an agent knows -------------------------------------------------------------------

    def known_queue(self, n: int, m: int) -> int:
        """Return the queue length of node m as node n knows it."""
        tick = self.now - self.net.information_delay
        if self.quirks.tick_order == "random":
            # A message of the last tick is as likely to be here as the action is late in its tick.
            key = self.order.state ^ (n << 40) ^ (m << 20)
            place, events = self.action_at
            if (mix((key + self.now) & WORD) >> 11) / 2**53 * events < place:
                tick += 1
        return self.published[max(tick, 0)][m]

    def observe(self) -> dict[int, list[dict[str, float]]]:
        """Return the slots of each agent with an undecided task, as the agent knows them."""
        net, seen = self.net, {}
        for n, node in enumerate(self.nodes):
            task = node.undecided
            if not net.is_agent[n] or task is None:
                continue
            slots: list[dict[str, float]] = []
            for k in range(net.slots[n]):
                m = self._neighbour(n, k)
                queue = node.load if k == 0 else self.known_queue(n, m)
                work = node.work_ahead if k == 0 else queue * net.mean_work
                send = self.travel(n, k, net.job_input[task.job]) if k else 0
                back = self.travel(n, k, net.job_output[task.job]) if k else 0
                execute = net.job_work[task.job] / net.speed[m]
                slots.append(
                    {
                        "queue": queue,
                        "wait": work / net.speed[m],
                        "execute": execute,
                        "send": send,
                        "back": back,
                        "legal": self.is_legal(n, k, task),
                    }
                )
            for k, slot in enumerate(slots):
                slot["reward"] = decision_reward(net, n, k, slots)
            for k, slot in enumerate(slots):  # the reward is by the true speeds
                stated = net.stated[self._neighbour(n, k)]
                slot["wait"], slot["execute"] = slot["wait"] / stated, slot["execute"] / stated
            seen[n] = slots
        return seen


Event = str | tuple[str, int] | Journey
