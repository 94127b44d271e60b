"""What an experiment consists of: conditions, arms, and the cells that they make."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.experiments.methods import METHODS, Method
from sim_env.errors import require_choice

# Seeds of development and of `fauno evaluate` begin at 1,000,000; nothing was ever chosen on these.
HELD_OUT_SEED = 2_000_000
HEURISTICS = "heuristics"
BASELINES = ("sed", "threshold", "lq", "random", "local")


@dataclass(frozen=True)
class Condition:
    """A world in which policies are compared.

    Parameters
    ----------
    name : str
        Of files and table rows.
    title : str
        In figures.
    world : tuple of str
        Overrides of the preset that make the world of the evaluation.
    training : tuple of str
        Further overrides while training in it.
    """

    name: str
    title: str
    world: tuple[str, ...]
    training: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arm:
    """A way to train, and the conditions in which the outcome is evaluated.

    Parameters
    ----------
    method : str
        Name in the tables, unique among the arms of a condition.
    trained_in : str
        Name of the condition whose world and training it takes.
    evaluated_in : tuple of str
        Names of conditions; empty: where it was trained.
    """

    method: str
    trained_in: str
    evaluated_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Design:
    """Conditions, arms and size of an experiment.

    Parameters
    ----------
    conditions : sequence of Condition
    arms : sequence of Arm
    messages : int
        Train messages that each node answers, on average: the same data for every arm. With K of
        m nodes to a version this makes ``messages * m / K`` versions.
    preset : str, default "ether2"
    """

    conditions: Sequence[Condition]
    arms: Sequence[Arm]
    messages: int
    preset: str = "ether2"

    def condition(self, name: str) -> Condition:
        """The condition of that name."""
        return {condition.name: condition for condition in self.conditions}[name]


@dataclass(frozen=True)
class Experiment:
    """A question, and what answers it.

    Parameters
    ----------
    name : str
        Of the command ``fauno experiment``.
    question : str
        One sentence.
    design : callable
        ``design(quick)``.
    methods : mapping of str to Method
        Titles of the arms.
    seeds : int
        Training seeds of the full experiment, unless asked otherwise.
    rivals : tuple of str
        What the first method is compared with.
    target : bool
        Whether the time is asked after which half of LeastQueue's losses are avoided.
    """

    name: str
    question: str
    design: Callable[[bool], Design]
    methods: Mapping[str, Method]
    seeds: int = 5
    rivals: tuple[str, ...] = ("lq", "sed", "threshold")
    target: bool = False


@dataclass(frozen=True)
class Cell:
    """One unit of work: train and evaluate, or evaluate the heuristics.

    Parameters
    ----------
    key : str
        Name of its file.
    method : str
        Or ``heuristics``.
    seed : int or None
        Of the training.
    training : RunConfig or None
        Settings of the training; none for heuristics.
    worlds : mapping of str to RunConfig
        Settings of the evaluation, by condition.
    """

    key: str
    method: str
    seed: int | None
    training: RunConfig | None
    worlds: Mapping[str, RunConfig]


def cells(
    experiment: Experiment, quick: bool, seeds: int, methods: Sequence[str] = ()
) -> list[Cell]:
    """All cells: first the heuristics of each condition, then seed by seed.

    Parameters
    ----------
    experiment : Experiment
    quick : bool
    seeds : int
        Trainings per arm.
    methods : sequence of str, optional
        Only these; the first of the experiment must be among them.

    Raises
    ------
    ValueError
        If there is no such method, or the first one, with which all are compared, is missing.
    """
    for method in methods:
        require_choice("method", method, tuple(experiment.methods))
    ours = next(iter(experiment.methods))
    if methods and ours not in methods:
        raise ValueError(f"methods are {', '.join(methods)}: must have {ours!r} among them")
    design = experiment.design(quick)
    if methods:
        design = replace(design, arms=[arm for arm in design.arms if arm.method in methods])
    worlds = {c.name: settings(design, c.world) for c in design.conditions}
    agents = {name: len(world.build_scenario().agents) for name, world in worlds.items()}
    trainings = [
        training_settings(experiment, design, arm, agents[arm.trained_in]) for arm in design.arms
    ]
    heuristics = [
        Cell(f"{name}.{HEURISTICS}", HEURISTICS, None, None, {name: world})
        for name, world in worlds.items()
    ]
    trained = [
        Cell(
            f"{arm.trained_in}.{arm.method}.{seed}",
            arm.method,
            seed,
            replace(training, seed=seed),
            {name: worlds[name] for name in arm.evaluated_in or (arm.trained_in,)},
        )
        for seed in range(1, seeds + 1)
        for arm, training in zip(design.arms, trainings, strict=True)
    ]
    return heuristics + trained


def settings(design: Design, overrides: Sequence[str]) -> RunConfig:
    """Settings of a world, its evaluation on held-out seeds."""
    return load_config(design.preset, [f"evaluation.seed={HELD_OUT_SEED}", *overrides])


def training_settings(experiment: Experiment, design: Design, arm: Arm, agents: int) -> RunConfig:
    """Settings of one training, the seed apart, in a network where so many `agents` learn."""
    place = design.condition(arm.trained_in)
    config = settings(
        design,
        [
            "evaluation.policies=[]",
            *place.world,
            *place.training,
            *(o.format(agents=agents) for o in experiment.methods[arm.method].settings),
        ],
    )
    size = config.federation.buffer_size
    share = size / agents if isinstance(size, int) else size
    versions = max(1, round(design.messages / share))
    return replace(config, federation=replace(config.federation, versions=versions))


def all_methods(conditions: Sequence[Condition], methods: Sequence[str] = ()) -> list[Arm]:
    """Every method in every condition, evaluated where it was trained."""
    return [
        Arm(method, condition.name)
        for condition in conditions
        for method in (methods or tuple(METHODS))
    ]
