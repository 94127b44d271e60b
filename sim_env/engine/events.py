"""The tick with the quirks of the original simulator: clients, workers and messages as events.

Without quirks it equals :mod:`sim_env.engine.kernel`, only slower; a test compares both with the
plain-Python reference. Within a tick the events run in the fixed order of the kernel, or in random
order; then the joint action is one of them, and between two steps a world rests there, in the
middle of a tick.
"""

import numpy as np

from sim_env.engine.compilation import compiled, part
from sim_env.engine.kernel import (
    append,
    birth,
    come_home,
    end,
    expire,
    has_room,
    launch,
    legal,
    load,
    note,
    offload,
    pop,
    remember,
    take_due,
    travel,
)
from sim_env.engine.state import (
    DEADLINE,
    FAILURE,
    GOLDEN,
    INTAKE,
    MASKED,
    NONE,
    OVERFLOW,
    PENDING,
    QUEUED,
    READY,
    RETURNING,
    SENT,
    SENT_ON,
    SERVED,
    SERVICE,
    STARTED,
    mix,
    uniform,
)


@part
def before(net, st, b, one, other):
    """Return whether a task comes before another in the queue."""
    if net.lifo:
        return st.entered[b, one] > st.entered[b, other]
    return st.entered[b, one] < st.entered[b, other]


@part
def insert(net, st, b, heads, tails, n, task):
    """Insert a task into a list in queue order."""
    previous = NONE
    following = heads[b, n]
    if not net.lifo and following >= 0 and before(net, st, b, tails[b, n], task):
        previous, following = tails[b, n], NONE  # usually at the end
    while following >= 0 and before(net, st, b, following, task):
        previous, following = following, st.next[b, following]
    st.next[b, task] = following
    if previous < 0:
        heads[b, n] = task
    else:
        st.next[b, previous] = task
    if following < 0:
        tails[b, n] = task


@part
def pending_is_first(net, st, b, n):
    """Return whether the first task of the whole queue is undecided."""
    ready, pending = st.ready_head[b, n], st.pending_head[b, n]
    return pending >= 0 and (ready < 0 or before(net, st, b, pending, ready))


@part
def join(net, st, b, n, task):
    """Append a task to the queue of a node."""
    st.entered[b, task] = st.entries[b]
    st.entries[b] += 1
    st.kind[b, task] = PENDING
    st.earliest[b, n] = min(st.earliest[b, n], st.deadline[b, task])
    insert(net, st, b, st.pending_head, st.pending_tail, n, task)
    st.num_pending[b, n] += 1


@part
def take_in(net, st, b, n):
    """Move the waiting tasks of the client into the queue."""
    while st.intake_head[b, n] >= 0:
        join(net, st, b, n, pop(st, b, st.intake_head, n))
    st.num_intake[b, n] = 0


@part
def receive(net, st, b, n, task, now):
    """Receive a task at a node, from its client or from another node."""
    if not st.up[b, n]:
        end(st, b, task, FAILURE, now)
        return
    from_client = st.kind[b, task] == SENT
    if not from_client:
        st.dirty[b, n] = True  # also if the queue is full
    if load(st, b, n) >= net.capacity[n]:
        end(st, b, task, OVERFLOW, now)
        return
    st.dirty[b, n] = True
    st.place[b, task] = n
    note(st, b, task, QUEUED, n, 0, now)
    st.accepted[b, n] += 1
    if from_client and net.intake_period > 0:
        st.kind[b, task] = INTAKE
        append(st, b, st.intake_head, st.intake_tail, n, task)
        st.num_intake[b, n] += 1
    else:
        join(net, st, b, n, task)


@part
def hand_over(net, st, b, task, now):
    """Deliver a message: a task, or an output."""
    if st.kind[b, task] == RETURNING:
        come_home(net, st, b, task, now)
    elif net.cancel_on_arrival and st.deadline[b, task] + net.expiry_grace <= now:
        end(st, b, task, DEADLINE, now)
    else:
        receive(net, st, b, st.place[b, task], task, now)


