"""The sections about visits: who took part, who was lost, how stale, on what time and work went."""

from __future__ import annotations

import math

from fedsim.records import views
from fedsim.records.quantities import number, percent, said
from fedsim.records.run import Run
from fedsim.report import visit_figures
from fedsim.report.parts import Section, Table, listing, plural
from fedsim.report.style import ENDINGS


def clients(run: Run) -> Section:
    """Who took part: the devices, and whose updates are in the model."""
    tiers = views.participation_by_tier(run)
    people = run.frame("clients", "tier", "flops_per_s", "memory_bytes", "up_bytes_per_s", "online_share")
    rows = []
    for tier, row in tiers.iterrows():
        part = people[people["tier"] == tier]
        low, middle, high = (part["flops_per_s"] / 1e9).quantile([0.05, 0.5, 0.95])
        rows.append(
            (
                str(tier),
                number(row["clients"]),
                f"{number(low)} – {number(middle)} – {number(high)}",
                number(part["memory_bytes"].median() / 1e9),
                number(part["up_bytes_per_s"].median() * 8e-6),
                percent(part["online_share"].mean()),
                number(row["never_committed"]),
                percent(row["update_share"]),
            )
        )
    header = ("tier", "clients", "GFLOP/s (5 – 50 – 95 %)", "RAM [GB]", "uplink [Mbit/s]", "online", "never in", "share of updates")  # fmt: skip
    tables = [Table(header, rows, "Tiers, slowest first; medians where one number stands alone")]
    return Section(
        "people",
        "Who took part",
        [_took_part(run, int(tiers["never_committed"].sum()))],
        visit_figures.participation(run),
        "A tier whose share of the updates is below its share of the clients is under-represented in the model.",
        tables=[*(tables if rows else []), *_memory_plans(run)],
    )


def _took_part(run: Run, never_committed: int) -> str:
    """Return in words how many clients have an update in the model, and how many cannot."""
    count = run.count("clients")
    if not count:
        return "The run ended before it had clients."
    inside = count - never_committed
    text = f"{inside:,} of {plural(count, 'client')} ({percent(inside / count)}) have an update in the model."
    memory = run.columns("clients")
    small = int((memory["needed_memory_bytes"] > memory["usable_memory_bytes"]).sum())
    if small:
        text += f" Too little memory to train: {plural(small, 'client')} ({percent(small / count)})."
    return text


def _memory_plans(run: Run) -> list[Table]:
    """What was done for devices of little memory; nothing where all held the model as it was asked for."""
    clients = run.frame("clients", "memory_plan")["memory_plan"]
    if not set(clients) - {"fits", "refused", ""}:
        return []
    total, visits = len(clients), run.frame("visits", "memory_plan")["memory_plan"].value_counts()
    rows = [
        (str(plan), number(count), percent(count / total), number(int(visits.get(plan, 0))))
        for plan, count in clients.value_counts().items()
    ]
    return [Table(("memory", "clients", "share of clients", "visits"), rows, "How devices held the model")]


def endings(run: Run) -> Section:
    """How visits ended, by tier and cause."""
    counts = views.losses_by_cause(run)
    total = int(counts.to_numpy().sum())
    if not total:
        return Section("losses", "Who was lost, and why", ["No visit was dispatched."])
    sums = counts.sum()
    lost = sums.drop(["landed", "polled", "in_flight"], errors="ignore")
    lost = lost.sort_values(ascending=False, kind="stable")
    text = f"{int(sums.get('landed', 0)):,} of {plural(total, 'visit')} landed."
    if len(lost):
        causes = [f"{n:,} {ENDINGS[str(name)][0]}" for name, n in lost.items()]
        text += f" {int(lost.sum()):,} ({percent(lost.sum() / total)}) were lost: {listing(causes)}."
    if sums.get("polled", 0):
        text += f" {int(sums['polled']):,} only answered a poll."
    if sums.get("in_flight", 0):
        text += f" {int(sums['in_flight']):,} were still under way when the run ended."
    rows = [(str(t), *(number(n) for n in row), number(sum(row))) for t, row in zip(counts.index, counts.to_numpy().tolist(), strict=True)]  # fmt: skip
    rows.append(("all", *(number(n) for n in sums), number(total)))
    return Section(
        "losses",
        "Who was lost, and why",
        [text],
        visit_figures.endings(counts),
        "Each bar is all visits of a tier (their number in brackets); the numbers on it are visits.",
        tables=[Table(("tier", *(ENDINGS[name][0] for name in counts.columns), "all"), rows)],
    )


