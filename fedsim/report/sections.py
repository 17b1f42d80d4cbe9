"""The sections about one run: each answers one question in words, a figure and a table."""

from __future__ import annotations

import math

from fedsim import quantities, views
from fedsim.errors import FedsimError
from fedsim.quantities import number, percent, said
from fedsim.report import figures, visit_figures
from fedsim.report.parts import Section, Table, listing, plural
from fedsim.report.style import ENDINGS
from fedsim.run import Run


def progress(run: Run) -> Section:
    """How good the model became, and what that took."""
    metric = views.headline(run)
    if metric is None:
        text = "The run was asked for its timeline only: no model was scored."
        if not run.info.get("timeline_only"):
            text = "No model was scored."
        return Section("progress", "How good the model became", [text])
    rows = []
    for split, name in run.scores[["split", "metric"]].drop_duplicates().itertuples(index=False):
        found = views.scored(run, name, split)
        best = found.sort_values("value", ascending=not views.rises(name), kind="stable").iloc[0]
        first, last = found["value"].iloc[0], found["value"].iloc[-1]
        at_best = f"{number(best['value'])} (version {int(best['version'])})"
        rows.append((f"{name.replace('_', ' ')}, {split}", number(first), number(last), at_best))
    return Section(
        "progress",
        "How good the model became",
        [sentence(run, metric)],
        figures.progress(run, metric),
        f"{metric.replace('_', ' ').capitalize()} against virtual time, against commits and against everything "
        f"uploaded so far, lost uploads included. {'More' if views.rises(metric) else 'Less'} is better.",
        tables=[Table(("metric", "before", "at the end", "best"), rows)],
    )


def sentence(run: Run, metric: str) -> str:
    """Return by how much a metric moved, and after what."""
    found = views.scored(run, metric)
    first, last = found.iloc[0], found.iloc[-1]
    if len(found) < 2:
        return f"Test {metric.replace('_', ' ')} is {number(last['value'])}; it was scored once."
    verb = "rose" if last["value"] > first["value"] else "fell"
    return (
        f"Test {metric.replace('_', ' ')} {verb} from {number(first['value'])} to {number(last['value'])} in "
        f"{said('time_s', last['time_s'])} of virtual time, {plural(int(last['version']), 'commit')} and "
        f"{said('bytes', last['up_bytes'])} of uploads."
    )


def people(run: Run) -> Section:
    """Who took part: the devices, and whose updates are in the model."""
    found = views.participation_by_tier(run)
    clients = len(run.clients)
    text = []
    if clients:
        inside = clients - int(found["never_committed"].sum())
        text.append(
            f"{inside:,} of {plural(clients, 'client')} ({percent(inside / clients)}) have an update in the model."
        )
        needs, usable = run.clients["needed_memory_bytes"], run.clients["usable_memory_bytes"]
        small = int((needs > usable).sum())
        if small:
            text.append(
                f"{plural(small, 'client')} ({percent(small / clients)}) have too little memory to train."
            )
    rows = []
    for tier, row in found.iterrows():
        part = run.clients[run.clients["tier"] == tier]
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
    return Section(
        "people",
        "Who took part",
        [" ".join(text)] if text else ["The run ended before it had clients."],
        visit_figures.participation(run),
        "A tier whose share of the updates is below its share of the clients is under-represented in the model.",
        tables=[Table(header, rows, "Tiers, slowest first; medians where one number stands alone")]
        if rows
        else [],
    )


def devices(run: Run) -> Section:
    """The devices themselves."""
    text = "Speed is effective LoRA training speed, not a data sheet's peak."
    figure = figures.devices(run)
    return Section("devices", "The devices", [text], figure, "One point a client; both axes are logarithmic.")


def losses(run: Run) -> Section:
    """How visits ended, by tier and cause."""
    counts = views.losses_by_cause(run)
    total = int(counts.to_numpy().sum())
    if not total:
        return Section("losses", "Who was lost, and why", ["No visit was dispatched."])
    sums = counts.sum()
    lost = sums.drop(["landed", "in_flight"], errors="ignore").sort_values(ascending=False, kind="stable")
    text = f"{int(sums.get('landed', 0)):,} of {plural(total, 'visit')} landed."
    if len(lost):
        causes = [f"{n:,} {ENDINGS[str(name)][0]}" for name, n in lost.items()]
        text += f" {int(lost.sum()):,} ({percent(lost.sum() / total)}) were lost: {listing(causes)}."
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
    found = views.staleness(run)
    total = int(found["updates"].sum())
    if not total:
        text = "No update was committed."
    elif int(found["staleness"].max()) == 0:
        text = f"All {total:,} committed updates were fresh: no commit came between their dispatch and their use."
    else:
        mean = float((found["staleness"] * found["updates"]).sum()) / total
        text = (
            f"A committed update was {number(mean)} commits old on average, {int(found['staleness'].max())} at "
            f"most; {percent(float(found.loc[found['staleness'] == 0, 'updates'].sum()) / total)} were fresh."
        )
    reading = "Committed updates by the number of commits between their dispatch and their use."
    return Section("staleness", "How stale the updates were", [text], visit_figures.staleness(run), reading)


