"""Print the tables of README.md from run folders, and draw distances.png: `python experiments/cifar10/table.py runs/cifar10-*`.

Needs the extra `notebooks` for the figure.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import fedsim
from fedsim import views
from fedsim.metrics.direction import SAMPLES_DRAWN
from fedsim.report.gallery_section import kernel

SPLIT = "samples"
LAST = 3
"""Scores at the end of a run that are averaged."""
AXES = {
    "version": ("commits", 1.0),
    "time_s": ("virtual time [h]", 3600.0),
    "up_bytes": ("uploaded [GB]", 1e9),
}


def named(run: fedsim.Run) -> str:
    """Return the name of a run without the experiment's, and its seed if it is another than 0."""
    seed = run.info.seed
    return run.name.removeprefix("cifar10-") + (f", seed {seed}" if seed else "")


def row(run: fedsim.Run, time_s: float, up_bytes: float) -> list[str]:
    """Return the cells of one run: distances at the start, at equal time, at equal bytes, and over the last scores."""
    landed = float((run.visits.outcome == "landed").mean())
    cells = [
        named(run),
        str(len(run.commits)),
        str(len(run.visits)),
        f"{landed:.0%}",
        f"{run.visits.up_bytes.sum() / 1e9:.2f}",
    ]
    loss = views.scored(run, "loss")["value"]
    losses = f"{loss.iloc[0]:.4f} -> {loss.iloc[-1]:.4f}"
    metric = views.headline(run, SPLIT)
    if metric is None:
        return [*cells, *(["-"] * 6), losses]
    shares = views.scored(run, "share of the clients' classes", SPLIT)["value"]
    curve = views.scored(run, metric, SPLIT)
    other = views.scored(run, kernel(metric), SPLIT)["value"]
    drawn = views.scored(run, SAMPLES_DRAWN, SPLIT)["value"]

    def first(values: pd.Series, form: str) -> str:
        """Return the score of version 0, where as many images were drawn of it as of the last."""
        return f"{values.iloc[0]:{form}}" if drawn.iloc[0] == drawn.iloc[-1] else "-"

    def last(**budget: float) -> str:
        value = views.value_at(run, metric, split=SPLIT, **budget)
        return "–" if math.isnan(value) else f"{value:.0f}"

    return [
        *cells, first(curve["value"], ".0f"), last(time_s=time_s), last(up_bytes=up_bytes),
        lasting(curve["value"], ".0f"), f"{first(other, '.2f')} -> {lasting(other, '.2f')}",
        f"{first(shares, '.0%')} -> {shares.iloc[-1]:.0%}", losses,
    ]  # fmt: skip


def lasting(values: pd.Series, form: str) -> str:
    """Return the mean of the last scores and their range: one version is as good as the clients that made it."""
    last = values.iloc[1:].iloc[-LAST:]
    if len(last) < 2:
        return f"{values.iloc[-1]:{form}}"
    return f"{last.mean():{form}} ({last.min():{form}} to {last.max():{form}})"


def draw(runs: list[fedsim.Run], path: Path) -> None:
    """Draw Frechet and kernel distance against commits, virtual time and bytes; one line a run."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    rows = figure.subplots(2, len(AXES), sharey="row")
    for run in runs:
        frechet = views.headline(run, SPLIT) or ""
        for metric, panels in zip((frechet, kernel(frechet)), rows, strict=True):
            curve = views.scored(run, metric, SPLIT)
            for (axis, (label, unit)), panel in zip(AXES.items(), panels, strict=True):
                panel.plot(curve[axis] / unit, curve["value"], marker="o", markersize=3, label=named(run))
                panel.set_xlabel(label)
                if axis == "up_bytes":
                    panel.set_xscale("symlog", linthresh=0.01)
            panels[0].set_ylabel(metric)
    figure.legend(
        *rows[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small"
    )
    figure.savefig(path, dpi=110)


def main(folders: list[str]) -> None:
    """Print one row a run; equal time and equal bytes are the least that any run with a curve reached."""
    runs = [fedsim.load(folder) for folder in folders]
    curves = [
        run for run in runs if (run.scores["split"] == SPLIT).any() and len(views.scored(run, "loss")) > 2
    ]
    time_s = min((float(run.info.end_time_s) for run in curves), default=math.inf)
    up_bytes = min((float(run.visits.up_bytes.sum()) for run in curves), default=math.inf)
    header = ["run", "commits", "visits", "landed", "GB up", "version 0", f"at {time_s / 3600:.1f} h"]
    header += [f"at {up_bytes / 1e9:.2f} GB", f"last {LAST}", f"KID, last {LAST}", "their classes", "loss"]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for run in runs:
        print("| " + " | ".join(row(run, time_s, up_bytes)) + " |")
    if curves:
        draw(curves, Path(__file__).parent / "distances.png")


if __name__ == "__main__":
    main(sys.argv[1:])
