"""Lines, bars and boxes of a Plotly figure, drawn into axes of matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from fedsim.report.style import INK

Numbers: TypeAlias = npt.NDArray[np.float64]
Colour: TypeAlias = str | tuple[float, float, float, float]
PT_PER_PX = 0.75
MARKERS: Mapping[str | None, str] = MappingProxyType(
    {
        None: "o",
        "circle": "o",
        "square": "s",
        "diamond": "D",
        "triangle-up": "^",
        "x": "X",
        "cross": "P",
        "star": "*",
        "pentagon": "p",
    }
)
"""Plotly's symbols and matplotlib's."""
BAND = 0.2
"""Opacity of what is filled between two curves."""
NUMBER_PT = 7.5
INSIDE, OUTSIDE = "fedsim inside", "fedsim outside"
"""Marks of the numbers on bars."""


def plain(text: str) -> str:
    r"""Return a text that matplotlib shows as it is: no formula, no name that a legend passes over.

    >>> plain("a $5 phone"), len(plain("_hidden"))
    ('a \\$5 phone', 8)
    """
    escaped = text.replace("$", r"\$")
    return f"\u200b{escaped}" if escaped.startswith("_") else escaped


def colour_of(text: str | None) -> Colour:
    """Return a colour of Plotly as matplotlib takes it; matplotlib's first one where none is given.

    >>> colour_of("#0072B2"), colour_of("rgba(0, 51, 255, 0.2)")
    ('#0072B2', (0.0, 0.2, 1.0, 0.2))
    """
    if text is None:
        return "C0"
    if not text.startswith("rgb"):
        return text
    red, green, blue, *opacity = (float(part) for part in text[text.index("(") + 1 : -1].split(","))
    return (red / 255, green / 255, blue / 255, opacity[0] if opacity else 1.0)


@dataclass(frozen=True)
class Categories:
    """The words along an axis, in their order from its zero; none on an axis of numbers."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, traces: Sequence[go.Scatter], settings: go.layout.XAxis, name: str) -> Categories:
        """Return the words of an axis `x` or `y`: in the order that its settings give, then as they come."""
        words: list[str] = []
        for trace in traces:
            if trace.type == "box":
                along = [trace.name] if (name == "y") == (trace.orientation == "h") else []
            else:
                along = [*((trace.x if name == "x" else trace.y) or ())]
            words += [value for value in along if isinstance(value, str)]
        first = (settings.categoryarray or ()) if words else ()
        return cls(tuple(dict.fromkeys([*first, *words])))

    def places(self, values: Sequence[str | float] | Numbers) -> Numbers:
        """Return where values are along the axis."""
        if self.words:
            place = {word: float(i) for i, word in enumerate(self.words)}
            return np.array([place[str(value)] for value in values])
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def scatter(
    axes: Axes,
    trace: go.Scatter,
    before: go.Scatter | None,
    names: Mapping[str, Categories],
    lines: Mapping[str | None, str],
) -> Artist:
    """Draw a curve, points, or the band down to the curve before; returns what the legend shows."""
    x, y = names["x"].places(trace.x), names["y"].places(trace.y)
    mode = trace.mode or "lines"
    if trace.fill == "tonexty" and before is not None:
        step: Literal["post"] | None = "post" if trace.line.shape == "hv" else None
        below = names["y"].places(before.y)
        axes.fill_between(x, y, below, step=step, color=colour_of(trace.line.color), alpha=BAND, linewidth=0)
    width = 2.0 if trace.line.width is None else float(trace.line.width)
    drawn = "lines" in mode and width > 0
    marked = "markers" in mode
    colour = trace.line.color if drawn and trace.line.color else trace.marker.color
    if not drawn and not marked:
        return Line2D([], [])
    (line,) = axes.plot(
        x,
        y,
        linestyle=lines[trace.line.dash] if drawn else "none",
        drawstyle="steps-post" if trace.line.shape == "hv" else "default",
        linewidth=PT_PER_PX * width,
        marker=MARKERS.get(trace.marker.symbol, "o") if marked else "none",
        markersize=PT_PER_PX * float(trace.marker.size or 6),
        color=None if colour is None else colour_of(colour),
        alpha=trace.marker.opacity if marked and not drawn else trace.opacity,
        markeredgewidth=0,
    )
    return line


def bars(
    axes: Axes, traces: Sequence[go.Bar], layout: go.Layout, names: Mapping[str, Categories]
) -> Iterator[Artist]:
    """Draw the bars of a panel, on top of each other, side by side or over each other; yields what the legend shows."""
    mode = layout.barmode or "group"
    wide = 1.0 - float(layout.bargap or 0.2)
    tops: dict[float, float] = {}
    for number, trace in enumerate(traces):
        flat = trace.orientation == "h"
        along, size = (trace.y, trace.x) if flat else (trace.x, trace.y)
        place = names["y" if flat else "x"].places(along)
        lengths = np.asarray(size, dtype=np.float64)
        thick = wide * _step(place)
        if trace.width is not None:
            thick = float(np.min(trace.width))
        elif mode == "group":
            thick /= len(traces)
            place = place + thick * (number - (len(traces) - 1) / 2)
        begin = np.zeros(len(place)) if trace.base is None else np.asarray(trace.base, dtype=np.float64)
        if mode == "stack":
            begin = np.array([tops.get(float(at), 0.0) for at in place])
            tops |= {
                float(at): float(top) for at, top in zip(place, begin + np.nan_to_num(lengths), strict=True)
            }
        yield _bar(axes, trace, (place, begin, lengths), thick, flat=flat)


