"""By how much configurations differ, pair by pair of seeds: in sentences and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from fedsim.metrics.direction import ranks, rises
from fedsim.records import comparisons, views
from fedsim.records.comparisons import Unit
from fedsim.records.quantities import number, said
from fedsim.records.run import Run
from fedsim.report.parts import Table, plural
from fedsim.report.several.labels import Compared

SAID = 3
"""Differences that are told in sentences; the table has all."""
KINDS: dict[Unit, str] = {"time_s": "time_s", "up_bytes": "bytes", "joules": "joules"}
"""What runs are compared at equal amounts of -> the kind of its unit."""


@dataclass(frozen=True)
class Contest:
    """Runs that were scored, and what they are compared by.

    Attributes:
        c: the runs; `metric`: of the test split.
        budgets: equal amounts of virtual time, uploads and energy: the largest that all runs spent which spent any.
        spent: virtual seconds, uploaded bytes and joules of each whole run.
    """

    c: Compared
    metric: str
    budgets: Mapping[Unit, float]
    spent: Sequence[Mapping[Unit, float]]

    @property
    def shown(self) -> str:
        """The metric in words."""
        return f"test {self.metric.replace('_', ' ')}"

    def runs(self, group: int) -> list[Run]:
        """Return a configuration's runs."""
        return [self.c.runs[i] for i in self.c.members(group)]

    def took(self, group: int, unit: Unit) -> list[float]:
        """Return what each run of a configuration took of a unit."""
        return [self.spent[i][unit] for i in self.c.members(group)]

    def last(self, group: int) -> list[float]:
        """Return the last score of each run of a configuration."""
        return [float(views.scored(run, self.metric)["value"].iloc[-1]) for run in self.runs(group)]

    def difference(self, group: int, unit: Unit = "time_s") -> pd.Series:
        """Return by how much a configuration differs from the first at an equal budget."""
        first = self.runs(self.c.present[0])
        budget = comparisons.budget_of(unit, self.budgets[unit])
        return comparisons.paired_difference(self.runs(group), first, self.metric, **budget).iloc[0]


def contest(c: Compared, metric: str | None = None) -> Contest | None:
    """Return the comparison of the runs by a metric, or by the first that one of them scored on test; None: none did."""
    metric = metric or next((m for run in c.runs if (m := views.headline(run))), None)
    if metric is None:
        return None
    has = [((run.scores["split"] == "test") & (run.scores["metric"] == metric)).any() for run in c.runs]
    if not any(has):
        return None
    chosen = c.only([i for i, scored in enumerate(has) if scored])
    spent = [_spent(run) for run in chosen.runs]
    budgets = {unit: min((one[unit] for one in spent if one[unit] > 0), default=0.0) for unit in KINDS}
    return Contest(chosen, metric, budgets, spent)


def _spent(run: Run) -> dict[Unit, float]:
    sums = run.frame("visits", "up_bytes", "joules").sum()
    return {
        "time_s": run.info.end_time_s,
        "up_bytes": float(sums["up_bytes"]),
        "joules": float(sums["joules"]),
    }


# sentences --------------------------------------------------------------------------------------


def verdict(c: Compared) -> str:
    """Return by how much the configurations differ from the first after equal virtual time, in words."""
    found = contest(c)
    if found is None or len(found.c.runs) < 2:
        return f"{plural(len(c.runs), 'run')} beside each other."
    groups = found.c.present
    if len(groups) == 1:
        return _alone(found)
    sentences = [_sentence(found, group) for group in groups[1 : 1 + SAID]]
    left = len(groups) - 1 - SAID
    return " ".join([*sentences, *([f"The table has {left} more."] if left > 0 else [])])


def _alone(found: Contest) -> str:
    """Return what the runs of one configuration reached."""
    time_s = found.budgets["time_s"]
    values = [comparisons.value_at(run, found.metric, time_s=time_s) for run in found.c.runs]
    return f"{plural(len(values), 'run')} of one configuration: {found.shown} {spread(values)} after {said('time_s', time_s)}."


