"""Several runs beside each other: by configuration, seed by seed, at equal budgets and on equal grids.

A configuration is everything in an experiment but its seeds, its name and where it ran. Two configurations are compared in
pairs of equal seeds: such runs have clients, data, version 0 and batches in common (docs/statistics.md says what more
and what not), so their difference is much sharper than that of two means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypedDict, Unpack

import numpy as np
import pandas as pd

from fedsim.arrays import Floats
from fedsim.records import scores
from fedsim.records.run import Run
from fedsim.records.statistics import LEVEL, mean_interval, median_time, restricted_mean

NOT_COMPARED = ("name", "seed", "seeds", "runtime", "numerics")
"""Blocks that make no other configuration."""
DTYPE = "dtype"
"""The setting of `numerics` that does: what the backbone computes in changes more than last bits."""
UNLIKE = "evaluate.targets"
"""Key that makes no other configuration: what a run is asked to reach changes nothing in it."""


Unit = Literal["time_s", "up_bytes", "joules"]
"""What a budget is counted in."""


class Budget(TypedDict, total=False):
    """What a run may have spent: virtual seconds, uploaded bytes, joules above idle."""

    time_s: float
    up_bytes: float
    joules: float


def budget_of(unit: Unit, amount: float) -> Budget:
    """Return so much of one unit."""
    if unit == "time_s":
        return {"time_s": amount}
    return {"up_bytes": amount} if unit == "up_bytes" else {"joules": amount}


class Seeds(NamedTuple):
    """What a run was drawn with: equal in two runs that make a pair."""

    population: int
    data: int
    training: int

    def __str__(self) -> str:
        if len(set(self)) == 1:
            return str(self.training)
        return "/".join(map(str, self))


def seeds_of(run: Run) -> Seeds:
    """Return the three seeds of a run; runs from before there were three have one for all."""
    one = run.experiment.get("seed", run.info.seed)
    own = run.experiment.get("seeds") or {}
    return Seeds(*(one if own.get(name) is None else own[name] for name in Seeds._fields))


def settings_of(run: Run) -> dict[str, object]:
    """Return the configuration of a run as key path -> value."""
    flat = _flat({name: block for name, block in run.experiment.items() if name not in NOT_COMPARED})
    numerics = run.experiment.get("numerics")
    if isinstance(numerics, Mapping) and DTYPE in numerics:
        flat[f"numerics.{DTYPE}"] = numerics[DTYPE]
    return {key: value for key, value in flat.items() if key != UNLIKE}


def _flat(block: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    leaves: dict[str, object] = {}
    for name, value in block.items():
        path = f"{prefix}{name}"
        leaves |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return leaves


def configurations(runs: Sequence[Run]) -> list[int]:
    """Return the number of each run's configuration, in the order in which they come first, from 0."""
    settings = [repr(sorted(settings_of(run).items())) for run in runs]
    known = list(dict.fromkeys(settings))
    return [known.index(one) for one in settings]


# at equal budgets -------------------------------------------------------------------------------


def value_at(run: Run, metric: str, *, split: str = "test", **budget: Unpack[Budget]) -> float:
    """Return a metric as `fedsim.records.scores.at` finds it within a budget (time_s, up_bytes, joules); NaN where nothing was scored."""
    found = scores.at(run, only=(split, metric), **budget)["value"]
    return float(found.iloc[0]) if len(found) else math.nan


def paired_values(
    runs: Sequence[Run], others: Sequence[Run], metric: str, *, split: str = "test", **budget: Unpack[Budget]
) -> pd.DataFrame:
    """Return a metric of two configurations within a budget, seed by seed.

    Returns:
        One row a seed that both have, ascending: seed, value, other, difference (value - other; NaN where one of them
        has no scored version within the budget). Several runs of one configuration and seed count as their mean.
    """
    first, second = (_by_seed(part, metric, split, budget) for part in (runs, others))
    rows = [
        (str(seed), first[seed], second[seed], first[seed] - second[seed])
        for seed in sorted(set(first) & set(second))
    ]
    return pd.DataFrame(rows, columns=["seed", "value", "other", "difference"])


def _by_seed(runs: Sequence[Run], metric: str, split: str, budget: Budget) -> dict[Seeds, float]:
    values: dict[Seeds, list[float]] = {}
    for run in runs:
        values.setdefault(seeds_of(run), []).append(value_at(run, metric, split=split, **budget))
    return {seed: float(np.mean(found)) for seed, found in values.items()}


DIFFERENCE = ["pairs", "missing", "unpaired", "mean", "low", "high", "method"]
"""Columns of a difference: pairs of seeds, how many of them lack a value, seeds that one side lacks, mean and interval."""


def paired_difference(
    runs: Sequence[Run],
    others: Sequence[Run],
    metric: str,
    *,
    split: str = "test",
    level: float = LEVEL,
    **budget: Unpack[Budget],
) -> pd.DataFrame:
    """Return by how much one configuration differs from another within a budget: the mean over pairs of seeds.

    Args:
        runs: of one configuration.
        others: of another one.
        metric: what is compared.
        split: of the metric.
        level: of the interval, see `fedsim.records.statistics.mean_interval`.
        budget: time_s, up_bytes or joules, as `fedsim.records.scores.at` takes them; none: at the end of each run.

    Returns:
        One row with the columns of `DIFFERENCE`. If a pair lacks a value, mean and interval are NaN: a mean over the
        others would be one over survivors.
    """
    first, second = (_by_seed(part, metric, split, budget) for part in (runs, others))
    return _difference(first, second, level)


