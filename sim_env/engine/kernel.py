"""The tick: B worlds of one network as a struct of arrays, compiled.

:mod:`sim_env.reference.world` is the specification in plain Python; a test compares the two tick by
tick.

A task is a row of the pool of its world and is in exactly one linked list at a time: decided
(`ready`) or undecided (`pending`) at a node, a bucket of the timing wheel while it travels, or
the free list. One array, `next`, links them all. At a node, `ready` before `pending` is the order
of arrival, because decisions are first come, first served.

A tick runs: apply actions, deliver, then for each node arrive, process, expire, publish.
"""

import numpy as np

from sim_env.engine.compilation import compiled, part
from sim_env.engine.reward import DECIDED_FINISHED, DECIDED_LOST, DROPPED_HERE, OWN_FINISHED
from sim_env.engine.state import (
    BINS,
    BORN,
    CLIENT,
    CREATED,
    DEADLINE,
    ENDED,
    FAILURE,
    FINISHED,
    FREE,
    MASKED,
    NEVER,
    NONE,
    OFFLOADED,
    OUTBOUND,
    OVERFLOW,
    PENDING,
    QUEUED,
    READY,
    RESPONSE,
    RETURNING,
    SENT_ON,
    SERVED,
    SERVICE,
    STARTED,
    WHEEL,
    uniform,
)


@part
def load(st, b, n):
    """Count the tasks at a node, the one in service included."""
    waiting = st.num_ready[b, n] + st.num_pending[b, n] + st.num_intake[b, n]
    return waiting + (st.service[b, n] >= 0)


@part
def travel(net, n, k, bits):
    """Compute the whole ticks, at least 1, that `bits` take from node n to its k-th slot."""
    link = net.first[n] + k
    ticks = bits / net.rate[link] + net.latency[link]
    if net.message_noise and bits > 0:
        snr = net.signal[link] - (-174.0 + 10.0 * np.log10(bits))
        rate = net.bandwidth * np.log2(1.0 + 10.0 ** (snr / 10.0))
        ticks = bits / rate * net.ticks_per_second
    if net.whole_seconds:
        ticks = np.floor(ticks / net.ticks_per_second + 0.5) * net.ticks_per_second
    return max(1, int(np.ceil(ticks)))


@part
def append(st, b, heads, tails, i, task):
    """Append a task to list i."""
    st.next[b, task] = NONE
    if heads[b, i] < 0:
        heads[b, i] = task
    else:
        st.next[b, tails[b, i]] = task
    tails[b, i] = task


@part
def pop(st, b, heads, i):
    """Take the first task of list i."""
    task = heads[b, i]
    heads[b, i] = st.next[b, task]
    return task


@part
def remember(st, b, task, n):
    """Record that node n decides about a task."""
    if st.deciders.shape[2] > 0:
        st.deciders[b, task, st.hops[b, task] % st.deciders.shape[2]] = n


@part
def pay(st, b, task, outcome):
    """Credit the end of a task to the nodes that it pays."""
    if st.ends.shape[1] == 0:
        return
    if outcome == FINISHED:
        st.ends[b, st.origin[b, task], OWN_FINISHED] += 1
    elif outcome in (OVERFLOW, DEADLINE):
        st.ends[b, st.place[b, task], DROPPED_HERE] += 1
    for i in range(st.deciders.shape[2]):
        n = st.deciders[b, task, i]
        if n >= 0:
            st.ends[b, n, DECIDED_FINISHED if outcome == FINISHED else DECIDED_LOST] += 1


@part
def note(st, b, task, event, node, value, now):
    """Record an event of a task, if its world is traced."""
    if b >= st.trace.shape[0]:
        return
    row = st.traced[b]
    if row == st.trace.shape[1]:
        raise MemoryError("trace exhausted")
    st.trace[b, row, 0] = now
    st.trace[b, row, 1] = event
    st.trace[b, row, 2] = st.serial[b, task]
    st.trace[b, row, 3] = node
    st.trace[b, row, 4] = value
    st.traced[b] = row + 1


