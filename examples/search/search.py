"""python search.py OUT TRIALS [KEY=VALUE]...: search hyper-parameters; a trial is a fauno train."""

import json
import subprocess
import sys
import time
from pathlib import Path

import optuna

FAUNO = Path(sys.executable).with_name("fauno")
OUT, TRIALS, SETTINGS = Path(sys.argv[1]).absolute(), int(sys.argv[2]), sys.argv[3:]
MEASURE, EVERY = "eval/finished_ratio", 5


def settings_of(trial: optuna.Trial) -> list[str]:
    """Return the settings of a trial: the search space."""
    return [
        f"agent.learning_rate={trial.suggest_float('learning_rate', 1e-4, 1e-2, log=True):.6g}",
        f"agent.gamma={trial.suggest_categorical('gamma', [0.8, 0.9, 0.95])}",
        f"federation.buffer_size={trial.suggest_float('buffer_size', 0.25, 1.0, step=0.25)}",
    ]


def evaluations(folder: Path) -> dict[int, float]:
    """Return the measure of each version that has been evaluated so far."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return {row["version"]: row[MEASURE] for row in map(json.loads, lines) if MEASURE in row}


def objective(trial: optuna.Trial) -> float:
    """Train with the settings of a trial, or stop early; return the measure of its best version."""
    folder, reported = OUT / f"trial-{trial.number}", 0
    command = [FAUNO, "train", "--out", folder, f"evaluation.every={EVERY}"]
    with folder.with_suffix(".log").open("w") as log:
        train = subprocess.Popen([*command, *settings_of(trial), *SETTINGS], stdout=log, stderr=log)
    try:
        while train.poll() is None:
            time.sleep(0.5)
            for version, value in list(evaluations(folder).items())[reported:]:
                trial.report(value, version)
                reported += 1
                if trial.should_prune():
                    raise optuna.TrialPruned
    finally:
        train.terminate()
        train.wait()
    if train.returncode:
        raise RuntimeError(f"fauno train has failed: {log.name}")
    return max(evaluations(folder).values())


OUT.mkdir(parents=True, exist_ok=True)
storage = f"sqlite:///{OUT}/study.db"  # the same command continues the study
study = optuna.create_study(
    storage=storage, study_name="fauno", load_if_exists=True, direction="maximize"
)
study.optimize(objective, n_trials=TRIALS)
print(f"trial {study.best_trial.number}: {study.best_value:.4f} with {study.best_params}")