def _sentence(found: Contest, group: int) -> str:
    """Return how a configuration stands to the first."""
    name, first = found.c.names[group], found.c.names[found.c.present[0]]
    row, when = found.difference(group), said("time_s", found.budgets["time_s"])
    if not row["pairs"]:
        return f"{name} and {first} have no seed in common, so there is no pair to compare."
    if row["missing"]:
        lack = "lacks" if row["missing"] == 1 else "lack"
        pairs = plural(int(row["pairs"]), "pair")
        return (
            f"{name} and {first} are not compared after {when}: {int(row['missing'])} of {pairs} of seeds {lack} a "
            f"scored version."
        )
    if row["pairs"] == 1:
        return (
            f"{name} - {first}: {signed(row['mean'])} in {found.shown} after {when}, of one pair of seeds (n = 1): other "
            f"seeds may say otherwise."
        )
    interval = f"{signed(row['mean'])} (95 % interval {signed(row['low'])} to {signed(row['high'])}, n = {row['pairs']} pairs of seeds)"
    if row["low"] <= 0 <= row["high"]:
        return f"No difference is shown between {name} and {first} in {found.shown} after {when}: {interval}."
    if not ranks(found.metric):
        return f"{name} differs from {first} in {found.shown} after {when}: {interval}."
    better = (row["mean"] > 0) == rises(found.metric)
    return f"{name} is {'better' if better else 'worse'} than {first} after {when}: {found.shown} {interval}."


def signed(value: float) -> str:
    """Return a difference with its sign.

    >>> signed(1.25), signed(-0.5), signed(0.0), signed(float("nan"))
    ('+1.25', '-0.500', '0', '–')
    """
    return f"+{number(value)}" if value > 0 else number(value)


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation and n; a value that is missing is said, and no mean of the others.

    >>> spread([1.0, 3.0]), spread([2.0]), spread([1.0, float("nan")])
    ('2 ± 1.4 (n = 2)', '2', '– (1 of 2 not scored)')
    """
    column = pd.Series(values, dtype="float64")
    missing = int(column.isna().sum())
    if missing:
        return "–" if len(column) == 1 else f"– ({missing} of {len(column)} not scored)"
    if len(column) == 1:
        return number(float(column.iloc[0]))
    return f"{number(float(column.mean()))} ± {number(float(column.std(ddof=1)), 2)} (n = {len(column)})"


# tables -----------------------------------------------------------------------------------------


def differences(found: Contest) -> Table:
    """Return every configuration's difference from the first at equal time, uploads and energy."""
    first = found.c.names[found.c.present[0]]
    rows = []
    for group in found.c.present[1:]:
        cells = [found.difference(group, unit) for unit in KINDS]
        rows.append((found.c.names[group], *(_interval(cell) for cell in cells), _pairs(cells[0])))
    header = ("configuration", *_budgets(found), "pairs of seeds")
    caption = (
        f"Difference in {found.shown} from {first}, mean over pairs of equal seeds with its 95 % interval: bootstrap, "
        f"and Student's t below five pairs; not corrected for many comparisons"
    )
    return Table(header, rows, caption)


def levels(found: Contest) -> Table:
    """Return what every configuration reached at equal time, uploads and energy."""
    rows = []
    for group in found.c.present:
        cells = [
            spread(
                [
                    comparisons.value_at(run, found.metric, **comparisons.budget_of(unit, limit))
                    for run in found.runs(group)
                ]
            )
            for unit, limit in found.budgets.items()
        ]
        rows.append((found.c.names[group], *cells))
    caption = f"T{found.shown[1:]} of the last scored version within equal amounts; mean ± standard deviation over seeds"
    return Table(("configuration", *_budgets(found)), rows, caption)


def _budgets(found: Contest) -> list[str]:
    return [
        f"at {said(KINDS[unit], limit)}{' up' if unit == 'up_bytes' else ''}"
        for unit, limit in found.budgets.items()
    ]


def _interval(row: pd.Series) -> str:
    """Return a difference and its interval."""
    if row["missing"] or not row["pairs"]:
        return "–"
    if row["method"] == "none":
        return signed(row["mean"])
    return f"{signed(row['mean'])} ({signed(row['low'])} to {signed(row['high'])})"


def _pairs(row: pd.Series) -> str:
    """Return how many pairs there are, and what is not in them."""
    lacking = [f"{int(row['missing'])} not scored"] if row["missing"] else []
    alone = [f"{plural(int(row['unpaired']), 'seed')} without a partner"] if row["unpaired"] else []
    return ", ".join([str(int(row["pairs"])), *lacking, *alone])