@part
def end(st, b, task, outcome, now):
    """Count the end of a task and free its place in the pool."""
    home = outcome in (FINISHED, CLIENT) or st.kind[b, task] == RETURNING
    note(st, b, task, ENDED, st.origin[b, task] if home else st.place[b, task], outcome, now)
    st.total[b, outcome] += 1
    response = now - st.born[b, task]
    counted = st.window[0] <= st.born[b, task] < st.window[1]
    if counted:
        st.cohort[b, outcome] += 1
    if outcome == FINISHED:
        st.total[b, RESPONSE] += response
        if counted:
            st.cohort[b, RESPONSE] += response
            st.histogram[b, min(response, BINS - 1)] += 1
            st.finished_at[b, st.origin[b, task]] += 1
    pay(st, b, task, outcome)
    st.kind[b, task] = FREE
    st.next[b, task] = st.free_head[b]
    st.free_head[b] = task
    st.num_free[b] += 1


@part
def come_home(net, st, b, task, now):
    """Deliver the output of a task to its client."""
    late = now > st.deadline[b, task] and not net.late_counts
    forgotten = net.client_forgets and st.born[b, task] + st.deadline[b, task] < now
    outcome = CLIENT if late or forgotten else FINISHED
    end(st, b, task, outcome if st.up[b, st.origin[b, task]] else FAILURE, now)


@part
def launch(st, b, task, kind, due):
    """Send a task or its output; it is delivered at tick `due`."""
    st.kind[b, task] = kind
    st.due[b, task] = due
    append(st, b, st.wheel_head, st.wheel_tail, due % WHEEL, task)


@part
def enter(net, st, b, n, task, now):
    """Receive a task at a node: it waits undecided, or is lost if the queue is full."""
    st.place[b, task] = n
    if not st.up[b, n]:
        end(st, b, task, FAILURE, now)
        return
    if load(st, b, n) >= net.capacity[n]:
        end(st, b, task, OVERFLOW, now)
        return
    st.entered[b, task] = st.entries[b]
    st.entries[b] += 1
    st.kind[b, task] = PENDING
    note(st, b, task, QUEUED, n, 0, now)
    append(st, b, st.pending_head, st.pending_tail, n, task)
    st.num_pending[b, n] += 1
    st.accepted[b, n] += 1
    st.earliest[b, n] = min(st.earliest[b, n], st.deadline[b, task])


@part
def legal(net, st, b, n, action, task):
    """Return whether an action about a task is legal."""
    if action <= 0 or action >= net.slots[n]:
        return action == 0
    return st.hops[b, task] < net.hop_cap and st.open[b, net.first[n] + action]


@part
def decide(net, st, b, n, action, now):
    """Apply an action to the first undecided task; an illegal one keeps the task."""
    task = st.pending_head[b, n]
    if task < 0:
        st.total[b, MASKED] += action != 0
        return
    pop(st, b, st.pending_head, n)
    st.num_pending[b, n] -= 1
    if not legal(net, st, b, n, action, task):
        st.total[b, MASKED] += 1
        action = 0
    remember(st, b, task, n)
    if action == 0:
        st.kind[b, task] = READY
        append(st, b, st.ready_head, st.ready_tail, n, task)
        st.num_ready[b, n] += 1
        return
    offload(net, st, b, n, action, task, now)


@part
def offload(net, st, b, n, k, task, now):
    """Send a task to the k-th slot of node n."""
    st.total[b, OFFLOADED] += 1
    job = st.job[b, task]
    st.place[b, task] = net.neighbour[net.first[n] + k]
    st.sender[b, task] = n
    st.hops[b, task] += 1
    remember(st, b, task, NONE)  # undecided at the destination
    st.back[b, task] += travel(net, n, k, net.job_output[job])
    due = now + travel(net, n, k, net.job_input[job])
    note(st, b, task, SENT_ON, st.place[b, task], due, now)
    launch(st, b, task, OUTBOUND, due)


@part
def take_due(st, b, now):
    """Take the due tasks off the wheel; return the first one of the list, in order of sending."""
    bucket = now % WHEEL
    task = st.wheel_head[b, bucket]
    st.wheel_head[b, bucket] = NONE
    first = last = NONE
    while task >= 0:
        following = st.next[b, task]
        if st.due[b, task] != now:
            append(st, b, st.wheel_head, st.wheel_tail, bucket, task)
        else:
            st.next[b, task] = NONE
            if first < 0:
                first = task
            else:
                st.next[b, last] = task
            last = task
        task = following
    return first


