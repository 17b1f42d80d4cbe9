"""Visits as bars over virtual time, a row a client: download, training, upload, and what was lost."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fedsim.records import quantities
from fedsim.records.run import Run
from fedsim.report.style import BLUE, GREY, INK, ORANGE, RED, SKY, style

MOST_CLIENTS = 40
"""Rows that are drawn: the clients with most visits in the stretch."""
MOST_VISITS = 1500
"""Visits of a stretch that is chosen by itself."""
COLUMNS = ("client", "dispatched_s", "downloaded_s", "trained_s", "ended_s", "outcome", "staleness")
PHASES = (
    ("download", "dispatched_s", "downloaded_s", SKY),
    ("train", "downloaded_s", "trained_s", BLUE),
    ("upload", "trained_s", "ended_s", ORANGE),
)


def stretch(run: Run) -> tuple[float, float]:
    """Return the stretch that is shown if nobody chooses: from the start, as long as it has few enough visits [s]."""
    starts = run.frame("visits", "dispatched_s")["dispatched_s"].to_numpy()
    end_s = float(run.info.end_time_s)
    return (
        (0.0, end_s)
        if len(starts) <= MOST_VISITS
        else (0.0, float(np.partition(starts, MOST_VISITS)[MOST_VISITS]))
    )


def gantt(run: Run, start_s: float | None = None, stop_s: float | None = None) -> go.Figure | None:
    """Draw the visits of a stretch, a row a client: those with most visits in it, the busiest on top.

    A visit that did not land ends in grey where it was lost, with its outcome on it; vertical lines are commits.

    Args:
        run: whose visits.
        start_s: where the stretch begins, virtual seconds; None: `stretch`.
        stop_s: where it ends; None: `stretch`.

    Returns:
        The figure; None if nothing happened in the stretch.
    """
    from_s, until_s = stretch(run)
    from_s, until_s = (from_s if start_s is None else start_s), (until_s if stop_s is None else stop_s)
    visits = run.frame("visits", *COLUMNS)
    inside = visits[(visits["dispatched_s"] <= until_s) & (visits["ended_s"] >= from_s)]
    chosen = inside["client"].value_counts(sort=True).sort_index().sort_values(ascending=False, kind="stable")
    clients = [int(client) for client in chosen.index[:MOST_CLIENTS]]
    if not clients:
        return None
    shown = inside[inside["client"].isin(clients)]
    step = quantities.scale("time_s", until_s)
    figure = go.Figure()
    for words, begin, end, colour in PHASES:
        _bars(figure, shown, (words, begin, end, colour), step)
    _lost(figure, shown, step)
    commits = run.commits.loc[run.commits["time_s"].between(from_s, until_s), "time_s"]
    for at_s in commits[:200]:
        figure.add_vline(x=float(at_s) / step.divisor, line={"color": INK, "width": 0.5}, opacity=0.25)
    figure.update_xaxes(
        title_text=f"virtual time [{step.unit}]", range=[from_s / step.divisor, until_s / step.divisor]
    )
    order = [f"client {client}" for client in clients][::-1]
    figure.update_yaxes(categoryorder="array", categoryarray=order, tickfont={"size": 10})
    figure.update_layout(barmode="overlay", bargap=0.15)
    return style(figure, 90 + 16 * len(clients), legend=True)


def _bars(
    figure: go.Figure, visits: pd.DataFrame, phase: tuple[str, str, str, str], step: quantities.Scale
) -> None:
    words, begin, end, colour = phase
    stop = visits[end].where(visits[end].notna(), visits["ended_s"])
    rows = visits[visits[begin].notna() & (stop > visits[begin])]
    _draw(figure, rows, (rows[begin], stop[rows.index]), (words, colour), step)


def _lost(figure: go.Figure, visits: pd.DataFrame, step: quantities.Scale) -> None:
    """Mark the last part of every visit that did not land: from its last phase on."""
    rows = visits[visits["outcome"] != "landed"]
    begun = rows[["dispatched_s", "downloaded_s", "trained_s"]].max(axis=1)
    _draw(figure, rows, (begun, rows["ended_s"]), ("not landed", GREY), step)
    refused = rows[rows["ended_s"] <= begun]
    if len(refused):
        figure.add_scatter(
            x=(refused["ended_s"] / step.divisor).tolist(),
            y=[f"client {client}" for client in refused["client"]],
            mode="markers",
            marker={"color": RED, "size": 6, "symbol": "x"},
            name="refused at once",
            hovertemplate="%{y}: refused<extra></extra>",
        )


def _draw(
    figure: go.Figure,
    rows: pd.DataFrame,
    spans: tuple[pd.Series, pd.Series],
    look: tuple[str, str],
    step: quantities.Scale,
) -> None:
    if rows.empty:
        return
    begin, end = spans
    words, colour = look
    figure.add_bar(
        y=[f"client {client}" for client in rows["client"]],
        base=(begin / step.divisor).tolist(),
        x=((end - begin) / step.divisor).tolist(),
        orientation="h",
        name=words,
        marker={"color": colour, "line": {"width": 0}},
        customdata=[[str(outcome).replace("_", " "), int(late)] for outcome, late in zip(rows["outcome"], rows["staleness"], strict=True)],
        hovertemplate=f"%{{y}}: {words} %{{x:.3g}} {step.unit}<br>%{{customdata[0]}}, staleness %{{customdata[1]}}<extra></extra>",
    )  # fmt: skip