def staleness(run: Run) -> Section:
    """How old the updates were when they were used."""
    counts = views.staleness(run)
    total = int(counts["updates"].sum())
    if not total:
        text = "No update was committed."
    elif int(counts["staleness"].max()) == 0:
        text = f"All {total:,} committed updates were fresh: no commit came between their dispatch and their use."
    else:
        mean = float((counts["staleness"] * counts["updates"]).sum()) / total
        text = (
            f"A committed update was {number(mean)} commits old on average, {int(counts['staleness'].max())} at "
            f"most; {percent(float(counts.loc[counts['staleness'] == 0, 'updates'].sum()) / total)} were fresh."
        )
    reading = "Committed updates by the number of commits between their dispatch and their use."
    return Section("staleness", "How stale the updates were", [text], visit_figures.staleness(run), reading)


def phases(run: Run) -> Section:
    """Where a visit's time goes."""
    means = views.phase_seconds(run)
    if means.empty:
        return Section("phases", "Where a visit's time goes", ["No visit landed."])
    columns = ["download_s", "train_s", "upload_s"]
    total = float((means[columns].sum(axis=1) * means["visits"]).sum())
    shares = [(c, float((means[c] * means["visits"]).sum()) / total if total else math.nan) for c in columns]
    named = {"download_s": "download", "train_s": "training", "upload_s": "upload"}
    text = f"Of the time of landed visits, {listing([f'{percent(s)} is {named[c]}' for c, s in shares])}."
    rows = [
        (str(tier), number(row["visits"]), *(said("time_s", row[c]) for c in columns))
        for tier, row in means.iterrows()
    ]
    return Section(
        "phases",
        "Where a visit's time goes",
        [text],
        visit_figures.phases(run),
        "Means over landed visits; devices that are too slow to land are not in them.",
        tables=[Table(("tier", "landed visits", "download", "train", "upload"), rows)],
    )


def wasted_work(run: Run) -> Section:
    """What was spent in vain."""
    sums = views.work(run)
    if sums.empty:
        return Section("waste", "What was spent in vain", ["No visit was dispatched."])
    share = views.wasted_work(run).attrs["share"]
    saved = run.info.saved_share
    spent = (
        f"{percent(share['seconds'])} of the devices' time, {percent(share['up_bytes'])} of the uploaded bytes and "
        f"{percent(share['joules'])} of the energy went into visits that changed no model."
    )
    text = [spent]
    if not run.info.timeline_only:
        text.append(
            f"{percent(saved)} of the visits were never really trained: virtual time had lost them before their "
            f"result was needed. The devices are charged for them all the same."
        )
    rows = [
        (
            ENDINGS[str(ending)][0],
            number(row["visits"]),
            number(row["seconds"] / 3600),
            said("bytes", row["down_bytes"]),
            said("bytes", row["up_bytes"]),
            said("joules", row["joules"]),
        )
        for ending, row in sums.iterrows()
    ]
    return Section(
        "waste",
        "What was spent in vain",
        text,
        visit_figures.spending(run),
        "What became of the devices' time, of what they downloaded and uploaded, and of their energy.",
        tables=[Table(("visits that ended", "visits", "device hours", "down", "up", "energy"), rows)],
    )
