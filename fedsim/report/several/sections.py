"""The sections about several runs beside each other, at equal virtual time, bytes and joules."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from fedsim.records import gains as gain_views
from fedsim.records import views
from fedsim.records.comparisons import seeds_of
from fedsim.records.quantities import number, percent, said
from fedsim.records.rows import OUTCOMES
from fedsim.report import figures, visit_figures
from fedsim.report.parts import Section, Table, plural
from fedsim.report.several.differences import Contest, contest, differences, levels
from fedsim.report.several.fronts import front
from fedsim.report.several.labels import Compared
from fedsim.report.several.targets import tables as target_tables


def setup(c: Compared) -> Section:
    """What is compared: the settings that differ, and the size of each run."""
    members = [[c.runs[i] for i in c.members(group)] for group in range(len(c.names))]
    rows = [(key, *values) for key, values in c.differing]
    seeds = [", ".join(str(seeds_of(run)) for run in runs) for runs in members]
    three = " (population/data/training)" if any("/" in text for text in seeds) else ""
    rows.append((f"seeds{three}", *seeds))
    text = f"{plural(len(c.runs), 'run')} of {plural(len(c.names), 'configuration')}; all other settings are equal."
    if not c.differing:
        text = f"{plural(len(c.runs), 'run')} of one configuration."
    totals = [
        (
            label,
            run.info.status,
            said("time_s", run.info.end_time_s),
            number(len(run.commits)),
            number(run.count("visits")),
            said("bytes", int(run.columns("visits")["up_bytes"].sum())),
            said("bytes", int(run.columns("visits")["down_bytes"].sum())),
            said("joules", float(run.columns("visits")["joules"].sum())),
        )
        for label, run in zip(c.labels, c.runs, strict=True)
    ]
    header = ("run", "status", "virtual time", "commits", "visits", "uploaded", "downloaded", "energy")
    tables = [
        Table(("setting", *c.names), rows, "What differs"),
        Table(header, totals, "What each run took"),
    ]
    return Section("setup", "What is compared", [text], tables=tables)


def progress(c: Compared, targets: Sequence[float] = ()) -> Section:
    """By how much the headline metric differs, against time, bytes and joules, and what it took to reach targets."""
    title = "Which is better, and by how much"
    found = contest(c)
    if found is None:
        return Section("progress", title, ["None of the runs scored a model."])
    left_out = len(c.runs) - len(found.c.runs)
    verb = "is" if left_out == 1 else "are"
    text = [f"{plural(left_out, 'run')} without this metric {verb} not drawn."] if left_out else []
    return Section(
        "progress",
        title,
        text,
        figures.comparison(found.c.runs, found.c.labels, found.c.groups, found.c.names, found.metric),
        f"T{found.shown[1:]} against virtual time, against everything uploaded so far and against the energy the "
        f"devices had spent. Of several seeds: the mean, as far as the shortest run goes, in a band of one standard deviation.",
        tables=tables(found, targets),
    )


def tables(found: Contest, targets: Sequence[float] = ()) -> list[Table]:
    """Return what configurations reached at equal amounts, what targets took, and, of several, differences and the front."""
    several = len(found.c.present) > 1
    return [
        *([differences(found)] if several else []),
        levels(found),
        *target_tables(found, targets),
        *([front(found)] if several else []),
    ]


def endings(c: Compared) -> Section:
    """How visits ended, run beside run."""
    counted = [run.frame("visits", "outcome")["outcome"].value_counts() for run in c.runs]
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
                percent(share["visits"]) if run.count("visits") else "–",
                percent(share["seconds"]) if run.count("visits") else "–",
                percent(share["up_bytes"]) if run.count("visits") else "–",
                percent(share["joules"]) if run.count("visits") else "–",
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
