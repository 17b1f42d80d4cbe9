"""How every figure looks: colours, type, margins, axes.

Colours are those of Okabe and Ito, which people with any common colour blindness can tell apart.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fedsim.records import quantities

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY, INK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#9AA0A6",
    "#1F2933",
)
ENDINGS = {
    "landed": ("landed", GREEN),
    "committed": ("committed", GREEN),
    "uncommitted": ("landed, not used", "#8FD3BD"),
    "offline": ("went offline", ORANGE),
    "memory": ("out of memory", RED),
    "late": ("after the deadline", PURPLE),
    "surplus": ("surplus", SKY),
    "rejected": ("rejected", "#5B4B8A"),
    "stale": ("too stale", "#8C564B"),
    "polled": ("polled only", "#B8A100"),
    "failed": ("failed", INK),
    "in_flight": ("in flight at the end", "#C9CED6"),
}
"""What a visit became -> the words and the colour for it, the same in every figure."""
RUN_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, INK)
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
        paper_bgcolor="white",
        plot_bgcolor="white",
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
        },
        hoverlabel={"font": {"family": FONT}},
        bargap=0.28,
        uniformtext={"minsize": 11, "mode": "hide"},  # a number that does not fit stands in the table only
    )
    axis = {
        "gridcolor": "#E4E8EE",
        "zeroline": False,
        "linecolor": "#9AA5B1",
        "ticks": "",
        "automargin": True,
    }
    figure.update_xaxes(**axis, title_standoff=10, title_font_size=13)
    figure.update_yaxes(**axis, title_standoff=10, title_font_size=13)
    return figure


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