@part
def deliver(net, st, b, now):
    """Deliver the due messages."""
    task = take_due(st, b, now)
    while task >= 0:
        following = st.next[b, task]
        if st.kind[b, task] == RETURNING:
            come_home(net, st, b, task, now)
        elif st.deadline[b, task] <= now:
            end(st, b, task, DEADLINE, now)
        else:
            enter(net, st, b, st.place[b, task], task, now)
        task = following


@part
def birth(net, st, b, n, now):
    """Create a task at the client of node n; draw its job and deadline from the node's stream."""
    job = min(int(uniform(st, b, n) * len(net.job_work)), len(net.job_work) - 1)
    span = net.deadline_high[n] - net.deadline_low[n]
    slack = net.deadline_low[n] + min(int(uniform(st, b, n) * span), span - 1)
    task = st.free_head[b]
    if task < 0:
        raise MemoryError("task pool exhausted")
    st.free_head[b] = st.next[b, task]
    st.num_free[b] -= 1
    st.serial[b, task] = st.total[b, CREATED]
    st.job[b, task] = job
    st.born[b, task] = now
    st.deadline[b, task] = now + slack
    st.origin[b, task] = n
    st.sender[b, task] = NONE
    st.hops[b, task] = 0
    for i in range(st.deciders.shape[2]):
        st.deciders[b, task, i] = NONE
    st.back[b, task] = 0
    st.work[b, task] = net.job_work[job]
    st.total[b, CREATED] += 1
    note(st, b, task, BORN, n, job, now)
    if st.window[0] <= now < st.window[1]:
        st.cohort[b, CREATED] += 1
        st.born_at[b, n] += 1
    return task


@part
def arrive(net, st, b, n, now):
    """Create the due tasks of a source: a Poisson process with gaps in expected arrivals."""
    while st.gap[b, n] <= 0.0:
        st.gap[b, n] -= np.log(uniform(st, b, n))
        enter(net, st, b, n, birth(net, st, b, n, now), now)


@part
def process(net, st, b, n, now):
    """Serve in order of arrival until the tick's instructions are spent."""
    power = net.speed[n]
    while power > 0.0:
        task = st.service[b, n]
        if task < 0:
            if st.ready_head[b, n] >= 0:
                task = pop(st, b, st.ready_head, n)
                st.num_ready[b, n] -= 1
            elif st.pending_head[b, n] >= 0:
                task = pop(st, b, st.pending_head, n)
                st.num_pending[b, n] -= 1
            else:
                return
            st.kind[b, task] = SERVICE
            st.service[b, n] = task
            note(st, b, task, STARTED, n, 0, now)
        if st.work[b, task] > power:
            st.work[b, task] -= power
            return
        power -= st.work[b, task]
        st.work[b, task] = 0.0
        st.service[b, n] = NONE
        if st.window[0] <= st.born[b, task] < st.window[1]:
            st.served_by[b, n] += 1
            if st.exchange.shape[1] > 0:
                st.exchange[b, st.origin[b, task], n] += 1
        note(st, b, task, SERVED, n, now + 1 + st.back[b, task], now)
        if st.back[b, task] > 0:
            launch(st, b, task, RETURNING, now + 1 + st.back[b, task])
        else:
            come_home(net, st, b, task, now + 1)


@part
def sweep(st, b, heads, tails, counts, n, limit, now):
    """Cancel the tasks of a list with deadlines up to `limit`; returns the earliest one left."""
    earliest = NEVER
    task = heads[b, n]
    heads[b, n] = NONE
    counts[b, n] = 0
    while task >= 0:
        following = st.next[b, task]
        if st.deadline[b, task] <= limit:
            end(st, b, task, DEADLINE, now)
        else:
            append(st, b, heads, tails, n, task)
            counts[b, n] += 1
            earliest = min(earliest, st.deadline[b, task])
        task = following
    return earliest


