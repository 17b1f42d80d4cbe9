"""Figures of runs, under their public name: Plotly figures, as the report has them.

    figure = fedsim.plots.progress(run)          # shows itself in a notebook
    figure.write_html("progress.html")
    fedsim.plots.to_matplotlib(figure).savefig("progress.pdf")

Each returns None where a run has nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedsim.records import views
from fedsim.report import figures, gain_figures, visit_figures
from fedsim.report.printed.figure import to_matplotlib
from fedsim.report.run_map.figure import gantt
from fedsim.report.several.labels import compared
from fedsim.report.visit_figures import participation, phases, spending, staleness

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fedsim.records.run import Run

__all__ = [
    "compare",
    "devices",
    "endings",
    "gains",
    "gantt",
    "participation",
    "phases",
    "progress",
    "spending",
    "staleness",
    "to_matplotlib",
    "uplink",
]

devices = figures.devices
uplink = figures.uplink


def progress(run: Run, metric: str | None = None) -> go.Figure | None:
    """Draw a metric against virtual time, commits and uploaded bytes.

    Args:
        run: whose scores.
        metric: on test; None: the run's first.
    """
    metric = metric or views.headline(run)
    return None if metric is None else figures.progress(run, metric)


def compare(runs: Sequence[Run], metric: str | None = None) -> go.Figure | None:
    """Draw a metric of several runs against virtual time, uploaded bytes and joules; seeds of a configuration as a band.

    Args:
        runs: those that scored it are drawn.
        metric: on test; None: the first that one of them has.
    """
    metric = metric or next((m for run in runs if (m := views.headline(run))), None)
    scored = [
        run for run in runs if ((run.scores["split"] == "test") & (run.scores["metric"] == metric)).any()
    ]
    if metric is None or not scored:
        return None
    c = compared(scored)
    return figures.comparison(c.runs, c.labels, c.groups, c.names, metric)


def endings(run: Run) -> go.Figure | None:
    """Draw how visits ended, a bar a tier, slowest first."""
    return visit_figures.endings(views.losses_by_cause(run))


def gains(run: Run, kind: str | None = None) -> go.Figure | None:
    """Draw the clients' gains from their personal adapters.

    Args:
        run: whose clients.
        kind: of personalisation; None: the first in the table.
    """
    rows = run.personal
    if rows.empty:
        return None
    kind = kind or str(rows["kind"].iloc[0])
    metric = str(rows.loc[rows["kind"] == kind, "metric"].iloc[0])
    return gain_figures.gains(run, kind, metric)
