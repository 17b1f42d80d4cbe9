"""The section about what a model draws: distances over time, classes before and after, and pictures."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from fedsim import views
from fedsim.quantities import number, percent
from fedsim.report import figures
from fedsim.report.parts import Picture, Section, Table
from fedsim.run import Run

SPLIT = "samples"
SHARE = "share of "


def sections(run: Run) -> list[Section]:
    """Return the section if the run drew anything, else nothing."""
    found = pictures(run.folder)
    metric = views.headline(run, SPLIT)
    if not found and metric is None:
        return []
    title = "What the model draws"
    if metric is None:
        return [Section("samples", title, ["Nothing looked at the samples but you."], pictures=found)]
    facts: dict[str, Any] = run.info.get("task", {})
    return [
        Section(
            "samples",
            title,
            [sentence(run, metric), how(facts, run.info.get("seed"))],
            figures.progress(run, metric),
            f"{metric} of samples against virtual time, commits and everything uploaded so far. Less is better.",
            tables=_shares(run),
            pictures=found,
        )
    ]


def sentence(run: Run, metric: str) -> str:
    """Return by how much the distance to the real images moved."""
    curve = views.scored(run, metric, SPLIT)["value"]
    first, last = number(curve.iloc[0]), number(curve.iloc[-1])
    if len(curve) < 2:
        return f"{metric} between samples and the clients' images is {last}; it was taken once."
    verb = "rose" if curve.iloc[-1] > curve.iloc[0] else "fell"
    known = f"{metric} of test images"
    text = f"{metric} between samples and the clients' images {verb} from {first} to {last}"
    if known not in set(run.scores["metric"]):
        return f"{text}."
    real = views.scored(run, known, SPLIT)["value"].iloc[0]
    return f"{text}; that of {run.info['task']['test_images']:,} real test images is {number(real)}."


def how(facts: dict[str, Any], seed: Any) -> str:
    """Return what a distance rests on: without it, two distances cannot be compared."""
    return (
        f"N = {facts.get('samples', 0):,} samples against {facts.get('reference_images', 0):,} real images, "
        f"{facts.get('sampler', '')}, seed {seed}; features of {facts.get('extractor', '')}, images {facts.get('resize', '')}. "
        "Distances are comparable at equal N and extractor only; the Frechet distance is biased upward, the "
        "kernel distance (KID, mean over subsets of 50) is not."
    )


def _shares(run: Run) -> list[Table]:
    """Return the share of each class among the samples, before and at the end."""
    rows = []
    names = run.scores.loc[run.scores["split"] == SPLIT, "metric"].unique()
    for name in (str(n) for n in names if str(n).startswith(SHARE)):
        curve = views.scored(run, name, SPLIT)["value"]
        rows.append((name.removeprefix(SHARE), percent(curve.iloc[0]), percent(curve.iloc[-1])))
    caption = "Share of the samples that a classifier takes for each class"
    return [Table(("", "before", "at the end"), rows, caption)] if rows else []


def pictures(folder: Path | None) -> list[Picture]:
    """Return the grids of a run folder, in the order in which they were hung."""
    listed = None if folder is None else folder / "samples" / "samples.json"
    if listed is None or not listed.is_file():
        return []
    found = []
    for entry in json.loads(listed.read_text(encoding="utf-8")):
        raw = (listed.parent / entry["file"]).read_bytes()
        source = f"data:image/png;base64,{base64.b64encode(raw).decode()}"
        found.append(Picture(source, entry["caption"]))
    return found
