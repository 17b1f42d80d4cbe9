"""The sections about stragglers: whom the server waited for, and how fairly clients took part."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from fedsim.records import stragglers
from fedsim.records.quantities import number, percent, said
from fedsim.records.run import Run
from fedsim.report.parts import Section, Table, listing, plural
from fedsim.report.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, listed, style, thinned
from fedsim.report.visit_figures import times

WORDS = {
    "ask_s": ("not asked yet", GREY),
    "download_s": ("its download", SKY),
    "train_s": ("its training", BLUE),
    "upload_s": ("its upload", ORANGE),
    "settle_s": ("landed, waiting on", GREEN),
}
"""Part of a commit's wait -> the words and the colour for it."""
CAUSES = {
    "window": "its window closed",
    "outage": "an outage",
    "battery": "its battery was low",
    "heat": "it was too warm",
}
"""Why a device goes away -> the words for it."""
LITTLE = 0.05
"""Gap in Little's law from which a reader is warned."""


def waiting(run: Run) -> Section:
    """Where virtual time went: whom each commit waited for."""
    title = "Where virtual time went"
    tiers = stragglers.waited_by_tier(run)
    if tiers.empty or not float(tiers["total_s"].sum()):
        return Section("waits", title, ["No commit had to wait for anybody."])
    rows = [
        (
            str(tier),
            number(row["commits"]),
            percent(row["share"]),
            *(said("time_s", row[name]) for name in WORDS),
        )
        for tier, row in tiers.iterrows()
    ]
    header = ("waited for", "commits", "share of time", *(words for words, _ in WORDS.values()))
    pieces = [(name, colour, words) for name, (words, colour) in WORDS.items()]
    text_away, tables_away = _away(run)
    return Section(
        "waits",
        title,
        [_waited(tiers), *text_away],
        times(tiers, pieces, "virtual time waited", "{time}, {words}"),
        "Virtual time between commits, by the tier of the client that was last and by what it was doing.",
        tables=[Table(header, rows), *tables_away],
    )


def _waited(tiers: pd.DataFrame) -> str:
    """Return in words for whom commits waited, and what those clients were doing."""
    total = float(tiers["total_s"].sum())
    parts = tiers[list(WORDS)].sum() / total
    doing = {"download_s": "downloading", "train_s": "training", "upload_s": "uploading"}
    spent = listing([f"{percent(parts[name])} of it {word}" for name, word in doing.items()])
    text = (
        f"A commit waits for the last of its updates. Of {said('time_s', total)} up to the last commit, "
        f"{percent(tiers['share'].max())} went by waiting for {tiers['share'].idxmax()}. Over all tiers, whoever was "
        f"last spent {spent}."
    )
    other = {"ask_s": "it had not been asked yet", "settle_s": "it had landed already"}
    rest = [f"{percent(parts[name])} {word}" for name, word in other.items() if parts[name] > 0.005]
    if rest:
        text += f" For {listing(rest)}."
    if tiers.attrs["after_s"] > 0:
        text += f" After the last commit the run went on for {said('time_s', tiers.attrs['after_s'])}."
    return text


def _away(run: Run) -> tuple[list[str], list[Table]]:
    """Why devices were away, as far as they were watched, and what became of visits in the middle of which they went."""
    causes_met, text = stragglers.away(run), []
    shares = run.info.away_share or {}
    if shares:
        causes = [f"{percent(share)} because {CAUSES[cause]}" for cause, share in shares.items()]
        text.append(f"Of the devices' time, {percent(sum(shares.values()))} went by away: {listing(causes)}.")
    if causes_met.empty:
        return text, []
    total, share = int(causes_met["visits"].sum()), float(causes_met["visits"].sum()) / run.count("visits")
    most = str(causes_met["visits"].idxmax())
    met = (
        f"In {plural(total, 'visit')} ({percent(share)}) the device went away, mostly because {CAUSES[most]}."
    )
    paused_s = float(causes_met["paused_s"].sum())
    if paused_s:
        met += f" Visits waited {said('time_s', paused_s)} in all for devices to come back."
    rows = [
        (
            CAUSES[str(cause)],
            number(row["visits"]),
            number(row["lost"]),
            number(row["shortened"]),
            said("time_s", row["paused_s"]),
            said("joules", row["lost_joules"]),
        )
        for cause, row in causes_met.iterrows()
    ]
    header = ("the device went away because", "visits", "lost", "cut short", "waited", "energy lost")
    return [*text, met], [Table(header, rows)]


