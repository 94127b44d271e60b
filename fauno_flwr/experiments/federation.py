"""Where sharing the critic helps: scarce data, late and failing nodes, a change of load."""

from fauno_flwr.experiments.design import Condition, Design, Experiment, all_methods
from fauno_flwr.experiments.methods import FROM_SCRATCH, METHODS

COMPARED = ("fauno", "independent", "model")
# Virtual duration of a message with scarce data, as measured; events are timed in units of it.
MESSAGE_SECONDS = 64.0
CHANGING = ("rpi_0", "rpi_4", "rpi_8", "rpi_12")
WORLD = ("workload.rate=2",)


def design(quick: bool) -> Design:
    """Cross the methods with amounts of data, late and failing nodes, and a change of load."""
    messages = 8 if quick else 30
    end = messages * MESSAGE_SECONDS
    ample = (FROM_SCRATCH,)
    scarce, very_scarce = (
        (*ample, "training.worlds=4"),
        (*ample, "training.worlds=1", "training.ticks=128"),
    )
    conditions = [
        Condition("ample", "ample data", WORLD, ample),
        Condition("scarce", "scarce data", WORLD, scarce),
        Condition("very-scarce", "very scarce data", WORLD, very_scarce),
        Condition("late", "4 nodes join late", WORLD, (*scarce, _away(0, 0.7 * end))),
        Condition("return", "4 nodes fail, return", WORLD, (*scarce, _away(0.4 * end, 0.7 * end))),
        Condition(
            "load",
            "load rises in the middle",
            ("workload.rate=4",),
            (
                *scarce,
                "workload.schedule.kind=steps",
                "workload.schedule.steps=["
                f"{{multiplier: 0.25, seconds: {end / 2:g}}}, "
                f"{{multiplier: 1, seconds: {end / 2:g}}}]",
            ),
        ),
    ]
    if quick:
        conditions = [c for c in conditions if c.name in ("ample", "very-scarce", "late")]
    return Design(conditions, all_methods(conditions, COMPARED), messages)


def _away(start: float, stop: float) -> str:
    outages = (f"{name}: [{{down: {start:g}, up: {stop:g}}}]" for name in CHANGING)
    return f"dynamics.nodes={{{', '.join(outages)}}}"


EXPERIMENT = Experiment(
    "federation",
    "Where does sharing the critic help: with little data, for nodes that join late or come back, "
    "when the load changes?",
    design,
    {name: METHODS[name] for name in COMPARED},
    seeds=10,
    rivals=("independent", "model", "lq", "sed"),
)
