"""The sections about several runs beside each other, at equal virtual time, bytes and joules."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from fedsim.records import gains as gain_views
from fedsim.records import quantities, views
from fedsim.records.quantities import number, percent, said
from fedsim.records.rows import OUTCOMES
from fedsim.records.run import Run
from fedsim.report import figures, visit_figures
from fedsim.report.labels import SEED, Compared
from fedsim.report.parts import Section, Table, plural


def setup(c: Compared) -> Section:
    """What is compared: the settings that differ, and the size of each run."""
    rows = [(key, *values) for key, values in c.differing]
    rows.append(("seed", *(str(run.info.seed) for run in c.runs)))
    text = f"{plural(len(c.runs), 'run')} of {plural(len(set(c.groups)), 'configuration')}; all other settings are equal."
    if not c.differing:
        text = f"{plural(len(c.runs), 'run')} of one configuration."
    totals = [
        (
            label,
            run.info.status,
            said("time_s", run.info.end_time_s),
            number(len(run.commits)),
            number(len(run.visits)),
            said("bytes", int(run.visits["up_bytes"].sum())),
            said("bytes", int(run.visits["down_bytes"].sum())),
            said("joules", float(run.visits["joules"].sum())),
        )
        for label, run in zip(c.labels, c.runs, strict=True)
    ]
    header = ("run", "status", "virtual time", "commits", "visits", "uploaded", "downloaded", "energy")
    tables = [
        Table(("setting", *c.labels), rows, "What differs"),
        Table(header, totals, "What each run took"),
    ]
    return Section("setup", "What is compared", [text], tables=tables)


def progress(c: Compared) -> Section:
    """The headline metric against time, bytes and joules, and what it took to reach a common target."""
    title = "Which gets there first"
    metric, chosen = scored(c)
    if metric is None:
        return Section("progress", title, ["None of the runs scored a model."])
    runs, labels = [c.runs[i] for i in chosen], [c.labels[i] for i in chosen]
    target = views.common_target(runs, metric)
    costs = views.time_to_target(runs, metric, target)
    groups = [c.groups[i] for i in chosen]
    rows = [*_costs(labels, costs), *_means(groups, labels, costs)]
    said_metric = metric.replace("_", " ")
    header = ("run", "virtual time", "commits", "uploaded", "downloaded", "energy")
    caption = (
        f"What it took to the first scored version with a test {said_metric} of {number(target)} or better"
    )
    left_out = len(c.runs) - len(chosen)
    text = [verdict(c)]
    if left_out:
        text.append(
            f"{plural(left_out, 'run')} without this metric {'is' if left_out == 1 else 'are'} not drawn."
        )
    return Section(
        "progress",
        title,
        text,
        figures.comparison(runs, labels, groups, metric),
        f"Test {said_metric} against virtual time, against everything uploaded so far and against the energy the "
        f"devices had spent. The target is the best value that every run reached.",
        tables=[Table(header, rows, caption), _equal_time(runs, labels, metric)],
    )


def _costs(labels: Sequence[str], costs: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return what each run had cost at the target."""
    return [
        (
            label,
            said("time_s", row["time_s"]),
            number(row["version"]),
            said("bytes", row["up_bytes"]),
            said("bytes", row["down_bytes"]),
            said("joules", row["joules"]),
        )
        for label, (_, row) in zip(labels, costs.iterrows(), strict=True)
    ]


