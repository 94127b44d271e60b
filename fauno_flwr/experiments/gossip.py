"""What it costs to have no manager, and what it saves when the manager fails.

The protocol, written before the first of these worlds was looked at, is in
docs/results/gossip/protocol.md.
"""

from fauno_flwr.experiments.design import Arm, Condition, Design, Experiment
from fauno_flwr.experiments.federation import SCARCE, SHARED
from fauno_flwr.experiments.methods import Method
from fauno_flwr.experiments.straggler import slow

FIRST_WORLD = 6_000_000  # no choice was made on these worlds, nor on those of other experiments
GOSSIP = (*SHARED, "federation.merging=gossip")
METHODS = {
    "gossip": Method("gossip on the topology", GOSSIP),
    "manager": Method("manager", SHARED),
    "standby": Method("manager with a standby", (*SHARED, "cosim.takeover=10")),
    "ring": Method("gossip on a ring", (*GOSSIP, "federation.graph=ring")),
    "peers": Method(
        "gossip with random peers",
        (*GOSSIP, "federation.graph=random", "federation.mixing=push-sum"),
    ),
}
FAILS, RETURNS = "-fails", "-returns"
MESSAGES, QUICK_MESSAGES = 10, 6
MESSAGE_SECONDS = 64.0  # virtual duration of a message with scarce data, as measured
DOWN, UP = 0.4, 0.7  # of the training
# The manager's node, and the settings of the world and of the training.
PLACES = {
    "ether2": ("server_0", "ether2", ("workload.rate=2",), ()),
    "ether4": ("server_0", "ether4", ("topology=ether4", "workload.rate=2"), ()),
    "random40": ("nuc_0", "random40", ("topology=random40", "workload.rate=1"), ()),
    "loss": (
        "server_0",
        "ether2, links fail",
        ("workload.rate=2",),
        ("dynamics.link_mttf=120", "dynamics.link_mttr=30"),
    ),
    "stragglers": ("server_0", "ether2, a quarter 5x slow", ("workload.rate=2",), (slow(5),)),
}


def design(quick: bool) -> Design:
    """Cross networks and troubles with a manager whose node stays up, fails, or fails and returns.

    A training whose manager fails for good ends when it would have ended with the manager.
    """
    messages = QUICK_MESSAGES if quick else MESSAGES
    end = messages * MESSAGE_SECONDS
    conditions, arms = [], []
    for name in ("ether2",) if quick else PLACES:
        node, title, world, training = PLACES[name]
        settings = (*SCARCE, *training)
        down, up = DOWN * end, UP * end
        fails = (f"dynamics.nodes={{{node}: [{{down: {down:g}}}]}}", f"federation.timeout={end:g}")
        conditions += [
            Condition(name, title, world, settings),
            Condition(f"{name}{FAILS}", f"{title}, manager fails", world, (*settings, *fails)),
        ]
        arms += [Arm(method, name) for method in METHODS if method != "standby"]
        arms += [Arm(method, f"{name}{FAILS}") for method in METHODS]
        if name == "ether2":
            returns = f"dynamics.nodes={{{node}: [{{down: {down:g}, up: {up:g}}}]}}"
            title = f"{title}, manager fails and returns"
            own = (*settings, returns, f"federation.timeout={end:g}")
            conditions.append(Condition(f"{name}{RETURNS}", title, world, own))
            arms += [Arm(method, f"{name}{RETURNS}") for method in ("gossip", "manager", "standby")]
    return Design(conditions, arms, messages, first_world=FIRST_WORLD)


EXPERIMENT = Experiment(
    "gossip",
    "Can the nodes do without a manager, and what is it worth when the manager fails?",
    design,
    METHODS,
    rivals=("manager", "standby", "ring", "peers", "lq", "sed"),
    target=True,
    traffic=True,
)
