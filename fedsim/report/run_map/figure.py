"""Visits as bars over virtual time, a row a client: download, training, upload, and what was lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fedsim.arrays import Floats
from fedsim.records import quantities
from fedsim.records.run import Run
from fedsim.report.style import BLUE, GREY, INK, ORANGE, RED, SKY, style

MOST_CLIENTS = 40
"""Rows that are drawn: the clients with most visits in the stretch."""
MOST_VISITS = 600
"""Visits that begin in a stretch which is chosen by itself."""
MOST_STRETCHES = 24
"""Stretches to choose from in a page."""
DIGITS = 5
"""Digits of an instant, the length of the stretch being 1: a tenth of a pixel."""
COLUMNS = ("client", "dispatched_s", "downloaded_s", "trained_s", "ended_s", "outcome", "staleness")
PHASES = (
    ("download", "dispatched_s", "downloaded_s", SKY),
    ("train", "downloaded_s", "trained_s", BLUE),
    ("upload", "trained_s", "ended_s", ORANGE),
)


@dataclass(frozen=True)
class _Axis:
    """Virtual time as a map shows it: its unit, and the decimals that can be seen."""

    step: quantities.Scale
    decimals: int

    def at(self, instants_s: pd.Series) -> list[float]:
        """Return instants or spans in the unit of the axis."""
        places: list[float] = np.round(instants_s.to_numpy() / self.step.divisor, self.decimals).tolist()
        return places


def stretches(starts_s: Floats, end_s: float) -> list[tuple[float, float]]:
    """Return stretches of a run to choose from, each with a number of visits that can be drawn [s].

    One after the other they cover the run; of a run too long for that they are as many as fit a page, spread evenly.

    Args:
        starts_s: when visits were dispatched, in any order.
        end_s: of the run.
    """
    starts_s = np.sort(starts_s)
    count = -(-len(starts_s) // MOST_VISITS)
    if count <= 1:
        return [(0.0, end_s)]
    if count <= MOST_STRETCHES:
        cuts = [0.0, *(float(starts_s[MOST_VISITS * k]) for k in range(1, count)), end_s]
        return [(begin, end) for begin, end in pairwise(cuts) if end > begin]
    begins = np.linspace(0.0, end_s, MOST_STRETCHES, endpoint=False)
    lasts = np.minimum(np.searchsorted(starts_s, begins) + MOST_VISITS, len(starts_s) - 1)
    ends = np.minimum(starts_s[lasts], begins + end_s / MOST_STRETCHES)
    return [(float(b), float(e)) for b, e in zip(begins, ends, strict=True) if e > b]


def stretch(run: Run) -> tuple[float, float]:
    """Return the stretch that is shown if nobody chooses: from the start, as long as it has few enough visits [s]."""
    starts_s = run.frame("visits", "dispatched_s")["dispatched_s"].to_numpy()
    return next(iter(stretches(starts_s, float(run.info.end_time_s))), (0.0, float(run.info.end_time_s)))


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
    return _map(run.frame("visits", *COLUMNS), run.commits["time_s"], from_s, until_s)


def maps(run: Run) -> Iterator[tuple[float, float, go.Figure]]:
    """Yield the stretches to choose from in which anything happened, with their figures: begin and end [s], figure."""
    visits, commits_s = run.frame("visits", *COLUMNS), run.commits["time_s"]
    for from_s, until_s in stretches(visits["dispatched_s"].to_numpy(), float(run.info.end_time_s)):
        figure = _map(visits, commits_s, from_s, until_s)
        if figure is not None:
            yield from_s, until_s, figure


def _map(visits: pd.DataFrame, commits_s: pd.Series, from_s: float, until_s: float) -> go.Figure | None:
    inside = visits[(visits["dispatched_s"] <= until_s) & (visits["ended_s"] >= from_s)]
    chosen = inside["client"].value_counts(sort=True).sort_index().sort_values(ascending=False, kind="stable")
    clients = [int(client) for client in chosen.index[:MOST_CLIENTS]]
    if not clients:
        return None
    shown = inside[inside["client"].isin(clients)]
    step = quantities.scale("time_s", until_s)
    axis = _Axis(step, DIGITS - math.floor(math.log10(max((until_s - from_s) / step.divisor, 1e-9))))
    figure = go.Figure()
    for words, begin, end, colour in PHASES:
        _bars(figure, shown, (words, begin, end, colour), axis)
    _lost(figure, shown, axis)
    figure.update_xaxes(
        title_text=f"virtual time [{step.unit}]", range=[from_s / step.divisor, until_s / step.divisor]
    )
    order = [f"client {client}" for client in clients][::-1]
    figure.update_yaxes(categoryorder="array", categoryarray=order, tickfont={"size": 11})
    figure.update_layout(barmode="overlay")
    _commits(figure, commits_s[commits_s.between(from_s, until_s)], axis)
    return style(figure, 90 + 17 * len(clients), legend=True)


def _bars(figure: go.Figure, visits: pd.DataFrame, phase: tuple[str, str, str, str], axis: _Axis) -> None:
    words, begin, end, colour = phase
    stop = visits[end].where(visits[end].notna(), visits["ended_s"])
    rows = visits[visits[begin].notna() & (stop > visits[begin])]
    _draw(figure, rows, (rows[begin], stop[rows.index]), (words, colour), axis)


def _lost(figure: go.Figure, visits: pd.DataFrame, axis: _Axis) -> None:
    """Mark the last part of every visit that did not land: from its last phase on."""
    rows = visits[visits["outcome"] != "landed"]
    begun = rows[["dispatched_s", "downloaded_s", "trained_s"]].max(axis=1)
    _draw(figure, rows, (begun, rows["ended_s"]), ("not landed", GREY), axis)
    refused = rows[rows["ended_s"] <= begun]
    if len(refused):
        figure.add_scatter(
            x=axis.at(refused["ended_s"]),
            y=[f"client {client}" for client in refused["client"]],
            mode="markers",
            marker={"color": RED, "size": 6, "symbol": "x"},
            name="refused at once",
            hovertemplate="%{y}: refused<extra></extra>",
        )


def _commits(figure: go.Figure, commits_s: pd.Series, axis: _Axis) -> None:
    """Draw a line from top to bottom at every commit: one trace, whatever their number."""
    if commits_s.empty:
        return
    figure.add_scatter(
        x=[place for at in axis.at(commits_s) for place in (at, at, None)],
        y=[0, 1, None] * len(commits_s),
        yaxis="y2",
        mode="lines",
        name="commit",
        line={"color": INK, "width": 0.5},
        opacity=0.5,
        hoverinfo="skip",
    )
    side = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    figure.update_layout(yaxis2=side)


def _draw(
    figure: go.Figure,
    rows: pd.DataFrame,
    spans: tuple[pd.Series, pd.Series],
    look: tuple[str, str],
    axis: _Axis,
) -> None:
    if rows.empty:
        return
    begin, end = spans
    words, colour = look
    figure.add_bar(
        y=[f"client {client}" for client in rows["client"]],
        base=axis.at(begin),
        x=axis.at(end - begin),
        orientation="h",
        name=words,
        marker={"color": colour, "line": {"width": 0}},
        customdata=[
            str(outcome).replace("_", " ") + ("" if late < 0 else f", staleness {late}")
            for outcome, late in zip(rows["outcome"], rows["staleness"], strict=True)
        ],
        hovertemplate=f"%{{y}}: {words} %{{x:.3g}} {axis.step.unit}<br>%{{customdata}}<extra></extra>",
    )
