"""The panels of a figure on paper: where they are, their axes, the legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import plotly.graph_objects as go
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MultipleLocator, NullLocator, PercentFormatter

from fedsim.report.printed.traces import Categories, bars, box, colour_of, fitting, plain, scatter
from fedsim.report.style import DASHES, INK

DRAWN = ("scatter", "bar", "box")
"""Kinds of traces that are drawn."""
LINES: Mapping[str | None, str] = MappingProxyType(
    dict(zip((None, *DASHES), ("-", "-", "--", ":", "-."), strict=True))
)
FONT_PT = 9
CHARACTERS = 110
"""Of the names in one line of a legend."""


@dataclass
class Panel:
    """One pair of axes.

    Attributes:
        x, y: Plotly's names of the axes, as in `x2`.
        traces: that are drawn here.
    """

    x: str
    y: str
    traces: list[go.Scatter]
    _axes: Axes | None = None

    @property
    def axes(self) -> Axes:
        """The axes of matplotlib, once the panel has its place."""
        assert self._axes is not None, "a panel over another one is drawn where that is"
        return self._axes

    def place(self, axes: Axes) -> None:
        """Give the panel its axes."""
        self._axes = axes

    def setting(self, figure: go.Figure, name: str) -> go.layout.XAxis:
        """Return Plotly's settings of the axis `x` or `y` of this panel."""
        number = (self.x if name == "x" else self.y)[1:]
        return figure.layout[f"{name}axis{number}"]


def draw(figure: go.Figure, paper: Figure) -> None:
    """Draw a Plotly figure on paper."""
    panels = _panels(figure, paper)
    handles: dict[str, Artist] = {}
    for panel in panels:
        names = {name: Categories.of(panel.traces, panel.setting(figure, name), name) for name in ("x", "y")}
        handles |= _traces(figure, panel, names)
        for name in ("x", "y") if panel.setting(figure, "y").overlaying is None else ("y",):
            _axis(panel, panel.setting(figure, name), name, names[name])
        _shapes(figure, panel)
    if figure.layout.showlegend:
        _legend(figure, paper, handles)
    fitting(paper)


def _panels(figure: go.Figure, paper: Figure) -> list[Panel]:
    """Lay the panels out as Plotly does: a column for each part of the width, a row for each part of the height."""
    pairs = list(dict.fromkeys((trace.xaxis or "x", trace.yaxis or "y") for trace in figure.data))
    panels = [
        Panel(x, y, [t for t in figure.data if (t.xaxis or "x", t.yaxis or "y") == (x, y)]) for x, y in pairs
    ]
    below = [panel for panel in panels if panel.setting(figure, "y").overlaying is None]
    spans = [[_span(panel.setting(figure, name).domain) for name in ("x", "y")] for panel in below]
    columns = sorted({x for x, _ in spans})
    rows = sorted({y for _, y in spans}, reverse=True)
    grid = paper.add_gridspec(
        max(1, len(rows)),
        max(1, len(columns)),
        width_ratios=[stop - start for start, stop in columns] or None,
        height_ratios=[stop - start for start, stop in rows] or None,
    )
    for panel, (x, y) in zip(below, spans, strict=True):
        panel.place(paper.add_subplot(grid[rows.index(y), columns.index(x)]))
    _share(figure, below)
    for panel in panels:
        for base in below:
            if panel.setting(figure, "y").overlaying == base.y and panel.x == base.x:
                panel.place(base.axes.twinx())
    return panels


def _span(domain: Sequence[float] | None) -> tuple[float, float]:
    start, stop = domain or (0.0, 1.0)
    return (float(start), float(stop))


def _share(figure: go.Figure, panels: list[Panel]) -> None:
    """Give axes that match another one its limits."""
    for name in ("x", "y"):
        named = {panel.x if name == "x" else panel.y: panel.axes for panel in panels}
        for panel in panels:
            matched = named.get(panel.setting(figure, name).matches)
            if matched is not None and matched is not panel.axes:
                (panel.axes.sharex if name == "x" else panel.axes.sharey)(matched)


