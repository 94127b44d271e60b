"""The clairvoyant dispatcher in plain Python: the specification of its compiled form.

A test steps a :class:`sim_env.reference.world.ReferenceWorld` and a compiled world, and compares
the two at every tick.
"""

import math

import numpy as np

from sim_env.policies.clairvoyant import CROWD, ROUNDING, Prices, prices
from sim_env.reference.world import ReferenceWorld, Task

Flight = tuple[int, Task]
"""The tick of an arrival, and the task."""


def decide(world: ReferenceWorld, rho: float) -> list[int]:
    """Return the actions of all nodes, of which only those of agents with a task matter.

    Parameters
    ----------
    world : ReferenceWorld
        Without quirks.
    rho : float
        Offered load of its scenario.
    """
    return Dispatcher(world, prices(rho)).decide()


class Dispatcher:
    """The decisions of one tick, each aware of those before it."""

    def __init__(self, world: ReferenceWorld, paid: Prices) -> None:
        self.world, self.net, self.prices = world, world.net, paid
        self.flights: list[list[Flight]] = [[] for _ in world.nodes]
        self.sent: set[Task] = set()
        for journey in world.journeys:
            if journey.kind != "result":
                self._expect(journey.destination, journey.due, journey.task)

    def decide(self) -> list[int]:
        """Decide for one agent after the other."""
        actions = [0] * len(self.world.nodes)
        for n, node in enumerate(self.world.nodes):
            task = node.undecided
            if task is None or not self.net.is_agent[n]:
                continue
            costs = self._costs(n, task)
            actions[n] = min(costs, key=lambda k: (costs[k], k))
            if actions[n]:
                self.sent.add(task)
                due = self.world.now + self._travel(n, actions[n], task, self.net.job_input)
                self._expect(self._neighbour(n, actions[n]), due, task)
        return actions

    def _expect(self, node: int, due: int, task: Task) -> None:
        self.flights[node].append((due, task))
        self.flights[node].sort(key=lambda flight: flight[0])  # stable: ties as they were sent

    def _neighbour(self, n: int, k: int) -> int:
        return int(self.net.neighbour[self.net.first[n] + k])

    def _travel(self, n: int, k: int, task: Task, bits: np.ndarray) -> int:
        return self.world.travel(n, k, float(bits[task.job]))

    def _costs(self, n: int, task: Task) -> dict[int, float]:
        """Return the least cost of each legal first hop."""
        now, net = self.world.now, self.net
        costs = {0: self._price(n, task, now, task.back)}
        for k in range(1, net.slots[n]):
            if not self.world.is_legal(n, k, task):
                continue
            m = self._neighbour(n, k)
            at = now + self._travel(n, k, task, net.job_input)
            back = task.back + self._travel(n, k, task, net.job_output)
            costs[k] = self._price(m, task, at, back)
            if not self._passes(m, task, at):
                continue
            for j in range(1, net.slots[m]):
                far = self._neighbour(m, j)
                if far != n and self.world.may_send(m, far):
                    there = at + 1 + self._travel(m, j, task, net.job_input)
                    home = back + self._travel(m, j, task, net.job_output)
                    costs[k] = min(costs[k], self._price(far, task, there, home))
        return costs

    def _passes(self, m: int, task: Task, at: int) -> bool:
        """Return whether a node passes a task on instead of losing or serving it."""
        start, load, _ = self._forecast(m, task, at)
        fits = load < self.net.capacity[m] and at < task.deadline
        more = task.hops + 1 < self.net.hop_cap
        return bool(self.net.is_agent[m] and fits and start >= at + 1 and more)

    def _forecast(self, n: int, task: Task, at: int) -> tuple[float, int, int]:
        """Return the start of service, the load at arrival, and how many come after the task."""
        now, node = self.world.now, self.world.nodes[n]
        undecided = [
            (now, each)
            for each in node.queue
            if not each.decided and each is not task and each not in self.sent
        ]
        ahead: list[Flight] = [(now, node.service)] if node.service else []
        ahead += [(now, each) for each in node.queue if each.decided]
        if at > now:  # a task that is kept comes before all that are not decided
            ahead += undecided + [flight for flight in self.flights[n] if flight[0] <= at]
            behind = sum(due > at for due, _ in self.flights[n])
        else:
            behind = len(undecided) + len(self.flights[n])
        free, load = float(now), 0
        for due, each in ahead:
            free = max(free, float(due))
            leaves = float(each.deadline)
            if free < each.deadline:
                end = free + each.work / float(self.net.speed[n])
                leaves = math.ceil(end - ROUNDING)
                free = end
                if self.world.physics.cancel_in_service and leaves > each.deadline:
                    free = leaves = float(each.deadline)
            load += leaves > at
        return max(free, float(at)), load, behind

    def _price(self, n: int, task: Task, at: int, back: int) -> float:
        start, load, behind = self._forecast(n, task, at)
        now, node = self.world.now, self.world.nodes[n]
        lost = self.prices.loss * (task.deadline - task.born)
        if (at > now and load >= self.net.capacity[n]) or start >= task.deadline:
            return lost
        end = start + float(self.net.job_work[task.job]) / float(self.net.speed[n])
        home = math.ceil(end - ROUNDING) + back
        service = min(end, float(task.deadline)) - start
        rate = max(node.incoming, float(self.net.arrivals[n]))
        others = service * (behind + self.prices.delay * rate * (start - at + 0.5 * service))
        filled = (load + rate * (start - at)) / float(self.net.capacity[n])
        others += CROWD * (task.deadline - task.born) * min(max(2.0 * filled - 1.0, 0.0), 1.0)
        return others + (lost if home > task.deadline else home - now)
