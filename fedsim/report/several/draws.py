"""What a sweep over `compute.uncertainty_draw` says: a band for every configuration, and whether their order survives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from fedsim.metrics.direction import ranks, rises
from fedsim.records import comparisons
from fedsim.records.comparisons import seeds_of, settings_of
from fedsim.records.quantities import number, said
from fedsim.records.run import Run
from fedsim.report.parts import Section, Table, listing, plural
from fedsim.report.several.differences import contest
from fedsim.report.several.labels import Compared, compared

KEY = "compute.uncertainty_draw"
"""The setting that says which draw of what is not known of the stacks a run has."""


@dataclass(frozen=True)
class Outcome:
    """A number that every run comes to.

    Attributes:
        name: in words.
        of: the number of a run; NaN: it has none.
        rises: whether more is better.
        shown: a number in words.
    """

    name: str
    of: Callable[[Run], float]
    rises: bool
    shown: Callable[[float], str]


@dataclass(frozen=True)
class Drawn:
    """Configurations beside each other in several draws.

    Attributes:
        names: of the configurations, the draw left out.
        means: draw -> configuration -> mean over the seeds that all configurations have in that draw.
        outcome: of what.
    """

    names: Sequence[str]
    means: Mapping[int, Sequence[float]]
    outcome: Outcome

    def order(self, draw: int) -> tuple[int, ...]:
        """Return the configurations of a draw, the best first; equal ones in the order of their names."""
        sign = -1.0 if self.outcome.rises else 1.0
        values = self.means[draw]
        return tuple(sorted(range(len(values)), key=lambda k: (sign * values[k], k)))

    def tied(self) -> bool:
        """Whether two configurations are equal in a draw, so that there is no order."""
        return any(len(set(values)) < len(values) for values in self.means.values())


def sections(c: Compared) -> list[Section]:
    """Return the section about draws; none where all runs have the same."""
    drawn = [one for one in _drawn(c) if one.means]
    if not drawn:
        return []
    text = [sentence(one) for one in drawn]
    draws = plural(len(drawn[0].means), "draw")
    title = "Does it survive what is not known of the devices?"
    tables = [_table(one, f"Mean over {draws}, and the least and the most of them") for one in drawn]
    return [Section("draws", title, text, tables=tables)]


def lead(c: Compared) -> str:
    """Return what the draws say of the first number that the runs come to; nothing where all have the same draw."""
    drawn = next((one for one in _drawn(c) if one.means), None)
    return "" if drawn is None else f" {sentence(drawn)}"


def sentence(drawn: Drawn) -> str:
    """Return whether the order of the configurations is the same in all draws."""
    what, n = drawn.outcome.name, len(drawn.means)
    if len(drawn.names) == 1:
        low, high = _span([values[0] for values in drawn.means.values()])
        shown = drawn.outcome.shown
        return f"{drawn.names[0]}: {what} between {shown(low)} and {shown(high)} over {plural(n, 'draw')} of what is not known of the stacks."
    if drawn.tied():
        return f"Some configurations are equal in {what}: there is no order that {plural(n, 'draw')} could change."
    orders = Counter(drawn.order(draw) for draw in drawn.means)
    (usual, times), *others = orders.most_common()
    words = " before ".join(drawn.names[k] for k in usual)
    if not others:
        return (
            f"The order in {what}, {words}, is the same in all {plural(n, 'draw')} of what is not known of the stacks."
            if n > 1
            else f"There is one draw of what is not known of the stacks: run others, and see whether the order in {what} stays."
        )
    leads = Counter(drawn.names[drawn.order(draw)[0]] for draw in drawn.means)
    led = listing([f"{name} in {k}" for name, k in leads.most_common()])
    return (
        f"The order in {what} does not survive what is not known of the stacks: {words} in {times} of {n} draws, "
        f"another one in {n - times}; best is {led}."
    )


def _table(drawn: Drawn, caption: str) -> Table:
    rows = []
    for k, name in enumerate(drawn.names):
        values = [values[k] for values in drawn.means.values()]
        (low, high), shown = _span(values), drawn.outcome.shown
        best = sum(drawn.order(draw)[0] == k for draw in drawn.means)
        rows.append((name, shown(sum(values) / len(values)), f"{shown(low)} to {shown(high)}", str(best)))
    header = ("configuration", drawn.outcome.name, "least to most", "draws in which it is the best")
    return Table(header, rows, caption)


def _span(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _drawn(c: Compared) -> list[Drawn]:
    """Return the configurations in their draws, once for every number that all runs come to."""
    if KEY not in {key for key, _ in c.differing}:
        return []
    places = _bases(c.runs)
    draws = [int(str(settings_of(run).get(KEY, 0))) for run in c.runs]
    firsts = [min(_members(places, base), key=lambda i: draws[i]) for base in range(max(places) + 1)]
    names = compared([c.runs[i] for i in firsts]).names
    return [Drawn(names, _values(c.runs, places, draws, outcome), outcome) for outcome in _outcomes(c)]


def _bases(runs: Sequence[Run]) -> list[int]:
    """Return the number of each run's configuration, the draw left out, in the order in which they come first."""
    settings = [
        repr(sorted((key, value) for key, value in settings_of(run).items() if key != KEY)) for run in runs
    ]
    known = list(dict.fromkeys(settings))
    return [known.index(one) for one in settings]


def _members(places: Sequence[int], base: int) -> list[int]:
    return [i for i, place in enumerate(places) if place == base]


def _values(
    runs: Sequence[Run], places: Sequence[int], draws: Sequence[int], outcome: Outcome
) -> dict[int, list[float]]:
    """Return draw -> configuration -> mean over common seeds; draws that a configuration lacks are left out."""
    rows = [
        (draw, place, str(seeds_of(run)), outcome.of(run))
        for run, place, draw in zip(runs, places, draws, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["draw", "base", "seed", "value"])
    found: dict[int, list[float]] = {}
    for draw, group in frame.groupby("draw"):
        by_seed = group.pivot_table(index="seed", columns="base", values="value", aggfunc="mean")
        whole = by_seed.reindex(columns=range(max(places) + 1)).dropna()
        if len(whole):
            found[int(str(draw))] = [float(value) for value in whole.mean(axis=0)]
    return found


def _outcomes(c: Compared) -> list[Outcome]:
    """Return the headline metric at equal virtual time, where it was scored, and the time to the commits that all have."""
    found = contest(c)
    outcomes: list[Outcome] = []
    if found is not None and ranks(found.metric) and len(found.c.runs) == len(c.runs):
        metric, until_s = found.metric, found.budgets["time_s"]
        name = f"{found.shown} after {said('time_s', until_s)}"
        outcomes.append(
            Outcome(
                name, lambda run: comparisons.value_at(run, metric, time_s=until_s), rises(metric), number
            )
        )
    commits = min(len(run.commits) for run in c.runs)
    if commits:
        name = f"virtual time to {plural(commits, 'commit')}"
        outcomes.append(
            Outcome(
                name,
                lambda run: float(run.commits["time_s"].iloc[commits - 1]),
                rises=False,
                shown=lambda seconds: said("time_s", seconds),
            )
        )
    return outcomes