def fairness(run: Run) -> Section:
    """How evenly clients took part, and whether the queues add up."""
    title = "How fairly clients took part"
    if not run.count("visits") or not run.count("clients"):
        return Section("fairness", title, ["No visit was dispatched."])
    counts = stragglers.fairness(run)
    words = {"visits": "asked", "landed": "landed", "committed": "in the model", "flops": "computation"}
    rows = [
        (words[str(name)], number(row["gini"]), percent(row["top_30_share"]), percent(row["zero_share"]))
        for name, row in counts.iterrows()
    ]
    tables = [Table(("", "Gini", "share of the top 30 %", "clients with none"), rows)]
    text_queues, tables_queues = _queues(run)
    text = [_shared(counts), *text_queues]
    return Section("fairness", title, text, _lorenz(run), _READING, tables=[*tables, *tables_queues])


def _shared(counts: pd.DataFrame) -> str:
    """Return in words how evenly the updates in the model are spread over the clients."""
    used = counts.to_dict("index")["committed"]
    if not used["mean"]:
        return "No update is in the model."
    return (
        f"The most active 30 % of the clients gave {percent(used['top_30_share'])} of the updates in the model; "
        f"{percent(used['zero_share'])} of the clients gave none. The Gini coefficient is {number(used['gini'])} "
        f"(0: all the same, 1: one client does everything)."
    )


def _queues(run: Run) -> tuple[list[str], list[Table]]:
    """Return whether Little's law holds, in words, and how many visits were where."""
    queues = stragglers.little(run)
    if queues.empty:
        return [], []
    visit = queues.to_dict("index")["visit"]
    gap = float(visit["relative_gap"])
    text = (
        f"{number(visit['mean_number'])} visits were under way at a time; Little's law (departures per second "
        f"x mean duration) gives {number(visit['product'])}, {percent(gap)} apart"
    )
    text += "." if gap <= LITTLE else ": the run is short for its visits, so means over them are biased."
    rows = [
        (
            str(name),
            number(row["departures_per_s"] * 3600),
            said("time_s", row["mean_s"]),
            number(row["mean_number"]),
        )
        for name, row in queues.iterrows()
    ]
    caption = f"How many were where on average, out of {plural(run.count('clients'), 'client')}"
    return [text], [Table(("phase", "left an hour", "mean duration", "mean number there"), rows, caption)]


_READING = "Clients from the least to the most active, against their share of all visits and of all updates in the model."


def _lorenz(run: Run) -> go.Figure:
    figure = go.Figure()
    curves = thinned(stragglers.lorenz(run))
    names = {"visits": ("asked", GREY), "committed": ("in the model", BLUE)}
    for column, (words, colour) in names.items():
        if curves[column].notna().all():
            figure.add_scatter(
                x=listed(curves["clients"]),
                y=listed(curves[column]),
                name=words,
                mode="lines",
                line={"color": colour, "width": 2.5},
                hovertemplate=f"%{{x:.0%}} of the clients: %{{y:.1%}} {words}<extra></extra>",
            )
    figure.add_scatter(
        x=[0, 1], y=[0, 1], name="all the same", mode="lines", line={"color": INK, "width": 1, "dash": "dot"}
    )
    figure.update_xaxes(title_text="share of the clients", tickformat=".0%", range=[0, 1])
    figure.update_yaxes(title_text="share of the total", tickformat=".0%", range=[0, 1.02])
    return style(figure, 280, legend=True)