def _difference(first: Mapping[Seeds, float], second: Mapping[Seeds, float], level: float) -> pd.DataFrame:
    values = [first[seed] - second[seed] for seed in sorted(set(first) & set(second))]
    found, missing = mean_interval(values, level), sum(math.isnan(value) for value in values)
    row = (found.n, missing, len(set(first) ^ set(second)), found.mean, found.low, found.high, found.method)
    return pd.DataFrame([row], columns=DIFFERENCE)


# targets ----------------------------------------------------------------------------------------


def declared_targets(runs: Sequence[Run], metric: str | None = None) -> list[float]:
    """Return the targets that runs declared before they ran, each once, in their order.

    Args:
        runs: of any configurations.
        metric: of the test split; with it also the scores of it that ended runs (`budget.target`), behind `evaluate.targets`.
    """
    declared = [target for run in runs for target in run.experiment.get("evaluate", {}).get("targets") or ()]
    ends = [run.experiment.get("budget", {}).get("target") or {} for run in runs]
    declared += [end["value"] for end in ends if (end.get("metric"), end.get("split")) == (metric, "test")]
    return list(dict.fromkeys(float(target) for target in declared))


def common_grid_s(runs: Sequence[Run]) -> float | None:
    """Return the grid of virtual time [s] that all runs were scored on (`evaluate.every_s`), None if there is none."""
    grids = {run.experiment.get("evaluate", {}).get("every_s") for run in runs}
    only = grids.pop() if len(grids) == 1 else None
    return None if only is None else float(only)


def time_to_target_by_configuration(
    runs: Sequence[Run], metric: str, target: float, *, split: str = "test", until_s: float | None = None
) -> pd.DataFrame:
    """Return how long each configuration takes to a target, runs that never got there counted as what they are.

    Args:
        runs: of any configurations.
        metric: what is scored.
        target: what it is to reach.
        split: of the metric.
        until_s: where the restricted mean ends; None: the longest time over which all configurations were watched.

    Where all runs were scored on one grid of virtual time, they are looked at there.

    Returns:
        One row a configuration: configuration (as `configurations` counts), runs, reached (runs that did), median_s (by
        Kaplan-Meier; NaN if half never did), restricted_mean_s (mean of min(time, until_s)), until_s.
    """
    reached = scores.time_to_target(runs, metric, target, split, every_s=common_grid_s(runs))
    reached["configuration"] = configurations(runs)
    groups = list(reached.groupby("configuration"))
    if until_s is None:
        until_s = min(float(part["watched_s"].max()) for _, part in groups) if groups else math.nan
    rows = []
    for number, part in groups:
        times, done = part["time_s"].fillna(part["watched_s"]).tolist(), part["reached"].tolist()
        row = (
            len(part),
            int(sum(done)),
            median_time(times, done),
            restricted_mean(times, done, until_s),
            until_s,
        )
        rows.append((number, *row))
    columns = ["configuration", "runs", "reached", "median_s", "restricted_mean_s", "until_s"]
    return pd.DataFrame(rows, columns=columns)


def paired_time_difference(
    runs: Sequence[Run],
    others: Sequence[Run],
    metric: str,
    target: float,
    *,
    until_s: float,
    split: str = "test",
    level: float = LEVEL,
) -> pd.DataFrame:
    """Return by how much sooner or later one configuration reaches a target than another, pair by pair of seeds.

    Times count up to `until_s` [virtual s], for runs that never get there too; a pair of which one run was watched
    for less lacks its value. Columns of `DIFFERENCE`, in seconds; below 0 `runs` are sooner.
    """
    every_s = common_grid_s([*runs, *others])
    first, second = (_restricted(part, metric, target, split, until_s, every_s) for part in (runs, others))
    return _difference(first, second, level)


def _restricted(
    runs: Sequence[Run], metric: str, target: float, split: str, until_s: float, every_s: float | None
) -> dict[Seeds, float]:
    reached = scores.time_to_target(runs, metric, target, split, every_s=every_s)
    times: dict[Seeds, list[float]] = {}
    columns = (reached[name].tolist() for name in ("time_s", "watched_s", "reached"))
    for run, time_s, watched_s, done in zip(runs, *columns, strict=True):
        known = done or watched_s >= until_s
        times.setdefault(seeds_of(run), []).append(
            min(time_s if done else until_s, until_s) if known else math.nan
        )
    return {seed: float(np.mean(found)) for seed, found in times.items()}


# curves -----------------------------------------------------------------------------------------


def mean_curve(runs: Sequence[Run], metric: str, x: scores.X = "time_s", split: str = "test") -> pd.DataFrame:
    """Return the mean of a metric over runs against one of the axes, as far as the shortest of them goes.

    Returns:
        One row a point at which one of them was scored: the axis, mean, deviation (standard deviation, NaN of a
        single run), runs. Between its scores a run counts with the last one.
    """
    curves = [scores.scored(run, metric, split) for run in runs]
    end = min(float(curve[x].max()) for curve in curves)
    points = np.unique(np.concatenate([curve[x].to_numpy(dtype=np.float64) for curve in curves]))
    points = points[points <= end]
    values = np.array([_held(curve, x, points) for curve in curves])
    deviation = values.std(axis=0, ddof=1) if len(runs) > 1 else np.full(len(points), math.nan)
    return pd.DataFrame({x: points, "mean": values.mean(axis=0), "deviation": deviation, "runs": len(runs)})


def _held(curve: pd.DataFrame, x: scores.X, points: Floats) -> Floats:
    """Return a curve's last value at each point."""
    at = np.searchsorted(curve[x].to_numpy(dtype=np.float64), points, side="right") - 1
    values: Floats = curve["value"].to_numpy(dtype=np.float64)[np.maximum(at, 0)]
    return values