@part
def send_birth(net, st, b, n, k, now):
    """Create a task at the client of node n and send it to the node in slot k."""
    task = birth(net, st, b, n, now)
    st.kind[b, task] = SENT
    st.place[b, task] = net.neighbour[net.first[n] + k]
    st.receiver[b, task] = st.place[b, task]
    job = st.job[b, task]
    st.from_receiver[b, task] = travel(net, n, k, net.job_output[job]) if k > 0 else net.self_hop
    st.back[b, task] = st.from_receiver[b, task]
    if k == 0 and net.self_hop == 0:
        receive(net, st, b, n, task, now)
        return
    due = now + (travel(net, n, k, net.job_input[job]) if k > 0 else net.self_hop)
    note(st, b, task, SENT_ON, st.place[b, task], due, now)
    launch(st, b, task, SENT, due)


@part
def serve_stream(net, st, b, n, k, now, factor):
    """Create the due tasks of the client of node n for the node in slot k; return their number."""
    stream = net.streams[n] + k
    if net.one_per_tick:
        if st.gap[b, stream] > now or factor == 0.0:
            return 0
        rate = net.arrivals[net.neighbour[net.first[n] + k]] * factor
        st.gap[b, stream] = np.floor(now - np.log(uniform(st, b, n)) / rate + 0.5)
        send_birth(net, st, b, n, k, now)
        return 1
    births = 0
    while st.gap[b, stream] <= 0.0:
        st.gap[b, stream] -= np.log(uniform(st, b, n))
        send_birth(net, st, b, n, k, now)
        births += 1
    return births


@part
def client(net, st, b, n, now, factor):
    """Run a node's client: its own stream and, when that is not due, those of its neighbours."""
    if not st.up[b, n]:
        return
    stream = net.streams[n]
    count = net.streams[n + 1] - stream
    if not net.one_per_tick:
        for k in range(count):
            st.gap[b, stream + k] -= net.arrivals[net.neighbour[net.first[n] + k]] * factor
    if not np.isfinite(st.gap[b, stream]):
        return
    if serve_stream(net, st, b, n, 0, now, factor) == 0:
        for k in range(1, count):
            if np.isfinite(st.gap[b, stream + k]):
                serve_stream(net, st, b, n, k, now, factor)


@part
def complete(net, st, b, n, task, now):
    """Send the output of a task to its client."""
    if st.window[0] <= st.born[b, task] < st.window[1]:
        st.served_by[b, n] += 1
        if st.exchange.shape[1] > 0:
            st.exchange[b, st.origin[b, task], n] += 1
    back, elsewhere = st.back[b, task], st.hops[b, task] > 0
    if net.home_shortcut and st.receiver[b, task] == n:
        back, elsewhere = st.from_receiver[b, task], False
    due = now + 1 + back
    if net.self_hop > 0:
        # The output leaves within the tick; that of an offloaded task first goes to this node.
        due = now + back + (net.self_hop if elsewhere else 0)
    note(st, b, task, SERVED, n, due, now)
    if net.self_hop > 0 or back > 0:
        launch(st, b, task, RETURNING, due)
    else:
        come_home(net, st, b, task, now + 1)


@part
def worker(net, st, b, n, now):
    """Run a node's worker: serve, take in, cancel, publish."""
    power = net.speed[n]
    while power > 0.0:
        task = st.service[b, n]
        if task < 0:
            if pending_is_first(net, st, b, n):
                task = pop(st, b, st.pending_head, n)
                st.num_pending[b, n] -= 1
            elif st.ready_head[b, n] >= 0:
                task = pop(st, b, st.ready_head, n)
                st.num_ready[b, n] -= 1
            elif st.num_intake[b, n] > 0:
                take_in(net, st, b, n)
                continue
            else:
                break
            st.kind[b, task] = SERVICE
            st.service[b, n] = task
            note(st, b, task, STARTED, n, 0, now)
        if st.work[b, task] > power:
            st.work[b, task] -= power
            break
        power -= st.work[b, task]
        st.work[b, task] = 0.0
        st.service[b, n] = NONE
        complete(net, st, b, n, task, now)
    waiting = st.num_ready[b, n] + st.num_pending[b, n]
    if st.num_intake[b, n] > 0 and (waiting == 0 or now % net.intake_period == 0):
        take_in(net, st, b, n)
    if st.earliest[b, n] + net.expiry_grace <= now + 1:
        expire(net, st, b, n, now + 1)
    row = now % st.published.shape[1]
    if not net.publish_on_arrival or st.dirty[b, n]:
        st.published[b, row, n] = load(st, b, n)
    else:
        st.published[b, row, n] = st.published[b, (now - 1) % st.published.shape[1], n]
    st.dirty[b, n] = False
    st.incoming[b, n] = 0.95 * st.incoming[b, n] + 0.05 * st.accepted[b, n]
    st.accepted[b, n] = 0


