"""Policies compared on the same arrivals: cohort metrics and paired intervals over worlds."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sim_env.engine.state import LOSSES
from sim_env.errors import require_seeds, require_whole, shown
from sim_env.policies.heuristics import Policy
from sim_env.scenario import Scenario
from sim_env.world import Metrics, World

LONGEST_DRAIN = 20_000  # ticks; tasks without a deadline may never end
LONGEST_RUN = 10**8  # ticks, four months of ticks of 0.1 s


@dataclass(frozen=True)
class Interval:
    """Mean over worlds with its 95 % Student interval."""

    mean: float
    low: float
    high: float


def interval(values: np.ndarray) -> Interval:
    """Compute the 95 % Student interval of the mean of independent values.

    NaN (a value that a world does not define) is left out; the interval of a single value is
    unbounded.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, float("-inf"), float("inf"))
    from scipy.special import stdtrit  # not scipy.stats, which takes a second to import

    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def run_policy(
    scenario: Scenario,
    policy: Policy,
    seeds: Sequence[int],
    *,
    warmup: int = 600,
    window: int = 2000,
) -> Metrics:
    """Run one policy in one world per seed and follow the tasks born in the window to their end.

    Parameters
    ----------
    scenario : Scenario
    policy : Policy
        Decides for all agents.
    seeds : sequence of int
        The arrivals of a seed are the same for every policy.
    warmup : int, default 600
        Ticks before the window.
    window : int, default 2000
        Ticks of the window; arrivals continue after it until its tasks have ended.

    Returns
    -------
    Metrics

    Raises
    ------
    ValueError
        For a policy that cannot be called, impossible seeds or ticks, or more than 10^8 ticks.
    """
    if not callable(policy):
        raise ValueError(
            f"policy is {shown(policy)}: must be a function of an observation and a generator"
        )
    require_whole("warmup", warmup, at_least=0, at_most=LONGEST_RUN)
    require_whole("window", window, at_least=1, at_most=LONGEST_RUN - warmup)
    world = World(scenario, seeds)
    world.measure(warmup, warmup + window)
    rng = np.random.default_rng(require_seeds(seeds))
    world.run(policy, warmup + window, rng)
    while world.now < warmup + window + LONGEST_DRAIN and world.metrics().inside.any():
        world.run(policy, 50, rng)
    broken = [name for name, holds in world.audit().items() if not holds]
    if broken:
        raise RuntimeError(f"audit of the world failed: {', '.join(broken)}")
    return world.metrics()


def run_policies(
    scenario: Scenario,
    policies: Mapping[str, Policy],
    seeds: Sequence[int],
    *,
    warmup: int = 600,
    window: int = 2000,
    threads: int = 1,
) -> list[dict[str, Any]]:
    """Run several policies by :func:`run_policy`, and :func:`summarise` the results.

    Parameters
    ----------
    scenario, policies, seeds, warmup, window
        As of :func:`run_policy`.
    threads : int, default 1
        So many policies run at once, each in one thread. Compiled ones gain by it.
    """

    def run(policy: Policy) -> Metrics:
        return run_policy(scenario, policy, seeds, warmup=warmup, window=window)

    if threads <= 1:
        results = [run(policy) for policy in policies.values()]
    else:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(run, policies.values()))
    return summarise(dict(zip(policies, results, strict=True)))


def by_world(results: Mapping[str, Metrics], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Tabulate the results, one row per policy and world.

    Parameters
    ----------
    results : mapping of str to Metrics
        From :func:`run_policy` with these seeds.
    seeds : sequence of int
        Of the worlds; rows of the same seed have the same arrivals.

    Returns
    -------
    list of dict
        ``policy``, ``seed``, tasks ``created``, ``finished``, ``lost_overflow``,
        ``lost_deadline``, ``lost_client``, ``lost_failure`` and ``unfinished_at_end``,
        ``finished_ratio``, and ``response_mean`` and ``response_p95`` in seconds; NaN where it is
        not defined.
    """
    return [
        {
            "policy": name,
            "seed": int(seed),
            "created": int(metrics.created[b]),
            "finished": int(metrics.finished[b]),
            **{f"lost_{kind}": int(getattr(metrics, kind)[b]) for kind in LOSSES},
            "unfinished_at_end": int(metrics.inside[b]),
            "finished_ratio": float(metrics.finished_ratio[b]),
            "response_mean": float(metrics.mean_response[b]),
            "response_p95": replace(
                metrics, histogram=metrics.histogram[b : b + 1]
            ).response_quantile(0.95),
        }
        for name, metrics in results.items()
        for b, seed in enumerate(seeds)
    ]


def summarise(
    results: Mapping[str, Metrics], baselines: Sequence[str] = ("lq", "sed", "threshold")
) -> list[dict[str, Any]]:
    """Summarise the results, one row per policy, ready for JSON.

    Parameters
    ----------
    results : mapping of str to Metrics
        From :func:`run_policy` with the same seeds.
    baselines : sequence of str
        Policies with which the others are compared world by world.

    Returns
    -------
    list of dict
        ``policy``, ``created``, ``finished``, ``finished_ratio`` and ``response_mean`` (seconds)
        as ``{mean, low, high}``, ``response_p95``, ``lost`` (mean over worlds of the fraction of
        each kind), ``served_by`` (tasks by node), ``fairness``, ``by_world`` (ratio and mean
        response in each world), and ``minus``: for each baseline the paired differences of ratio
        and response.
    """
    rows = []
    for name, metrics in results.items():
        created = int(metrics.created.sum())
        row: dict[str, Any] = {
            "policy": name,
            "created": created,
            "finished": int(metrics.finished.sum()),
            "unfinished_at_end": int(metrics.inside.sum()),
            "finished_ratio": asdict(interval(metrics.finished_ratio)),
            "response_mean": asdict(interval(metrics.mean_response)),
            "response_p95": metrics.response_quantile(0.95),
            "lost": {
                kind: interval(getattr(metrics, kind) / np.maximum(metrics.created, 1)).mean
                for kind in LOSSES
            },
            "served_by": metrics.served_by.sum(axis=0).tolist(),
            "fairness": metrics.fairness,
            "by_world": {
                "finished_ratio": metrics.finished_ratio.tolist(),
                "response_mean": metrics.mean_response.tolist(),
            },
            "minus": {},
        }
        for other in baselines:
            if other != name and other in results:
                base = results[other]
                row["minus"][other] = {
                    "finished_ratio": asdict(
                        interval(metrics.finished_ratio - base.finished_ratio)
                    ),
                    "response_mean": asdict(interval(metrics.mean_response - base.mean_response)),
                }
        rows.append(row)
    return rows
