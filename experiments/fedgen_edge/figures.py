"""The figures of README.md, parts (b) to (f): rounds.png, personal.png, drift.png and costs.png, each if its CSV has runs for it.

python experiments/fedgen_edge/figures.py
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.arrays import Floats
from fedsim.records.statistics import mean_interval

HERE = Path(__file__).parent
TEXTS = ("PTB iid", "plays by role", "plays dealt anew")
AXES: Mapping[str, tuple[str, float, float | None]] = {
    "version": ("rounds", 1.0, None),
    "up_bytes": ("GB uploaded", 1e9, 0.01),
    "time_s": ("virtual hours", 3600.0, 0.01),
    "joules": ("kJ", 1e3, 0.5),
}
"""Column of curves.csv -> what it is called, its unit, and from where on its axis is logarithmic."""
ENDS: Mapping[str, tuple[str, str]] = {
    "personal": ("own", "own perplexity"),
    "rank": ("last", "perplexity"),
    "epochs": ("last", "perplexity"),
}
"""Study -> what it ends with, and what that is called."""
COSTS: Mapping[str, tuple[str, float]] = {
    "up_bytes": ("GB uploaded", 1e9),
    "hours": ("virtual hours", 1.0),
    "joules": ("kJ", 1e3),
}
MODELS = {"LoRA": "C0", "full": "C3"}
Tables = Mapping[str, Any]


def panels_of(rows: int, labels: Sequence[str], height: float) -> tuple[Figure, Any]:
    """Return a figure and its panels, shape (rows, labels): a label is that of a column's x axis."""
    figure = Figure(figsize=(14, height * rows), layout="constrained")
    panels = figure.subplots(rows, len(labels), sharey="row", squeeze=False)
    for row_of_panels in panels:
        for label, ax in zip(labels, row_of_panels, strict=True):
            ax.set_xlabel(label)
            ax.grid(visible=True, alpha=0.3)
    return figure, panels


def rounds(tables: Tables) -> None:
    """Draw perplexity over rounds, bytes, time and joules, a line a seed."""
    lines: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in tables["beside"]("curves.csv"):
        if row["study"] == "rounds":
            lines.setdefault((row["way"], row["seed"]), []).append(row)
    texts = [text for text in TEXTS if any(way.endswith(f", {text}") for way, _ in lines)]
    if not texts:
        return
    figure, panels = panels_of(len(texts), [label for label, *_ in AXES.values()], 3.2)
    for text, row_of_panels in zip(texts, panels, strict=True):
        for (x, (_, unit, least)), ax in zip(AXES.items(), row_of_panels, strict=True):
            for (way, seed), points in lines.items():
                model = way.partition(",")[0]
                if way == f"{model}, {text}" and model in MODELS:
                    at = [float(point[x]) / unit for point in points]
                    values = [float(point["value"]) for point in points]
                    ax.plot(
                        at,
                        values,
                        marker="o",
                        markersize=3,
                        color=MODELS[model],
                        label=model if seed == "0" else None,
                    )
            if least is not None:
                ax.set_xscale("symlog", linthresh=least)
        row_of_panels[0].set_ylabel(f"perplexity, {text}")
    panels[0][0].legend(fontsize=8)
    figure.savefig(HERE / "rounds.png", dpi=100)


def personal(tables: Tables) -> None:
    """Draw the gains of all clients, sorted, over the shared model."""
    people = tables["people"]()
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax, drawn = figure.subplots(), False
    for way in tables["ways"]("personal"):
        seeds = [seed for name, seed in people if name == way and ("fine-tune", seed) in people]
        gains = np.sort([gain for seed in seeds for gain in tables["gains"](way, seed)[0]])
        if gains.size:
            ax.plot(np.linspace(0, 100, gains.size), gains, label=way)
            drawn = True
    if not drawn:
        return
    ax.axhline(0, color="0.4", linewidth=0.8)
    ax.set_xlabel("% of clients")
    ax.set_ylabel("gain over the shared model, %")
    ax.grid(visible=True, alpha=0.3)
    ax.legend(fontsize=8)
    figure.savefig(HERE / "personal.png", dpi=100)