@part
def act(net, st, b, n, action, now):
    """Apply an action to the first undecided task; an illegal one keeps the task."""
    if st.num_intake[b, n] > 0 and (action != 0 or st.num_ready[b, n] + st.num_pending[b, n] == 0):
        take_in(net, st, b, n)
    task = st.pending_head[b, n]
    if task < 0:
        st.total[b, MASKED] += action != 0
        return
    if not legal(net, st, b, n, action, task):
        st.total[b, MASKED] += 1
        action = 0
    if action == 0 and net.keep_marks_first and not pending_is_first(net, st, b, n):
        return  # the first task of the queue is decided already
    pop(st, b, st.pending_head, n)
    st.num_pending[b, n] -= 1
    remember(st, b, task, n)
    if action == 0:
        st.kind[b, task] = READY
        insert(net, st, b, st.ready_head, st.ready_tail, n, task)
        st.num_ready[b, n] += 1
        return
    st.dirty[b, n] = True
    if net.home_shortcut and st.receiver[b, task] == n:
        st.back[b, task] = st.from_receiver[b, task]  # the output returns to this node at most
    offload(net, st, b, n, action, task, now)


@part
def shuffle(net, st, b, now):
    """Shuffle the events of a tick: messages, clients, workers and the joint action.

    An event is 0 for the joint action, 1 + n for a client, 1 + N + n for a worker, and
    1 + 2 N + task for a message.
    """
    nodes = len(net.speed)
    count = 1 + 2 * nodes
    for event in range(count):
        st.order[b, event] = event
    task = take_due(st, b, now)
    while task >= 0:
        st.order[b, count] = 1 + 2 * nodes + task
        count += 1
        task = st.next[b, task]
    for last in range(count - 1, 0, -1):
        state = st.order_rng[b] + GOLDEN
        st.order_rng[b] = state
        chosen = int(mix(state) % np.uint64(last + 1))
        held = st.order[b, last]
        st.order[b, last] = st.order[b, chosen]
        st.order[b, chosen] = held
    st.num_events[b] = count


@part
def run_events(net, st, b, first, now, factor):
    """Run the events of a tick from position `first` to the joint action, or to the end."""
    nodes = len(net.speed)
    for position in range(first, st.num_events[b]):
        event = st.order[b, position]
        if event == 0:
            st.cursor[b] = position
            return
        if event <= nodes:
            client(net, st, b, event - 1, now, factor)
        elif event <= 2 * nodes:
            worker(net, st, b, event - 1 - nodes, now)
        else:
            hand_over(net, st, b, event - 1 - 2 * nodes, now)


@part
def open_tick(net, st, now, factor):
    """Run the tick of worlds of random order up to its joint action."""
    for b in range(st.service.shape[0]):
        shuffle(net, st, b, now)
        run_events(net, st, b, 0, now, factor)


@compiled
def begin(net, st, factor):
    """Run new worlds up to their first joint action; return whether there was room for tasks."""
    if not has_room(net, st, factor):
        return False
    if net.random_order:
        open_tick(net, st, 0, factor)
    return True


@compiled
def event_tick(net, st, now, actions, factor, next_factor):
    """Advance every world by one tick; parameters as of :func:`sim_env.engine.kernel.tick`.

    `next_factor` is the rate multiplier of the next tick, which a random order begins as well.
    """
    if not has_room(net, st, max(factor, next_factor)):
        return False
    for b in range(actions.shape[0]):
        for n in range(actions.shape[1]):
            if net.is_agent[n]:
                act(net, st, b, n, actions[b, n], now)
        if net.random_order:
            run_events(net, st, b, st.cursor[b] + 1, now, factor)
            continue
        task = take_due(st, b, now)
        while task >= 0:
            following = st.next[b, task]
            hand_over(net, st, b, task, now)
            task = following
        for n in range(actions.shape[1]):
            client(net, st, b, n, now, factor)
            worker(net, st, b, n, now)
    if net.random_order:
        open_tick(net, st, now + 1, next_factor)
    return True
