"""The state of a whole network as one vector, for critics that see more than the agents do."""

import numpy as np
from gymnasium import spaces

from sim_env.engine.features import REFERENCE_SPEED
from sim_env.engine.observation import Observation
from sim_env.engine.state import INTAKE, OUTBOUND, PENDING, READY, SENT, SERVICE
from sim_env.envs.layout import BOUND
from sim_env.scenario import Scenario
from sim_env.world import World

AT_NODE, COMING = (READY, PENDING, SERVICE, INTAKE), (OUTBOUND, SENT)
NODE_FEATURES = 7


def overview_space(scenario: Scenario) -> spaces.Box:
    """Return the space of :func:`overview`."""
    length = scenario.topology.num_nodes * NODE_FEATURES
    length += len(scenario.agents) * scenario.encoding.local
    return spaces.Box(-BOUND, BOUND, (length,), np.float32)


def overview(world: World, seen: Observation) -> np.ndarray:
    """Return the state of the first world as a vector.

    Parameters
    ----------
    world : World
    seen : Observation
        Its decisions, as :meth:`World.observe` returns them.

    Returns
    -------
    array of float32, shape (N * 7 + A * L,)
        For each of N nodes, as they are now, without the delay of information: tasks and undecided
        tasks / capacity; log1p(backlog in ticks) / 5; log1p(tasks on their way to it) / 4; moving
        average of tasks accepted per tick; 1 if it is up; log2(speed / 2e7 instructions per tick)
        / 4. Then, for each of A agents, ``local`` of its observation, zeros without a decision.
    """
    scenario, net, st = world.scenario, world.net, world.state
    kind, place = st.kind[0], st.place[0]
    here, coming = np.isin(kind, AT_NODE), np.isin(kind, COMING)
    nodes = len(net.speed)
    work = np.bincount(place[here], st.work[0, here], minlength=nodes)
    undecided = st.num_pending[0] + st.num_intake[0]
    columns = [
        (undecided + st.num_ready[0] + (st.service[0] >= 0)) / net.capacity,
        undecided / net.capacity,
        np.log1p(work / net.speed) / 5,
        np.log1p(np.bincount(place[coming], minlength=nodes)) / 4,
        st.incoming[0],
        st.up[0],
        np.log2(net.speed / REFERENCE_SPEED) / 4,
    ]
    local = np.zeros((len(scenario.agents), scenario.encoding.local), np.float32)
    if len(seen):
        local[np.searchsorted(scenario.agents, seen.node)] = seen.features()[0]
    return np.append(np.stack(columns, axis=1), local).astype(np.float32)
