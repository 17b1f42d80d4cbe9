"""The figure of README.md: every fifth's loss, updates and joules by server, of runs.csv.

python experiments/slow/figures.py
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
TABLES = runpy.run_path(str(HERE / "tables.py"))


def draw(path: Path) -> None:
    """Draw what every fifth loses against a dealing by lot, its updates and its joules: a row a server."""
    servers: Mapping[str, str] = TABLES["SERVERS"]
    fifths, over_seeds = TABLES["FIFTHS"], TABLES["over_seeds"]
    found = TABLES["derived"](TABLES["read"]())
    ways = [way for way in servers if TABLES["seeds"](found, way)]
    if not ways:
        return
    figure = Figure(figsize=(12, 1.6 + 0.42 * len(ways)), layout="constrained")
    titles = {
        "excess": "perplexity on its own text,\nagainst text dealt by lot [%]",
        "updates": "share of the updates [%]",
        "joules": "share of the joules [%]",
    }
    for ax, (kind, title) in zip(figure.subplots(1, 3, sharey=True), titles.items(), strict=True):
        values = np.array([[over_seeds(found, way, f"{kind}_{f}").mean for f in fifths] for way in ways])
        most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
        low, colours = (-most, "RdBu_r") if kind == "excess" else (0.0, "Greys")
        ax.imshow(values, cmap=colours, vmin=low, vmax=most, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            text = "–" if math.isnan(value) else f"{value:+.1f}" if kind == "excess" else f"{value:.0f}"
            colour = "w" if abs(value) > 0.6 * most else "k"
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
        ax.set_xticks(range(5), TABLES["SPEEDS"], fontsize=8)
        ax.set_yticks(range(len(ways)), [servers[way] for way in ways], fontsize=9)
        ax.set_title(title, fontsize=10)
    figure.supxlabel("fifth of the devices by the time that a visit takes", fontsize=9)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(HERE / "slow.png")
