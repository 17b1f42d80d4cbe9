"""What a target took in bytes and joules, and which configurations nothing else beats in everything: the Pareto front."""

from __future__ import annotations

import numpy as np

from fedsim.arrays import Bools, Floats
from fedsim.metrics.direction import rises
from fedsim.records import comparisons, views
from fedsim.records.comparisons import Unit
from fedsim.records.quantities import number, said
from fedsim.records.statistics import median_time, restricted_mean
from fedsim.report.parts import Table
from fedsim.report.several.differences import KINDS, Contest, spread

COSTS: tuple[Unit, ...] = ("up_bytes", "joules")


def pareto(costs: Floats) -> Bools:
    """Return which rows no other row beats: none is as good in every column and better in one.

    >>> pareto(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0]])).tolist()
    [True, True, False]

    Args:
        costs: (n, k), less is better; a row with a NaN is on no front and beats nobody.
    """
    known = np.all(np.isfinite(costs), axis=1)
    no_worse = np.all(costs[:, None, :] <= costs[None, :, :], axis=2)
    better = np.any(costs[:, None, :] < costs[None, :, :], axis=2)
    beaten = np.any(no_worse & better & known[:, np.newaxis], axis=0)
    return np.asarray(known & ~beaten, dtype=np.bool_)


def costs(found: Contest, target: float) -> Table:
    """Return what each configuration uploaded and spent until a target; who never reached it is censored.

    Args:
        found: what is compared.
        target: value of the metric.
    """
    rows = []
    spent = {unit: [found.took(group, unit) for group in found.c.present] for unit in COSTS}
    until = {unit: min(max(values) for values in spent[unit]) for unit in COSTS}
    grid_s = comparisons.common_grid_s(found.c.runs)
    for place, group in enumerate(found.c.present):
        when = views.time_to_target(found.runs(group), found.metric, target, every_s=grid_s)
        cells = [f"{int(when['reached'].sum())} of {len(when)}"]
        for unit in COSTS:
            at = np.where(when["reached"], when[unit], spent[unit][place]).tolist()
            done = when["reached"].tolist()
            mean, median = restricted_mean(at, done, until[unit]), median_time(at, done)
            cells += [said(KINDS[unit], mean), said(KINDS[unit], median)]
        rows.append((found.c.names[group], *cells))
    header = ["configuration", "reached it"]
    for unit, what in (("up_bytes", "uploaded"), ("joules", "energy")):
        header += [f"mean {what}, at most {said(KINDS[unit], until[unit])}", f"median {what}"]
    caption = (
        f"What {found.shown} of {number(target)} or better took; a run that never reached it counts with all that it spent, "
        f"cut at the same amount for all (restricted mean, Kaplan-Meier median)"
    )
    return Table(header, rows, caption)


def front(found: Contest) -> Table:
    """Return every configuration's end, and whether another one ended better, sooner, and with fewer bytes and joules."""
    ends = np.array(
        [
            [np.mean(found.last(group)), *(np.mean(found.took(group, unit)) for unit in KINDS)]
            for group in found.c.present
        ]
    )
    signs = np.array([-1.0 if rises(found.metric) else 1.0, 1.0, 1.0, 1.0])
    best = pareto(ends * signs)
    rows = []
    for group, on_front in zip(found.c.present, best, strict=True):
        amounts = [said(KINDS[unit], float(np.mean(found.took(group, unit)))) for unit in KINDS]
        rows.append((found.c.names[group], spread(found.last(group)), *amounts, "yes" if on_front else "no"))
    header = ("configuration", found.shown, "virtual time", "uploaded", "energy", "on the Pareto front")
    caption = "The ends of the runs, means over seeds. On the front: no other is as good in all four, and better in one"
    return Table(header, rows, caption)
