"""The figures about what a run reached: a function takes a run (or several) and gives a Plotly figure.

A function returns None when the run has nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fedsim.arrays import Floats
from fedsim.records import quantities, views
from fedsim.records.comparisons import mean_curve
from fedsim.records.run import Run
from fedsim.report.drawn import worded
from fedsim.report.style import (
    BLUE,
    DASHES,
    GREY,
    RUN_COLOURS,
    SYMBOLS,
    axis_of,
    faint,
    listed,
    logarithmic,
    style,
    thinned,
)

LEGEND = 44
"""Longest name in a legend."""
WIDE = 50.0
"""Largest value over the least from which an axis is logarithmic."""


def progress(run: Run, metric: str) -> go.Figure:
    """Draw a metric against virtual time, commits and uploaded bytes, side by side."""
    splits = [
        s
        for s in ("test", "valid", "clients", "samples")
        if ((run.scores["split"] == s) & (run.scores["metric"] == metric)).any()
    ]
    figure = make_subplots(rows=1, cols=3, shared_yaxes=True, horizontal_spacing=0.035)
    for i, split in enumerate(splits):
        points = thinned(views.scored(run, metric, split))
        for column, x in enumerate(("time_s", "version", "up_bytes"), start=1):
            divisor, title = axis_of(x, float(points[x].max()))
            line = {"color": RUN_COLOURS[i], "width": 2}
            trace = go.Scatter(
                x=listed(points[x] / divisor),
                y=listed(points["value"]),
                name=split,
                legendgroup=split,
                showlegend=column == 1,
                mode="lines+markers",
                cliponaxis=False,
                line=line,
                marker={"size": 6, "symbol": SYMBOLS[i]},
                hovertemplate=f"%{{x:.4g}} {title}<br>{worded(metric)} %{{y:.4g}}<extra>{worded(split)}</extra>",
            )
            figure.add_trace(trace, row=1, col=column)
            figure.update_xaxes(title_text=title, rangemode="tozero", row=1, col=column)
    figure.update_yaxes(title_text=metric.replace("_", " "), row=1, col=1)
    _widen(figure, _values([run], metric, splits))
    return style(figure, 290, legend=len(splits) > 1)


def _widen(figure: go.Figure, values: Floats) -> None:
    """Give values of very different size, as of runs that diverged, a logarithmic axis."""
    if math.isfinite(_floor(values)):
        figure.update_yaxes(**logarithmic(values))
        title = f"{figure.layout.yaxis.title.text or ''} (logarithmic)"
        figure.update_yaxes(title_text=title, row=1, col=1)


def _floor(values: Floats) -> float:
    """Return the least value that the axis of some values can show: above 0 on a logarithmic one."""
    finite = values[np.isfinite(values)]
    is_wide = len(finite) and finite.min() > 0 and finite.max() >= WIDE * finite.min()
    return float(finite.min()) if is_wide else -math.inf


def _values(runs: Sequence[Run], metric: str, splits: Sequence[str] = ("test",)) -> Floats:
    return np.concatenate(
        [views.scored(run, metric, split)["value"].to_numpy(np.float64) for run in runs for split in splits]
    )


def comparison(
    runs: Sequence[Run], labels: Sequence[str], groups: Sequence[int], names: Sequence[str], metric: str
) -> go.Figure:
    """Draw a metric of several runs against virtual time, uploaded bytes and joules, side by side.

    Args:
        runs: what is drawn.
        labels: one a run.
        groups: number of each run's configuration; one of several runs is drawn as their mean in a band.
        names: of the configurations, by number.
        metric: of the test split.
    """
    figure = make_subplots(rows=1, cols=3, shared_yaxes=True, horizontal_spacing=0.035)
    axes: tuple[views.X, ...] = ("time_s", "up_bytes", "joules")
    alone = [i for i, group in enumerate(groups) if list(groups).count(group) == 1]
    curves = [thinned(views.scored(runs[i], metric)) for i in alone]
    if alone:
        _curves(figure, 1, axes, curves, [labels[i] for i in alone], [groups[i] for i in alone], metric)
    entries = [labels[i] for i in alone]
    for group in dict.fromkeys(group for group in groups if list(groups).count(group) > 1):
        members = [run for run, g in zip(runs, groups, strict=True) if g == group]
        _band(figure, axes, members, (names[group], group), metric, _floor(_values(runs, metric)))
        entries.append(names[group])
    _widen(figure, _values(runs, metric))
    rows = -(-sum(min(len(entry), LEGEND) + 8 for entry in entries) // 130)  # lines that the legend takes
    return style(figure, 310 + 20 * rows, legend=True)


def _band(
    figure: go.Figure,
    axes: Sequence[views.X],
    runs: Sequence[Run],
    configuration: tuple[str, int],
    metric: str,
    floor: float,
) -> None:
    """Draw a configuration, by name and number: the mean over its runs, and one standard deviation around it."""
    name, group = configuration
    colour = RUN_COLOURS[group % len(RUN_COLOURS)]
    for column, x in enumerate(axes, start=1):
        mean = thinned(mean_curve(runs, metric, x))
        divisor, title = axis_of(x, float(mean[x].max()))
        at = listed(mean[x] / divisor)
        for edge, fill in (
            (mean["mean"] + mean["deviation"], None),
            ((mean["mean"] - mean["deviation"]).clip(lower=floor), "tonexty"),
        ):
            band = go.Scatter(
                x=at, y=listed(edge), mode="lines", line={"width": 0, "shape": "hv", "color": colour}, fill=fill,
                legendgroup=name, showlegend=False, hoverinfo="skip", fillcolor=faint(colour), name=f"{name}, one standard deviation",
            )  # fmt: skip
            figure.add_trace(band, row=1, col=column)
        line = go.Scatter(
            x=at, y=listed(mean["mean"]), name=_shortened(name), legendgroup=name, showlegend=column == 1,
            mode="lines", line={"color": colour, "width": 2.5, "shape": "hv", "dash": DASHES[group % len(DASHES)]}, cliponaxis=False,
            hovertemplate=f"%{{x:.4g}} {title}<br>{worded(metric)} %{{y:.4g}}<extra>{worded(name)}, mean of {len(runs)} seeds</extra>",
        )  # fmt: skip
        figure.add_trace(line, row=1, col=column)
        figure.update_xaxes(title_text=title, rangemode="tozero", row=1, col=column)
    figure.update_yaxes(title_text=metric.replace("_", " "), row=1, col=1)


def _shortened(name: str) -> str:
    """Return a name that a legend has room for; the page has it whole."""
    return name if len(name) <= LEGEND else f"{name[: LEGEND - 1]}…"


def samples(
    runs: Sequence[Run], labels: Sequence[str], colours: Sequence[int], metrics: Sequence[str]
) -> go.Figure:
    """Draw metrics of samples, one row each, against virtual time, commits and uploaded bytes."""
    figure = make_subplots(
        rows=len(metrics),
        cols=3,
        shared_yaxes=True,
        horizontal_spacing=0.035,
        vertical_spacing=0.32 / max(2, len(metrics)),
    )
    for row, metric in enumerate(metrics, start=1):
        curves = [thinned(views.scored(run, metric, "samples")) for run in runs]
        _curves(figure, row, ("time_s", "version", "up_bytes"), curves, labels, colours, metric)
    many = len(runs) > 1
    lines = -(-sum(len(label) + 8 for label in labels) // 130) if many else 0
    return style(figure, 250 * len(metrics) + 20 * lines, legend=many)


def _curves(
    figure: go.Figure,
    row: int,
    axes: Sequence[views.X],
    curves: Sequence[pd.DataFrame],
    labels: Sequence[str],
    colours: Sequence[int],
    metric: str,
) -> None:
    """Fill a row of panels with a metric of several runs, one panel an axis; the first panel of all has the legend."""
    for column, x in enumerate(axes, start=1):
        divisor, title = axis_of(x, max(float(c[x].max()) for c in curves))
        for i, (curve, label) in enumerate(zip(curves, labels, strict=True)):
            trace = go.Scatter(
                x=listed(curve[x] / divisor),
                y=listed(curve["value"]),
                name=_shortened(label),
                legendgroup=label,
                showlegend=row == column == 1,
                mode="lines+markers",
                cliponaxis=False,
                line=_line(colours, i),
                marker={"size": 6, "symbol": SYMBOLS[colours[i] % len(SYMBOLS)]},
                hovertemplate=f"%{{x:.4g}} {title}<br>{worded(metric)} %{{y:.4g}}<extra>{worded(label)}</extra>",
            )
            figure.add_trace(trace, row=row, col=column)
        figure.update_xaxes(title_text=title, rangemode="tozero", row=row, col=column)
    figure.update_yaxes(title_text=metric.replace("_", " "), row=row, col=1)


def _line(colours: Sequence[int], i: int) -> dict[str, Any]:
    """One colour a configuration; its repetitions differ by dash, and so do colours used twice."""
    turn = list(colours[:i]).count(colours[i]) + colours[i] // len(RUN_COLOURS)
    colour = RUN_COLOURS[colours[i] % len(RUN_COLOURS)]
    return {"color": colour, "width": 2, "dash": DASHES[turn % len(DASHES)]}


def uplink(run: Run) -> go.Figure | None:
    """Draw the uploads of this run beside those of full-model FedAvg, to one scale."""
    sums = views.uplink_reduction(run).iloc[0]
    if not sums["full_bytes"]:
        return None
    names = ["this run", "full-model FedAvg"]
    values = [float(sums["adapter_bytes"]), float(sums["full_bytes"])]
    step = quantities.scale("bytes", max(values))
    figure = go.Figure(
        go.Bar(
            y=names[::-1],
            x=[v / step.divisor for v in values[::-1]],
            orientation="h",
            marker_color=[GREY, BLUE],
            text=[quantities.said("bytes", v) for v in values[::-1]],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}}: %{{x:.4g}} {step.unit}<extra></extra>",
        )
    )
    figure.update_xaxes(title_text=f"uploaded [{step.unit}]", range=[0, 1.3 * max(values) / step.divisor])
    return style(figure, 140)


def devices(run: Run, most: int = 2000) -> go.Figure | None:
    """Draw the population: effective speed against uplink, one point a client, one colour a tier."""
    if not run.count("clients"):
        return None
    step = -(-run.count("clients") // most)  # every k-th client of a large population
    shown = run.frame("clients", "tier", "device", "flops_per_s", "up_bytes_per_s").iloc[::step]
    figure = go.Figure()
    for i, tier in enumerate(views.tiers(run)):
        part = shown[shown["tier"] == tier]
        figure.add_scatter(
            x=listed(part["flops_per_s"] / 1e9),
            y=listed(part["up_bytes_per_s"] * 8e-6),
            name=tier,
            mode="markers",
            marker={
                "size": 7,
                "opacity": 0.9,
                "color": (*RUN_COLOURS, GREY)[i % 8],
                "symbol": SYMBOLS[i % 8],
            },
            text=listed(part["device"]),
            hovertemplate="%{text}<br>%{x:.3g} GFLOP/s, %{y:.3g} Mbit/s up<extra>"
            + worded(tier)
            + "</extra>",
        )
    figure.update_xaxes(
        title_text="effective training speed [GFLOP/s]", **logarithmic(shown["flops_per_s"] / 1e9)
    )
    figure.update_yaxes(title_text="uplink [Mbit/s]", **logarithmic(shown["up_bytes_per_s"] * 8e-6))
    return style(figure, 320, legend=True)