def _traces(figure: go.Figure, panel: Panel, names: Mapping[str, Categories]) -> dict[str, Artist]:
    """Draw the traces of a panel; returns what stands in the legend, by name."""
    shown: dict[str, Artist] = {}
    before: go.Scatter | None = None
    bars_here = [trace for trace in panel.traces if trace.type == "bar"]
    drawn_bars = iter(bars(panel.axes, bars_here, figure.layout, names))
    for trace in panel.traces:
        handle: Artist | None
        if trace.type == "bar":
            handle = next(drawn_bars)
        elif trace.type == "box":
            handle = box(panel.axes, trace, names)
        else:
            handle = scatter(panel.axes, trace, before, names, LINES)
            before = trace
        if handle is not None and trace.showlegend is not False and trace.name:
            shown.setdefault(plain(trace.name), handle)
    return shown


def _axis(panel: Panel, settings: go.layout.XAxis, name: str, categories: Categories) -> None:
    axes = panel.axes
    axis = axes.xaxis if name == "x" else axes.yaxis
    limits = axes.set_xlim if name == "x" else axes.set_ylim
    axis.set_visible(settings.visible is not False)
    if settings.type == "log":
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        axis.set_minor_locator(NullLocator())
    if categories.words:
        axis.set_major_locator(FixedLocator(range(len(categories.words))))
        axis.set_major_formatter(FixedFormatter([plain(word) for word in categories.words]))
        limits(-0.6, len(categories.words) - 0.4)
    elif settings.tickvals is not None:
        axis.set_major_locator(FixedLocator(list(settings.tickvals)))
        axis.set_major_formatter(FixedFormatter([plain(str(word)) for word in settings.ticktext]))
    elif settings.tickformat == ".0%":
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if settings.dtick and settings.type != "log" and not categories.words:
        axis.set_major_locator(MultipleLocator(float(settings.dtick)))
    if settings.range is not None:
        low, high = (
            10.0 ** float(edge) if settings.type == "log" else float(edge) for edge in settings.range
        )
        limits(low, high)
    elif settings.rangemode == "tozero" and not categories.words:
        limits(*_to_zero(axes.get_xlim() if name == "x" else axes.get_ylim()))
    if settings.title.text:
        axis.set_label_text(plain(settings.title.text), fontsize=FONT_PT)
    if settings.showticklabels is False:
        axis.set_tick_params(labelleft=False, labelbottom=False)
    _paint(axes, name, grid=not categories.words and settings.overlaying is None)


def _to_zero(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    return (min(0.0, low), max(0.0, high)) if low * high > 0 else (low if low < -0.06 * high else 0.0, high)


def _paint(axes: Axes, name: str, *, grid: bool) -> None:
    """Give axes the look that our Plotly figures have."""
    axes.tick_params(labelsize=FONT_PT - 1, length=0, colors=INK)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9AA5B1")
    if grid:
        (axes.xaxis if name == "x" else axes.yaxis).grid(visible=True, color="#E4E8EE", linewidth=0.8)


def _shapes(figure: go.Figure, panel: Panel) -> None:
    """Draw vertical and horizontal lines through a whole panel."""
    for shape in figure.layout.shapes:
        if shape.type != "line":
            continue
        for ends, reference, own, draw_line in (
            ((shape.x0, shape.x1), shape.xref, panel.x, panel.axes.axvline),
            ((shape.y0, shape.y1), shape.yref, panel.y, panel.axes.axhline),
        ):
            if reference == own and ends[0] == ends[1]:
                draw_line(
                    float(ends[0]),
                    color=colour_of(shape.line.color or INK),
                    linewidth=0.75 * (shape.line.width or 2),
                    linestyle=LINES[shape.line.dash],
                    alpha=1.0 if shape.opacity is None else shape.opacity,
                )


def _legend(figure: go.Figure, paper: Figure, handles: Mapping[str, Artist]) -> None:
    if not handles:
        return
    items = list(handles.items())
    if figure.layout.legend.traceorder == "reversed":
        items.reverse()
    longest = max(len(name) for name, _ in items) + 8
    paper.legend(
        [handle for _, handle in items],
        [name for name, _ in items],
        loc="outside upper left",
        ncols=max(1, min(len(items), math.floor(CHARACTERS / longest))),
        frameon=False,
        fontsize=FONT_PT - 1,
        handlelength=1.6,
    )