def drift(tables: Tables) -> None:
    """Draw perplexity and cosine over local epochs, and perplexity over rank, with intervals."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    drawn = [
        over(tables, ax, "epochs", measure, f", {dealt}", label=dealt)
        for ax, measure in ((left, "last"), (middle, "cosine"))
        for dealt in ("by role", "dealt anew")
    ]
    drawn.append(over(tables, right, "rank", "last", "", label="by role"))
    if not any(drawn):
        return
    for ax, x, y in (
        (left, "local epochs", "perplexity"),
        (middle, "local epochs", "cosine"),
        (right, "rank", "perplexity"),
    ):
        ax.set_xscale("log", base=2)
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        ax.grid(visible=True, alpha=0.3)
        ax.set_visible(ax.has_data())  # what has not run yet is left blank
    if left.has_data():
        left.legend(fontsize=8)
    figure.savefig(HERE / "drift.png", dpi=100)


def over(tables: Tables, ax: Axes, study: str, measure: str, ending: str, *, label: str) -> bool:
    """Draw a measure over the number in the names of a study's ways; tells whether there was any."""
    points: list[tuple[int, Sequence[float]]] = []
    for way in tables["ways"](study):
        values = [row.get(measure, math.nan) for row in tables["of"](study, way)]
        if way.endswith(ending) and values:
            points.append((int("".join(filter(str.isdigit, way))), values))
    if not points:
        return False
    at, found = [x for x, _ in points], [mean_interval(values) for _, values in points]
    low = [max(0.0, i.mean - i.low) if i.n > 1 else 0.0 for i in found]
    high = [max(0.0, i.high - i.mean) if i.n > 1 else 0.0 for i in found]
    ax.errorbar(
        at, [i.mean for i in found], yerr=[low, high], marker="o", markersize=4, capsize=3, label=label
    )
    return True


def costs(tables: Tables) -> None:
    """Draw where the ways of (c) to (e) end against what they cost: a small mark a seed, a large one at the mean."""
    ends = {study: {name: ended(tables, study, name) for name in COSTS} for study in ENDS}
    studies = [study for study in ENDS if all(ends[study].values())]
    if not studies:
        return
    figure, panels = panels_of(len(studies), [label for label, _ in COSTS.values()], 3.6)
    for study, row_of_panels in zip(studies, panels, strict=True):
        for column, ax in zip(COSTS, row_of_panels, strict=True):
            for way, points in ends[study][column].items():
                at, few = tables["charged"](study).index(way), points.shape[1] < 3
                look = {"color": f"C{at}", "marker": "osD^vP*X"[at % 8], "linestyle": ""}
                ax.plot(*points, **look, markersize=3, alpha=0.5)
                ax.plot(
                    *points.mean(axis=1, keepdims=True),
                    **look,
                    label=f"{way}, n = {points.shape[1]}" if few else way,
                )
        row_of_panels[0].set_ylabel(f"{ENDS[study][1]}, {study}")
        row_of_panels[-1].legend(fontsize=7)
    figure.savefig(HERE / "costs.png", dpi=100)


def ended(tables: Tables, study: str, column: str) -> dict[str, Floats]:
    """Return what each run of a way cost, and where it ended, shape (2, seeds); of ways of which both are known."""
    found = {}
    for way in tables["charged"](study):
        rows = tables["of"](study, way)
        points = np.array([[row.get(name, math.nan) for row in rows] for name in (column, ENDS[study][0])])
        if points.size and not np.isnan(points).any():
            found[way] = points / [[COSTS[column][1]], [1.0]]
    return found


def main() -> None:
    """Draw what there is."""
    tables = runpy.run_path(str(HERE / "tables.py"))
    for draw in (rounds, personal, drift, costs):
        draw(tables)


if __name__ == "__main__":
    main()
