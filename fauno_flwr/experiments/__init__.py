"""The paper's questions as experiments: one module and one line of the registry for each."""

from fauno_flwr.experiments import (
    baseline,
    buffer,
    federation,
    gossip,
    privacy,
    scale,
    straggler,
    transfer,
    tuning,
)
from fauno_flwr.experiments.design import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        baseline.EXPERIMENT,
        buffer.EXPERIMENT,
        transfer.EXPERIMENT,
        straggler.EXPERIMENT,
        federation.EXPERIMENT,
        gossip.EXPERIMENT,
        privacy.EXPERIMENT,
        scale.EXPERIMENT,
        tuning.EXPERIMENT,
    )
}
