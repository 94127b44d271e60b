"""What an experiment consists of: conditions, arms, and the cells computed for them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from fauno_flwr.config.agent import NOTHING
from fauno_flwr.config.federation import GOSSIP
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.experiments.methods import METHODS, Method
from fauno_flwr.tasks.heuristics import find_heuristics
from sim_env.errors import require_choice

# Development and `fauno evaluate` use seeds from 1,000,000 on; no choice was ever made on these.
DEVELOPMENT_SEED, HELD_OUT_SEED = 1_000_000, 2_000_000
HEURISTICS = "heuristics"
BASELINES: tuple[str, ...] = ("sed", "threshold", "lq", "random", "local")
UNSAFE = r"[^\w.]"  # characters that are replaced in names of files


@dataclass(frozen=True)
class Condition:
    """A world in which policies are compared.

    Parameters
    ----------
    name : str
        In file names and table rows.
    title : str
        In figures.
    world : tuple of str
        Overrides of the preset for the world of the evaluation.
    training : tuple of str
        Further overrides while training in it.
    messages : int, default 0
        Train messages per node on average; 0: those of the design.
    origins : tuple of str, default empty
        Nodes whose own tasks are measured; empty: those of all.
    start : str, default ""
        Name of another condition: version 0 is what the same method shares after a training there,
        if it shares anything.
    decisions : int, optional
        The agents are evaluated as they act after so many decisions per node, on average; default:
        at the end of the training.
    seeds : int, optional
        At most so many trainings per method here, whatever the experiment has; default: as many.
    """

    name: str
    title: str
    world: tuple[str, ...]
    training: tuple[str, ...] = ()
    messages: int = 0
    origins: tuple[str, ...] = ()
    start: str = ""
    decisions: int | None = None
    seeds: int | None = None


@dataclass(frozen=True)
class Arm:
    """A method, the condition it is trained in, and those in which the result is evaluated.

    Parameters
    ----------
    method : str
        Name in the tables, unique among the arms of a condition.
    trained_in : str
        Name of the condition whose world and training settings it uses.
    evaluated_in : tuple of str
        Names of conditions; empty: the one it was trained in.
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
        Train messages per node, on average: the same amount of data for every arm. With K of m
        nodes per version, a training makes ``messages * m / K`` versions.
    preset : str, default "ether2"
    first_world : int, default 2,000,000
        First seed of the worlds of the evaluation.
    """

    conditions: Sequence[Condition]
    arms: Sequence[Arm]
    messages: int
    preset: str = "ether2"
    first_world: int = HELD_OUT_SEED

    def condition(self, name: str) -> Condition:
        """Return the condition of that name."""
        return {condition.name: condition for condition in self.conditions}[name]


@dataclass(frozen=True)
class Experiment:
    """A question, and how it is answered.

    An experiment of one's own is an object of this class in a module of the working directory, or
    of an installed package: ``fauno experiment my_module:EXPERIMENT``. So are its methods: each is
    a line of `methods`, a title and the settings that differ from the preset's::

        METHODS = {
            "fauno": Method("FAuNO"),
            "wide": Method("64 hidden units", ("agent.hidden=64",)),
        }

        def design(quick):
            condition = Condition("busy", "ether2, 4 tasks/s", ("workload.rate=4",))
            arms = [Arm(method, condition.name) for method in METHODS]
            return Design([condition], arms, messages=2 if quick else 20)

        EXPERIMENT = Experiment("width", "Do wider networks learn more?", design, METHODS)

    Parameters
    ----------
    name : str
        Name in the report.
    question : str
        One sentence.
    design : callable
        ``design(quick)`` returns the :class:`Design`.
    methods : mapping of str to Method
        The methods of the arms by name; all others are compared with the first one.
    seeds : int, default 5
        Trainings per arm, unless the command sets another number.
    rivals : tuple of str
        Methods and heuristics that the report compares with the first method in detail.
    target : bool, default False
        Whether to report the time until half of LeastQueue's losses are avoided.
    traffic : bool, default False
        Whether to report what the links have carried and how far the nodes agree.
    load : bool, default False
        Whether to report how full the manager's links are, the staleness, and the cost of a node.
    heuristics : tuple of str, default empty
        Further heuristics beside :data:`BASELINES`: names, or ``package.module:attribute``.
    further : callable, optional
        ``further(summary, figures)`` returns further lines of the report, of a
        :class:`fauno_flwr.experiments.summary.Summary`, and may draw figures into that folder.
    """

    name: str
    question: str
    design: Callable[[bool], Design]
    methods: Mapping[str, Method]
    seeds: int = 5
    rivals: tuple[str, ...] = ("lq", "sed", "threshold")
    target: bool = False
    traffic: bool = False
    load: bool = False
    heuristics: tuple[str, ...] = ()
    further: Callable[[Any, Path], list[str]] | None = None

    def with_heuristics(self, names: Sequence[str]) -> Self:
        """Return the experiment with further heuristics in its tables and figures."""
        known = (*BASELINES, *self.heuristics)
        further = [name for name in dict.fromkeys(names) if name not in known]
        return replace(self, heuristics=(*self.heuristics, *further))

    @property
    def compared(self) -> tuple[str, ...]:
        """Whatever the first method is compared with in detail."""
        return tuple(dict.fromkeys((*self.rivals, *self.heuristics)))


@dataclass(frozen=True)
class Cell:
    """One unit of work: train and evaluate, or evaluate heuristics.

    Parameters
    ----------
    key : str
        Name of its file.
    method : str
        Or ``heuristics``.
    seed : int or None
        Of the training.
    training : RunConfig or None
        Settings of the training; None for heuristics.
    worlds : mapping of str to RunConfig
        Settings of the evaluation, by condition.
    policies : tuple of str, default empty
        The heuristics to evaluate.
    origins : mapping of str to tuple of str, default empty
        Nodes whose own tasks are measured, by condition; of the others, those of all.
    start : RunConfig, optional
        Settings of the training whose result is version 0.
    decisions : mapping of str to int, default empty
        As of :class:`Condition`, by condition.
    """

    key: str
    method: str
    seed: int | None
    training: RunConfig | None
    worlds: Mapping[str, RunConfig]
    policies: tuple[str, ...] = ()
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    start: RunConfig | None = None
    decisions: Mapping[str, int] = field(default_factory=dict)


def cells(
    experiment: Experiment, quick: bool, seeds: int, methods: Sequence[str] = ()
) -> list[Cell]:
    """List all cells: first the heuristics of each condition, then the trainings by seed.

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
        If a method is unknown, the first one is missing, or a heuristic cannot be found.
    """
    require_names(experiment, methods)
    design = experiment.design(quick)
    if methods:
        design = replace(design, arms=[arm for arm in design.arms if arm.method in methods])
    worlds = {c.name: settings(design, c.world) for c in design.conditions}
    origins = {c.name: c.origins for c in design.conditions if c.origins}
    decisions = {c.name: c.decisions for c in design.conditions if c.decisions is not None}
    agents = {name: len(world.build_scenario().agents) for name, world in worlds.items()}
    trainings = [
        training_settings(experiment, design, arm, agents[arm.trained_in]) for arm in design.arms
    ]
    starts = [_start(experiment, design, arm, agents) for arm in design.arms]
    heuristics = [
        Cell(f"{name}.{suffix}", HEURISTICS, None, None, {name: world}, policies, origins)
        for name, world in worlds.items()
        for suffix, policies in _groups(experiment).items()
    ]
    trained = [
        Cell(
            f"{arm.trained_in}.{arm.method}.{seed}",
            arm.method,
            seed,
            replace(training, seed=seed),
            {name: worlds[name] for name in arm.evaluated_in or (arm.trained_in,)},
            origins=origins,
            start=replace(start, seed=seed) if start else None,
            decisions=decisions,
        )
        for seed in range(1, seeds + 1)
        for arm, training, start in zip(design.arms, trainings, starts, strict=True)
        if seed <= (design.condition(arm.trained_in).seeds or seeds)
    ]
    return heuristics + trained


def _start(
    experiment: Experiment, design: Design, arm: Arm, agents: Mapping[str, int]
) -> RunConfig | None:
    """Return the settings of the training that an arm starts from, except the seed; or None."""
    name = design.condition(arm.trained_in).start
    if not name:
        return None
    found = training_settings(experiment, design, replace(arm, trained_in=name), agents[name])
    return None if found.federation.share == NOTHING else found


def require_names(experiment: Experiment, methods: Sequence[str]) -> None:
    """Check methods and heuristics; raise as :func:`cells`."""
    for method in methods:
        require_choice("method", method, tuple(experiment.methods))
    ours = next(iter(experiment.methods))
    if methods and ours not in methods:
        raise ValueError(f"methods are {', '.join(methods)}: must have {ours!r} among them")
    find_heuristics("heuristics", experiment.heuristics)


def _groups(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """Return heuristics by the suffix of their cell: the baselines, and each further one."""
    groups = {HEURISTICS: BASELINES}
    for name in experiment.heuristics:
        groups[f"{HEURISTICS}-{re.sub(UNSAFE, '-', name)}"] = (name,)
    return groups


def settings(design: Design, overrides: Sequence[str]) -> RunConfig:
    """Return the settings of a world whose evaluation is on held-out seeds."""
    return load_config(design.preset, [f"evaluation.seed={design.first_world}", *overrides])


def training_settings(experiment: Experiment, design: Design, arm: Arm, agents: int) -> RunConfig:
    """Return the settings of one training, except the seed, of `agents` nodes that learn."""
    condition = design.condition(arm.trained_in)
    config = settings(
        design,
        [
            "evaluation.policies=[]",
            *condition.world,
            *condition.training,
            *(o.format(agents=agents) for o in experiment.methods[arm.method].settings),
        ],
    )
    size = config.federation.buffer_size
    share = size / agents if isinstance(size, int) else size
    if config.federation.merging == GOSSIP:  # a version is a training of each node
        share = 1.0
    versions = max(1, round((condition.messages or design.messages) / share))
    return replace(config, federation=replace(config.federation, versions=versions))


def all_methods(conditions: Sequence[Condition], methods: Sequence[str] = ()) -> list[Arm]:
    """Return an arm for every method in every condition, evaluated where it was trained."""
    return [
        Arm(method, condition.name)
        for condition in conditions
        for method in (methods or tuple(METHODS))
    ]
