"""What sharing a critic adds, and what a local actor adds: the conditions in which each can matter.

The protocol, written before the first of these worlds was looked at, is in
docs/results/federation/protocol.md.
"""

from collections.abc import Iterator, Sequence

from fauno_flwr.experiments.design import Arm, Condition, Design, Experiment
from fauno_flwr.experiments.methods import FROM_SCRATCH, METHODS, PAPERS_CRITIC, Method

FIRST_WORLD = 3_000_000  # no choice was made on these worlds, nor on those of other experiments
# The settings of each method are the first of its grid in the tuning, see docs/results/tuning.
SHARED = (
    *("agent.critic=action", "agent.temperature=0.1"),
    *("agent.critic_rate=3", "agent.learning_rate=0.003"),
)
COMPARED: dict[str, Method] = {
    "fauno": Method("FAuNO", SHARED),
    "default": Method("FAuNO, T = 0.7", (*SHARED, "agent.temperature=0.7")),
    "alone": Method(
        "the same, not shared", (*SHARED, "agent.temperature=0.3", "federation.share=nothing")
    ),
    "state": Method(
        "FAuNO, the paper's critic",
        (PAPERS_CRITIC, "agent.learning_rate=0.01", "agent.epochs=10"),
    ),
    "independent": Method(
        "independent PPO",
        (
            *(PAPERS_CRITIC, "agent.learning_rate=0.003", "agent.epochs=10"),
            "federation.share=nothing",
        ),
    ),
    "model": Method("full-model federation", (*SHARED, "federation.share=model")),
    "critic": Method("the critic alone", (*SHARED, "agent.learn_actor=false")),
    "scof": Method(
        METHODS["scof"].title,
        (*METHODS["scof"].settings, "agent.learning_rate=0.01", "agent.epsilon_steps=40"),
    ),
}
# Virtual duration of a message with scarce data, as measured; events are timed in units of it.
MESSAGE_SECONDS = 64.0
CHANGING = ("rpi_0", "rpi_4", "rpi_8", "rpi_12")
HALF = "rpi_*[02468]"  # every second Raspberry Pi
WORLD = ("workload.rate=2",)
SCARCE = (FROM_SCRATCH, "training.worlds=4")
VERY_SCARCE = (FROM_SCRATCH, "training.worlds=1", "training.ticks=128")
NEWCOMERS = "-newcomers"
# Suffixes of conditions in a new network, with the decisions per node before the evaluation.
STAGES = {"-first": (0, "before the first update"), "-early": (100, "after 100 decisions")}


def design(quick: bool) -> Design:
    """Cross the methods with amounts of data, late and failing nodes, and nodes that differ."""
    messages = 8 if quick else 16
    end = messages * MESSAGE_SECONDS
    late, back = _away(0, 0.7 * end), _away(0.4 * end, 0.7 * end)
    rise = (
        "workload.schedule.kind=steps",
        "workload.schedule.steps=["
        f"{{multiplier: 0.25, seconds: {end / 2:g}}}, {{multiplier: 1, seconds: {end / 2:g}}}]",
    )
    conditions = [
        Condition("ample", "ample data", WORLD, (FROM_SCRATCH,)),
        Condition("ample-prior", "ample data, prior", WORLD),
        Condition("scarce", "scarce data", WORLD, SCARCE),
        Condition("very-scarce-8", "very scarce data, 8 messages", WORLD, VERY_SCARCE, 8),
        Condition("very-scarce-3", "very scarce data, 3 messages", WORLD, VERY_SCARCE, 3),
        Condition("late", "4 nodes join late", WORLD, (*SCARCE, late)),
        Condition("return", "4 nodes fail, return", WORLD, (*SCARCE, back)),
        Condition("load", "load rises in the middle", ("workload.rate=4",), (*SCARCE, *rise)),
        Condition("sparse", "sparse reward", WORLD, (*SCARCE, "reward=sparse")),
        _differing("stated-speeds", "half misstate their speed", "physics.stated_speed_factors", 8),
        _differing("deadlines", "half have short deadlines", "workload.deadline_factors", 0.3),
        _differing("losses", "half weigh losses 10 x", "reward.loss_factors", 10),
    ]
    if quick:
        kept = ("ample", "very-scarce-8", "very-scarce-3", "late")
        conditions = [condition for condition in conditions if condition.name in kept]
    else:
        conditions += _new_network("ether4", ("topology=ether4", "workload.rate=2"))
        conditions += _new_network("random20", ("topology=random20", "workload.rate=1"))
    names = [condition.name for condition in conditions]
    own = [
        Condition(f"{name}{NEWCOMERS}", f"{title}: their own tasks", WORLD, origins=CHANGING)
        for name, title in (("late", "4 nodes join late"), ("return", "4 nodes fail, return"))
        if name in names
    ]
    arms = [
        Arm(method, name, (*before, name, *after))
        for name, before, after in _evaluations(names)
        for method in COMPARED
    ]
    return Design([*conditions, *own], arms, messages, first_world=FIRST_WORLD)


def _evaluations(names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Yield each condition of a training, with those evaluated before and after its own."""
    for name in names:
        if name.endswith(tuple(STAGES)):
            continue
        stages = tuple(f"{name}{stage}" for stage in STAGES if f"{name}{stage}" in names)
        own = (f"{name}{NEWCOMERS}",) if name in ("late", "return") else ()
        yield name, stages, own


def _new_network(network: str, world: tuple[str, ...]) -> list[Condition]:
    """Return a network in which no node has trained: at first, early, and in the end."""
    stages = {**STAGES, "": (None, "in the end")}
    return [
        Condition(
            f"new-{network}{stage}",
            f"new network, {network}: {when}",
            world,
            VERY_SCARCE,
            start="scarce",
            decisions=decisions,
        )
        for stage, (decisions, when) in stages.items()
    ]


def _differing(name: str, title: str, setting: str, factor: float) -> Condition:
    """Return a condition in which half of the Raspberry Pis differ from the others."""
    return Condition(name, title, (*WORLD, f'{setting}={{"{HALF}": {factor:g}}}'), SCARCE)


def _away(start: float, stop: float) -> str:
    outages = (f"{name}: [{{down: {start:g}, up: {stop:g}}}]" for name in CHANGING)
    return f"dynamics.nodes={{{', '.join(outages)}}}"


EXPERIMENT = Experiment(
    "federation",
    "What does sharing a critic add, and what does the local actor add?",
    design,
    COMPARED,
    seeds=10,
    rivals=("alone", "default", "state", "independent", "model", "critic", "scof", "lq", "sed"),
)
