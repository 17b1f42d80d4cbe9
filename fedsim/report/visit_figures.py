"""The figures about visits: who took part, how visits ended, what they spent and on what.

A function returns None when the run has nothing to draw. The numbers stand on the bars as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from fedsim.records import quantities, views
from fedsim.records.run import Run
from fedsim.report.style import BLUE, ENDINGS, GREY, ORANGE, PAPER, SKY, hatched, listed, style, words_on

MOST_BARS = 300
"""Bars of a histogram."""


def participation(run: Run) -> go.Figure | None:
    """Draw each tier's share of the clients beside its share of the committed updates."""
    tiers = views.participation_by_tier(run)
    if tiers["update_share"].isna().all():
        return None
    figure = go.Figure()
    for column, words, colour in (
        ("update_share", "share of the committed updates", BLUE),  # the last one drawn is on top
        ("client_share", "share of the clients", GREY),
    ):
        figure.add_bar(
            y=list(tiers.index)[::-1],
            x=listed(tiers[column])[::-1],
            name=words,
            orientation="h",
            marker_color=colour,
            text=[quantities.percent(v) for v in listed(tiers[column])[::-1]],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}}: %{{x:.1%}} {words[6:]}<extra></extra>",
        )
    largest = float(tiers[["client_share", "update_share"]].max().max())
    figure.update_xaxes(tickformat=".0%", range=[0, 1.2 * largest])
    figure.update_layout(barmode="group")
    style(figure, 30 + 44 * len(tiers), legend=True, bottom=28)
    return figure.update_layout(legend_traceorder="reversed")


def endings(counts: pd.DataFrame) -> go.Figure | None:
    """Draw how visits ended as stacked bars, one a row of `counts` (a tier or a run), with the counts on them."""
    totals = counts.sum(axis=1)
    visited = counts[totals > 0]
    if visited.empty:
        return None
    figure = go.Figure()
    names = [f"{name}  ({quantities.number(totals[name])})" for name in visited.index]
    for outcome in visited.columns:
        words, colour = ENDINGS[outcome]
        share = visited[outcome] / totals[visited.index]
        figure.add_bar(
            y=names[::-1],
            x=listed(share)[::-1],
            name=words,
            orientation="h",
            marker=hatched(colour, str(outcome)),
            text=[quantities.number(n) if n else "" for n in listed(visited[outcome])[::-1]],
            insidetextfont={"color": words_on(colour)},
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            customdata=listed(visited[outcome])[::-1],
            hovertemplate=f"%{{y}}: %{{customdata}} {words} (%{{x:.1%}})<extra></extra>",
        )
    figure.update_xaxes(tickformat=".0%", range=[0, 1], dtick=0.2)
    figure.update_layout(barmode="stack")
    return style(figure, 30 + 32 * len(visited), legend=True, bottom=28)


def staleness(run: Run) -> go.Figure | None:
    """Draw how stale the committed updates were; None if all were fresh."""
    counts = views.staleness(run)
    if counts.empty or int(counts["staleness"].max()) == 0:
        return None
    width = -(-(int(counts["staleness"].max()) + 1) // MOST_BARS)
    if width > 1:  # a bar stands for so many values in a row
        counts = counts.groupby(counts["staleness"] // width * width)["updates"].sum().reset_index()
    span = "%{x}" if width == 1 else f"%{{x}} to {width - 1} more"
    figure = go.Figure(
        go.Bar(
            x=listed(counts["staleness"]),
            y=listed(counts["updates"]),
            marker_color=BLUE,
            hovertemplate=f"staleness {span}: %{{y}} updates<extra></extra>",
        )
    )
    dense = int(counts["staleness"].max()) <= 30
    figure.update_xaxes(title_text="staleness [commits between dispatch and use]", dtick=1 if dense else None)
    figure.update_yaxes(title_text="updates", rangemode="tozero")
    return style(figure, 240)


def phases(run: Run) -> go.Figure | None:
    """Draw where the time of a landed visit goes, by tier."""
    means = views.phase_seconds(run)
    if means.empty:
        return None
    parts = (
        ("download_s", SKY, "download"),
        ("train_s", BLUE, "train"),
        ("upload_s", ORANGE, "upload"),
    )
    return times(means, parts, "mean virtual time of a landed visit", "{words} {time}")


def times(times_s: pd.DataFrame, parts: Sequence[tuple[str, str, str]], title: str, hover: str) -> go.Figure:
    """Draw seconds by tier as stacked bars, in a unit that suits the longest.

    Args:
        times_s: one row a tier.
        parts: (column, colour, words) of each piece of a bar.
        title: of the axis, without its unit.
        hover: what a piece says, of {words} and {time}.
    """
    figure = go.Figure()
    step = quantities.scale("time_s", float(times_s[[column for column, *_ in parts]].sum(axis=1).max()))
    for column, colour, words in parts:
        said = hover.format(words=words, time=f"%{{x:.3g}} {step.unit}")
        figure.add_bar(
            y=list(times_s.index)[::-1],
            x=listed(times_s[column] / step.divisor)[::-1],
            name=words,
            orientation="h",
            marker={"color": colour, "line": {"color": PAPER, "width": 1}},
            hovertemplate=f"%{{y}}: {said}<extra></extra>",
        )
    figure.update_xaxes(title_text=f"{title} [{step.unit}]", rangemode="tozero")
    figure.update_layout(barmode="stack")
    return style(figure, 60 + 32 * len(times_s), legend=True)


def spending(run: Run) -> go.Figure | None:
    """Draw what became of the devices' time, bytes and energy."""
    used = views.work(run)
    if used.empty:
        return None
    sums = pd.DataFrame(
        {
            "device time": used["seconds"],
            "download": used["down_bytes"],
            "upload": used["up_bytes"],
            "energy": used["joules"],
        }
    ).T
    sums = sums[sums.sum(axis=1) > 0]
    shares = sums.div(sums.sum(axis=1), axis=0)
    figure = go.Figure()
    for ending in shares.columns:
        words, colour = ENDINGS[ending]
        values = listed(shares[ending])[::-1]
        figure.add_bar(
            y=list(shares.index)[::-1],
            x=values,
            name=words,
            orientation="h",
            marker=hatched(colour, str(ending)),
            text=[quantities.percent(v) for v in values],
            insidetextfont={"color": words_on(colour)},
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            hovertemplate=f"%{{y}}: %{{x:.1%}} {words}<extra></extra>",
        )
    figure.update_xaxes(tickformat=".0%", range=[0, 1], dtick=0.2)
    figure.update_layout(barmode="stack")
    return style(figure, 30 + 32 * len(shares), legend=True, bottom=28)