@part
def expire(net, st, b, n, now):
    """Cancel the tasks at a node whose deadline has passed."""
    limit = now - net.expiry_grace
    earliest = min(
        sweep(st, b, st.ready_head, st.ready_tail, st.num_ready, n, limit, now),
        sweep(st, b, st.pending_head, st.pending_tail, st.num_pending, n, limit, now),
    )
    task = st.service[b, n]
    if task >= 0 and net.cancel_in_service:
        if st.deadline[b, task] <= limit:
            st.service[b, n] = NONE
            end(st, b, task, DEADLINE, now)
        else:
            earliest = min(earliest, st.deadline[b, task])
    st.earliest[b, n] = earliest


@part
def lose(st, b, heads, counts, n, now):
    """Lose all tasks of a list."""
    task = heads[b, n]
    heads[b, n] = NONE
    counts[b, n] = 0
    while task >= 0:
        following = st.next[b, task]
        end(st, b, task, FAILURE, now)
        task = following


@compiled
def fail(st, b, n, now):
    """Lose the tasks that a failing node holds."""
    lose(st, b, st.ready_head, st.num_ready, n, now)
    lose(st, b, st.pending_head, st.num_pending, n, now)
    lose(st, b, st.intake_head, st.num_intake, n, now)
    if st.service[b, n] >= 0:
        end(st, b, st.service[b, n], FAILURE, now)
        st.service[b, n] = NONE
    st.earliest[b, n] = NEVER


@part
def has_room(net, st, factor):
    """Return whether every world has room for the births of one tick.

    That is ten times their mean, births that a client owes to its neighbours included.
    """
    for b in range(len(st.num_free)):
        births = net.births * factor
        if net.serve_neighbours and not net.one_per_tick:
            for stream in range(st.gap.shape[1]):
                births += max(0.0, -st.gap[b, stream])
        if st.num_free[b] < 64.0 + 10.0 * births:
            return False
    return True


@compiled
def tick(net, st, now, actions, factor, next_factor):
    """Advance every world from time `now` to `now` + 1, if there is room for new tasks.

    Return whether there was; else nothing has changed.

    Parameters
    ----------
    net : Net
    st : State
    now : int
        Ticks that have passed.
    actions : array of int32, shape (B, N)
        Slot to which each node sends its first undecided task; 0 keeps it. Only the entries of
        agents are read.
    factor : float
        Multiplier of all arrival rates in this tick.
    next_factor : float
        The same of the next tick; see :func:`sim_env.engine.events.event_tick`.
    """
    if not has_room(net, st, factor):
        return False
    # Local names and inlined common cases: most nodes have nothing else to do.
    is_agent, arrivals, speed = net.is_agent, net.arrivals, net.speed
    gap, service, work, earliest = st.gap, st.service, st.work, st.earliest
    num_ready, num_pending, published = st.num_ready, st.num_pending, st.published
    incoming, accepted, up = st.incoming, st.accepted, st.up
    row = now % published.shape[1]
    for b in range(actions.shape[0]):
        for n in range(actions.shape[1]):
            if is_agent[n] and (num_pending[b, n] > 0 or actions[b, n] != 0):
                decide(net, st, b, n, actions[b, n], now)
        deliver(net, st, b, now)
        for n in range(actions.shape[1]):
            if up[b, n]:
                gap[b, n] -= arrivals[n] * factor
                if gap[b, n] <= 0.0:
                    arrive(net, st, b, n, now)
            task = service[b, n]
            if task >= 0 and work[b, task] > speed[n]:
                work[b, task] -= speed[n]
            elif task >= 0 or num_ready[b, n] + num_pending[b, n] > 0:
                process(net, st, b, n, now)
            if earliest[b, n] <= now + 1:
                expire(net, st, b, n, now + 1)
            published[b, row, n] = num_ready[b, n] + num_pending[b, n] + (service[b, n] >= 0)
            incoming[b, n] = 0.95 * incoming[b, n] + 0.05 * accepted[b, n]
            accepted[b, n] = 0
    return True


@compiled
def count_on_links(net, st, counts):
    """Add the tasks that are on their way to a neighbour to `counts` of their links (L,)."""
    for b in range(st.kind.shape[0]):
        for task in range(st.kind.shape[1]):
            if st.kind[b, task] != OUTBOUND:
                continue
            sender = st.sender[b, task]
            row = net.first[sender]
            while net.neighbour[row] != st.place[b, task]:
                row += 1
            counts[row] += 1