def phases(run: Run) -> Section:
    """Where a visit's time goes."""
    found = views.phase_seconds(run)
    if found.empty:
        return Section("phases", "Where a visit's time goes", ["No visit landed."])
    columns = ["download_s", "train_s", "upload_s"]
    total = float((found[columns].sum(axis=1) * found["visits"]).sum())
    shares = [(c, float((found[c] * found["visits"]).sum()) / total if total else math.nan) for c in columns]
    named = {"download_s": "download", "train_s": "training", "upload_s": "upload"}
    text = f"Of the time of landed visits, {listing([f'{percent(s)} is {named[c]}' for c, s in shares])}."
    rows = [
        (str(tier), number(row["visits"]), *(said("time_s", row[c]) for c in columns))
        for tier, row in found.iterrows()
    ]
    return Section(
        "phases",
        "Where a visit's time goes",
        [text],
        visit_figures.phases(run),
        "Means over landed visits; devices that are too slow to land are not in them.",
        tables=[Table(("tier", "landed visits", "download", "train", "upload"), rows)],
    )


def uplink(run: Run) -> Section:
    """What was uploaded, against full-model FedAvg."""
    title = "What was uploaded, against full-model FedAvg"
    try:
        found = views.uplink_reduction(run).iloc[0]
    except FedsimError as problem:
        return Section("uplink", title, [f"Not known: {problem}."])
    uploads, each, full = int(found["uploads"]), int(found["adapter_params"]), int(found["params"])
    whole = bool(run.experiment.get("lora", {}).get("full"))
    if not uploads:
        return Section("uplink", title, ["No upload landed."])
    formula = ["bytes = T · |S| · N · 4      T · |S| updates landed, N parameters of 4 bytes (float32) each"]
    formula.append(f"full-model FedAvg: {uploads:,} · {full:,} · 4 = {said('bytes', found['full_bytes'])}")
    name = "this run, N_total" if whole else "this run, N_LoRA"
    if int(found["adapter_bytes"]) == uploads * each * 4:
        formula.append(f"{name}: {uploads:,} · {each:,} · 4 = {said('bytes', found['adapter_bytes'])}")
    else:
        formula.append(f"this run, as sent: {said('bytes', found['adapter_bytes'])} in {uploads:,} uploads")
    formula.append(f"reduction: 1 − {quantities.number(found['adapter_bytes'] / found['full_bytes'])} = {percent(found['reduction'])}")  # fmt: skip
    than = f"{percent(found['reduction'])} less" if found["reduction"] > 0 else "no less"
    text = (
        f"{plural(uploads, 'upload')} landed with {said('bytes', found['adapter_bytes'])}; full-model FedAvg with the "
        f"same schedule would have sent {said('bytes', found['full_bytes'])}: this run sent {than}."
    )
    if found["lost_up_bytes"]:
        text += f" Uploads that did not land took another {said('bytes', found['lost_up_bytes'])}."
    return Section(
        "uplink",
        title,
        [text],
        figures.uplink(run),
        "Uploads that landed, to one scale.",
        formula=formula,
        tables=[_bytes(run)],
    )


def _bytes(run: Run) -> Table:
    visits = run.visits
    rows = [
        (
            words,
            f"{said('bytes', int(visits[name].sum()))} ({int(visits[name].sum()):,} B)",
            f"{said('bytes', int(visits[real].sum()))} ({int(visits[real].sum()):,} B)",
        )
        for words, name, real in (
            ("uploaded", "up_bytes", "serialized_up_bytes"),
            ("downloaded", "down_bytes", "serialized_down_bytes"),
        )
    ]
    caption = (
        "All visits, lost ones included: what the virtual links carried, and the tensors really serialised"
    )
    return Table(("", "charged", "really serialised"), rows, caption)


def waste(run: Run) -> Section:
    """What was spent in vain."""
    found = views.work(run)
    if found.empty:
        return Section("waste", "What was spent in vain", ["No visit was dispatched."])
    share = views.wasted_work(run).attrs["share"]
    saved = float(run.info.get("saved_share") or 0.0)
    spent = (
        f"{percent(share['seconds'])} of the devices' time, {percent(share['up_bytes'])} of the uploaded bytes and "
        f"{percent(share['joules'])} of the energy went into visits that changed no model."
    )
    text = [spent]
    if not run.info.get("timeline_only"):
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
        for ending, row in found.iterrows()
    ]
    return Section(
        "waste",
        "What was spent in vain",
        text,
        visit_figures.spending(run),
        "What became of the devices' time, of what they downloaded and uploaded, and of their energy.",
        tables=[Table(("visits that ended", "visits", "device hours", "down", "up", "energy"), rows)],
    )


def gains(run: Run) -> Section:
    """What clients gain from a copy of their own."""
    title = "What a personal copy gains"
    found = views.gains(run)
    if found.empty:
        return Section("gains", title, ["Clients kept no copies of their own in this run."])
    top = found.iloc[0]
    metric = str(top["metric"])
    text = (
        f"After {top['kind']} on their own data, {plural(int(top['clients']), 'client')} gained "
        f"{number(top['mean'])} in {metric.replace('_', ' ')} on average (median {number(top['median'])}); "
        f"{percent(top['share_worse'])} got worse."
    )
    columns = ("clients", "mean", "worst", "q10", "median", "q90", "best")
    rows = [
        (f"{row['kind']}, {row['metric'].replace('_', ' ')}", *(number(row[c]) for c in columns), percent(row["share_worse"]))
        for _, row in found.iterrows()
    ]  # fmt: skip
    header = ("", "clients", "mean", "worst", "10 %", "median", "90 %", "best", "got worse")
    return Section(
        "gains",
        title,
        [text],
        figures.gains(run, str(top["kind"]), metric),
        "Clients by their gain on their own held-out part; right of zero the personal copy is better.",
        tables=[Table(header, rows)],
    )
