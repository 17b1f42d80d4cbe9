"""The figure about personalisation: how gains are distributed, over all clients and by group."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fedsim.records import views
from fedsim.records.run import Run
from fedsim.report.style import BLUE, GREEN, INK, PAPER, PURPLE, RED, listed, style

GROUPS = 8
"""Groups that are drawn beside the distribution."""
MOST_OF_A_BOX = 5000
"""Gains of a box whose outliers are drawn one by one."""


def gains(run: Run, kind: str, metric: str) -> go.Figure:
    """Draw the distribution of personal gains: a histogram, and beside it a box a tier and one of those held out."""
    rows = run.personal[(run.personal["kind"] == kind) & (run.personal["metric"] == metric)]
    figure = make_subplots(
        rows=1, cols=2, shared_xaxes=False, column_widths=[0.58, 0.42], horizontal_spacing=0.12
    )
    _histogram(figure, rows["gain"].to_numpy())
    _boxes(figure, run, rows)
    title = f"gain in {metric.replace('_', ' ')}"
    figure.update_xaxes(title_text=f"{title}, dashed: mean", row=1, col=1)
    figure.update_xaxes(title_text=title, zeroline=True, row=1, col=2)
    figure.update_yaxes(title_text="clients", rangemode="tozero", row=1, col=1)
    return style(figure, 260, legend=True)


def _histogram(figure: go.Figure, gain: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    low, high = min(float(gain.min()), 0.0), max(float(gain.max()), 0.0)
    width = (high - low) / 30 or 1.0
    # zero is an edge of a bin, so that no bar mixes gains and losses
    edges = np.arange(np.floor(low / width), np.ceil(high / width) + 1) * width
    if len(edges) < 2:
        edges = np.array([-width, 0.0, width])
    counts, _ = np.histogram(gain, bins=edges)
    middles = (edges[:-1] + edges[1:]) / 2
    for words, chosen, colour in (("worse", middles < 0, RED), ("better or equal", middles >= 0, GREEN)):
        figure.add_bar(
            x=listed(middles[chosen]),
            y=listed(counts[chosen]),
            width=width,
            name=words,
            marker={"color": colour, "line": {"color": PAPER, "width": 1}},
            hovertemplate="gain about %{x:.3g}: %{y} clients<extra></extra>",
            row=1,
            col=1,
        )
    figure.add_vline(x=float(gain.mean()), line={"color": INK, "width": 1.5, "dash": "dash"}, row=1, col=1)


def _boxes(figure: go.Figure, run: Run, rows: object) -> None:
    import pandas as pd

    assert isinstance(rows, pd.DataFrame)
    people = rows.merge(run.frame("clients", "client", "tier"), on="client", how="left")
    groups = [(tier, people[(people["tier"] == tier) & ~people["unseen"]], BLUE) for tier in views.tiers(run)]
    groups = [*groups[-GROUPS:], ("held out", people[people["unseen"]], PURPLE)]
    for name, part, colour in groups:
        if part.empty:
            continue
        figure.add_box(
            **_spread(part["gain"].to_numpy()),
            name=str(name),
            orientation="h",
            marker={"color": colour, "size": 4},
            line={"width": 1.5},
            showlegend=False,
            hoverinfo="x+name",
            row=1,
            col=2,
        )


def _spread(gain: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, object]:
    """Return what a box is drawn of: the gains, or of very many their quartiles and fences alone."""
    if len(gain) <= MOST_OF_A_BOX:
        return {"x": listed(gain), "boxpoints": "outliers"}
    low, middle, high = np.quantile(gain, [0.25, 0.5, 0.75])
    inside = gain[(gain >= low - 1.5 * (high - low)) & (gain <= high + 1.5 * (high - low))]
    fences = {"lowerfence": [float(inside.min())], "upperfence": [float(inside.max())]}
    return {"q1": [float(low)], "median": [float(middle)], "q3": [float(high)], "boxpoints": False, **fences}
