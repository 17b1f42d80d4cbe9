"""How every figure looks: colours, type, margins, axes.

Lines and fills have a contrast of 3 and more with the page, light or dark, and the colours of runs are 15 and more apart (CIE76)
for people with normal, deuteranopic and protanopic sight (`tests/spec/report/test_colours.py`). Where more than a few stand
beside each other, patterns, symbols and dashes tell them apart as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fedsim.records import quantities

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY, INK = (
    "#0072B2",
    "#CB8400",
    "#2B9470",
    "#B8431F",
    "#A83E86",
    "#3D9AD8",
    "#8A929C",
    "#1F2933",
)
PAPER, RULE, AXIS = "white", "#E4E8EE", "#9AA5B1"
ON_LIGHT, ON_DARK = "#111827", "#FFFFFF"
"""Of words on a bar: on a light and on a dark one; the same in a dark page, as bars are."""
DARK: Mapping[str, str] = {
    PAPER: "#14191F",
    INK: "#E6EBF1",
    RULE: "#2B333D",
    AXIS: "#66727F",
}
"""Colour of a figure -> what it is in a dark page; the others stay."""
ENDINGS = {
    "landed": ("landed", GREEN),
    "committed": ("committed", GREEN),
    "uncommitted": ("landed, not used", GREEN),
    "offline": ("went offline", ORANGE),
    "memory": ("out of memory", RED),
    "late": ("after the deadline", "#C774AC"),
    "surplus": ("surplus", SKY),
    "rejected": ("rejected", "#7563B0"),
    "stale": ("too stale", "#9A5F52"),
    "polled": ("polled only", "#8F8700"),
    "failed": ("failed", "#5C6672"),
    "in_flight": ("in flight at the end", GREY),
}
"""What a visit became -> the words and the colour for it, the same in every figure."""
PATTERNS = {
    "uncommitted": ".",
    "offline": "/",
    "memory": "x",
    "late": "\\",
    "surplus": "-",
    "rejected": "+",
    "stale": "|",
    "polled": ".",
    "failed": "x",
    "in_flight": "/",
}
"""What a visit became -> how its bars are hatched; those without are plain."""
RUN_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, INK)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot")
AXIS_WORDS = {
    "time_s": ("virtual time", "time_s"),
    "up_bytes": ("uploaded", "bytes"),
    "joules": ("energy of the devices", "joules"),
    "version": ("commits", None),
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


MOST_POINTS = 1000
"""Points of a curve that are drawn."""


def style(figure: go.Figure, height: int, *, legend: bool = False, bottom: int = 52) -> go.Figure:
    """Give every figure the same paper, type and margins; a legend stands above the plot, at the left."""
    top = 44 if legend else 16
    figure.update_layout(
        template="none",
        autosize=True,
        height=height + top,
        margin={"l": 64, "r": 28, "t": top, "b": bottom},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font={"family": FONT, "size": 13, "color": INK},
        showlegend=legend,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "yref": "paper",
            "traceorder": "normal",
            "font": {"size": 12},
            "maxheight": 2000,  # of a narrow page; else it scrolls over the plot
        },
        hoverlabel={"font": {"family": FONT}},
        bargap=0.28,
        uniformtext={"minsize": 11, "mode": "hide"},  # a number that does not fit stands in the table only
    )
    axis = {
        "gridcolor": RULE,
        "zeroline": False,
        "linecolor": AXIS,
        "ticks": "",
        "automargin": True,
    }
    figure.update_xaxes(**axis, title_standoff=10, title_font_size=13)
    figure.update_yaxes(**axis, title_standoff=10, title_font_size=13)
    return figure


def hatched(colour: str, outcome: str) -> dict[str, Any]:
    """Return how a bar of visits that ended in some way is filled: colour, hatching, an edge of the page's colour."""
    pattern = {
        "shape": PATTERNS.get(outcome, ""),
        "fgcolor": words_on(colour),
        "fgopacity": 0.5,
        "fillmode": "overlay",
        "size": 6,
        "solidity": 0.14,
    }
    return {"color": colour, "pattern": pattern, "line": {"color": PAPER, "width": 1}}  # fmt: skip


def faint(colour: str) -> str:
    """Return a colour through which another one is seen.

    >>> faint("#0072B2")
    'rgba(0, 114, 178, 0.2)'
    """
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.2)"


def words_on(colour: str) -> str:
    """Return the colour of words on a bar: dark or light, whichever is easier to read there.

    >>> words_on("#0072B2"), words_on("#CB8400")
    ('#FFFFFF', '#111827')
    """
    return ON_DARK if contrast(colour, ON_DARK) > contrast(colour, ON_LIGHT) else ON_LIGHT


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21.

    Source: Web Content Accessibility Guidelines 2.2, "contrast ratio" and "relative luminance".

    >>> round(contrast("#FFFFFF", "#000000"), 3)
    21.0
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def axis_of(x: str, largest: float) -> tuple[float, str]:
    """Return what to divide by and the title of an axis, in a unit that suits its largest value."""
    words, kind = AXIS_WORDS[x]
    if kind is None:
        return 1.0, words
    step = quantities.scale(kind, largest)
    return step.divisor, f"{words} [{step.unit}]"


def logarithmic(values: Any) -> dict[str, Any]:
    """Return the settings of a logarithmic axis with plain ticks at 1, 2 and 5 times powers of ten."""
    positive = np.asarray(values, dtype=float)
    positive = positive[positive > 0]
    if not len(positive):
        return {}
    low, high = math.log10(positive.min()), math.log10(positive.max())
    pad = 0.05 * (high - low) + 0.05
    pad += max(0.0, 0.8 - (high - low + 2 * pad)) / 2  # a factor of 6 has two ticks at least
    powers = range(int(np.floor(low - pad)), int(np.ceil(high + pad)) + 1)
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks = [step * 10.0**power for power in powers for step in steps]
    words = [f"{tick:,.12g}" for tick in ticks]
    axis_range = [low - pad, high + pad]
    return {"type": "log", "range": axis_range, "tickmode": "array", "tickvals": ticks, "ticktext": words}


def thinned(rows: pd.DataFrame, most: int = MOST_POINTS) -> pd.DataFrame:
    """Return rows evenly spread over a long table, its first and last one among them: a page has room for so many."""
    if len(rows) <= most:
        return rows
    return rows.iloc[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def listed(values: Any) -> list[Any]:
    """Plain numbers: Plotly would otherwise write arrays as base64, which nobody can read in the page."""
    numbers: list[Any] = np.asarray(values).tolist()
    return numbers