def _means(groups: Sequence[int], labels: Sequence[str], costs: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return mean ± standard deviation over the seeds of each configuration that has several."""
    rows = []
    for group in dict.fromkeys(groups):
        members = [i for i, g in enumerate(groups) if g == group]
        if len(members) < 2:
            continue
        part = costs.iloc[members]
        name = labels[members[0]].split(SEED)[0]
        cells = []
        for column, kind in (
            ("time_s", "time_s"),
            ("version", ""),
            ("up_bytes", "bytes"),
            ("down_bytes", "bytes"),
            ("joules", "joules"),
        ):
            mean, deviation = float(part[column].mean()), float(part[column].std(ddof=1))
            cells.append(
                quantities.spread(kind, mean, deviation) if kind else f"{number(mean)} ± {number(deviation)}"
            )
        rows.append((f"{name}, mean of {len(members)} seeds", *cells))
    return rows


def _equal_time(runs: Sequence[Run], labels: Sequence[str], metric: str) -> Table:
    """Return the metric of every run at equal virtual time, equal bytes and equal energy."""
    curves = [views.scored(run, metric) for run in runs]
    limits: list[tuple[str, str]] = [("time_s", "time_s"), ("up_bytes", "bytes"), ("joules", "joules")]
    columns, header = [], ["run"]
    for name, kind in limits:
        limit = min(float(curve[name].max()) for curve in curves)
        header.append(f"at {said(kind, limit)}{' up' if name == 'up_bytes' else ''}")
        columns.append([number(curve.loc[curve[name] <= limit, "value"].iloc[-1]) for curve in curves])
    rows = [(label, *cells) for label, *cells in zip(labels, *columns, strict=True)]
    caption = f"Test {metric.replace('_', ' ')} when the shortest run ended, and at equal uploads and energy"
    return Table(header, rows, caption)


def scored(c: Compared) -> tuple[str | None, list[int]]:
    """Return the headline metric of the first run that has one, and which runs have it."""
    metric = next((m for run in c.runs if (m := views.headline(run))), None)
    chosen = [
        i
        for i, run in enumerate(c.runs)
        if ((run.scores["split"] == "test") & (run.scores["metric"] == metric)).any()
    ]
    return metric, chosen


def verdict(c: Compared) -> str:
    """Return which configuration reached the common target first, and by how much."""
    metric, chosen = scored(c)
    if metric is None or len(chosen) < 2:
        return f"{plural(len(c.runs), 'run')} beside each other."
    runs = [c.runs[i] for i in chosen]
    target = views.common_target(runs, metric)
    goal = f"a test {metric.replace('_', ' ')} of {number(target)}"
    costs = views.time_to_target(runs, metric, target)
    costs["name"] = [_named(c, chosen, i) for i in chosen]
    times = costs.groupby("name", sort=False)["time_s"].mean().sort_values(kind="stable")
    first, last = str(times.index[0]), str(times.index[-1])
    quick, slow = float(times.iloc[0]), float(times.iloc[-1])
    if slow == quick:
        return f"All runs reached {goal} after {said('time_s', quick)} of virtual time."
    if quick == 0:
        return f"{first} began at {goal}; {last} took {said('time_s', slow)} of virtual time to get there."
    return (
        f"{first} reached {goal} in {said('time_s', quick)} of virtual time, {number(slow / quick)} times sooner "
        f"than {last}, which took {said('time_s', slow)}."
    )


def _named(c: Compared, chosen: Sequence[int], i: int) -> str:
    """Return the label of a run, or of its configuration if that was run with several seeds."""
    again = sum(c.groups[k] == c.groups[i] for k in chosen)
    alone = again == 1 or len(set(c.groups)) == 1
    return c.labels[i] if alone else f"{c.labels[i].split(SEED)[0]} (mean of {again} seeds)"


def endings(c: Compared) -> Section:
    """How visits ended, run beside run."""
    counted = [run.visits["outcome"].value_counts() for run in c.runs]
    counts = pd.DataFrame(counted, index=list(c.labels)).fillna(0).astype("int64")
    counts = counts[[name for name in OUTCOMES if name in counts.columns]]
    rows = []
    for label, run in zip(c.labels, c.runs, strict=True):
        share = views.wasted_work(run).attrs["share"]
        used = views.staleness(run)
        total = int(used["updates"].sum())
        stale = float((used["staleness"] * used["updates"]).sum()) / total if total else math.nan
        people = views.participation(run)
        rows.append(
            (
                label,
                percent(share["visits"]) if len(run.visits) else "–",
                percent(share["seconds"]) if len(run.visits) else "–",
                percent(share["up_bytes"]) if len(run.visits) else "–",
                percent(share["joules"]) if len(run.visits) else "–",
                number(stale),
                percent(float((people["committed"] > 0).mean())) if len(people) else "–",
            )
        )
    header = ("run", "visits", "device time", "uploads", "energy", "mean staleness", "clients in the model")
    return Section(
        "losses",
        "Who was lost, and what was spent in vain",
        [],
        visit_figures.endings(counts),
        "Each bar is all visits of a run (their number in brackets); the numbers on it are visits.",
        tables=[Table(header, rows, "Shares spent on visits that changed no model")],
    )


def uplink(c: Compared) -> Section:
    """Uploads against full-model FedAvg, and personal gains, run beside run."""
    rows = []
    for label, run in zip(c.labels, c.runs, strict=True):
        gain = gain_views.gains(run)
        mean = (
            f"{number(gain['mean'].iloc[0])} ({percent(gain['share_worse'].iloc[0])} worse)"
            if len(gain)
            else "–"
        )
        if run.info.charged is not None:
            sums = views.uplink_reduction(run).iloc[0]
            cells = (
                number(sums["uploads"]),
                said("bytes", sums["adapter_bytes"]),
                said("bytes", sums["full_bytes"]),
                percent(sums["reduction"]),
                said("bytes", sums["serialized_up_bytes"]),
            )
        else:
            cells = ("–",) * 5
        rows.append((label, *cells, mean))
    header = (
        "run",
        "uploads landed",
        "bytes",
        "full-model FedAvg",
        "less",
        "really serialised",
        "personal gain",
    )
    text = "Full-model FedAvg with the same schedule sends bytes = T · |S| · N_total · 4: every landed update in float32."
    return Section("uplink", "Uploads and personal gains", [text], tables=[Table(header, rows)])