def _step(place: Numbers) -> float:
    """Return the distance of two bars that are neighbours."""
    apart = np.diff(np.unique(place))
    return float(apart.min()) if len(apart) else 1.0


def _bar(
    axes: Axes, trace: go.Bar, where: tuple[Numbers, Numbers, Numbers], thick: float, *, flat: bool
) -> Artist:
    place, begin, lengths = where
    given = trace.marker.color
    colours = [colour_of(each) for each in (given if isinstance(given, tuple | list) else [given])]
    colours *= len(place) if len(colours) == 1 else 1
    edge = colour_of(trace.marker.line.color or "none")
    line = PT_PER_PX * float(trace.marker.line.width or 0)
    if flat:
        drawn = axes.barh(place, lengths, height=thick, left=begin, color=colours, linewidth=line)
    else:
        drawn = axes.bar(place, lengths, width=thick, bottom=begin, color=colours, linewidth=line)
    pattern = trace.marker.pattern.shape
    hatch = 2 * pattern if isinstance(pattern, str) else ""
    for patch in drawn.patches:
        patch.set_edgecolor(edge)
        patch.set_hatch(hatch)
    words = [] if trace.text is None else list(trace.text)
    for patch, word in zip(drawn.patches, words, strict=False):
        if word:
            inside = trace.textposition == "inside"
            ink = trace.insidetextfont.color if inside else None
            _number(
                axes, patch, plain(str(word)), ink or trace.textfont.color or INK, flat=flat, inside=inside
            )
    first = colours[0] if colours else colour_of(None)
    return Patch(facecolor=first, edgecolor=edge, hatch=hatch, linewidth=0)


def _number(axes: Axes, patch: Rectangle, word: str, ink: str, *, flat: bool, inside: bool) -> None:
    """Write a number on a bar, or at its end."""
    left, low, wide, high = patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()
    middle = (left + wide / 2, low + high / 2)
    end = (left + wide, middle[1]) if flat else (middle[0], low + high)
    text = axes.annotate(
        word,
        middle if inside else end,
        xytext=(0, 0) if inside else ((3, 0) if flat else (0, 2)),
        textcoords="offset points",
        ha="center" if inside or not flat else "left",
        va="center" if inside or flat else "bottom",
        fontsize=NUMBER_PT,
        color=colour_of(ink),
        annotation_clip=False,
    )
    if inside and patch.get_hatch():  # hatching stops around a number
        text.set_bbox({"facecolor": patch.get_facecolor(), "edgecolor": "none", "pad": 1.0})
    text.set_gid(INSIDE if inside else OUTSIDE)
    patch.set_gid(INSIDE if inside else OUTSIDE)


def box(axes: Axes, trace: go.Box, names: Mapping[str, Categories]) -> Artist:
    """Draw a box of values, or of quartiles that are given."""
    flat = trace.orientation == "h"
    at = float(names["y" if flat else "x"].places([trace.name])[0])
    if trace.q1 is not None:
        stats = {
            "q1": trace.q1[0],
            "med": trace.median[0],
            "q3": trace.q3[0],
            "whislo": trace.lowerfence[0],
            "whishi": trace.upperfence[0],
            "fliers": [],
        }
    else:
        (stats,) = boxplot_stats(np.asarray(trace.x if flat else trace.y, dtype=np.float64))
    colour = trace.marker.color
    line = {"color": colour, "linewidth": 1.2}
    axes.bxp(
        [{**stats, "label": ""}],
        positions=[at],
        widths=0.5,
        orientation="horizontal" if flat else "vertical",
        manage_ticks=False,
        boxprops=line,
        medianprops=line,
        whiskerprops=line,
        capprops=line,
        flierprops={"marker": "o", "markersize": 2.5, "markerfacecolor": colour, "markeredgewidth": 0},
    )
    return Patch(color=colour)


def fitting(paper: Figure) -> None:
    """Hide numbers that are wider than the bars they stand on."""
    paper.canvas.draw()
    renderer = paper.canvas.get_renderer()  # type: ignore[attr-defined]
    for axes in paper.axes:
        patches = [patch for patch in axes.patches if patch.get_gid() == INSIDE]
        texts = [text for text in axes.texts if text.get_gid() == INSIDE]
        for patch, text in zip(patches, texts, strict=True):
            room, needed = patch.get_window_extent(renderer), text.get_window_extent(renderer)
            text.set_visible(needed.width <= room.width and needed.height <= room.height)
