"""The section about what a model draws: distances over time, classes before and after, and pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsim.errors import RunFolderError, message
from fedsim.files.opened import FACTS_BYTES, PICTURE_BYTES, bytes_of
from fedsim.metrics.direction import SAMPLES_DRAWN
from fedsim.records import views
from fedsim.records.comparisons import Budget, seeds_of, value_at
from fedsim.records.quantities import number, percent, said
from fedsim.records.run import Run
from fedsim.records.tables import UNREADABLE, first_line
from fedsim.report import figures
from fedsim.report.parts import Picture, Section, Table, plural
from fedsim.report.several.labels import Compared

SPLIT = "samples"
MOST_PICTURES = 100
PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of every file of that format."""
SHARE = "share of "
READING = "Distances of samples against virtual time, commits and everything uploaded so far. Less is better."


def sections(run: Run) -> list[Section]:
    """Return the section if the run drew anything, else nothing."""
    grids = pictures(run.folder)
    metric = views.headline(run, SPLIT)
    if not grids and metric is None:
        return []
    title = "What the model draws"
    if metric is None:
        return [Section("samples", title, ["Nothing looked at the samples but you."], pictures=grids)]
    facts = run.info.task
    return [
        Section(
            "samples",
            title,
            [sentence(run, metric), how(facts, seeds_of(run).data, drawn(run))],
            figures.samples([run], [run.name], [0], distances(run)),
            READING,
            tables=_shares(run),
            pictures=grids,
        )
    ]


def distances(run: Run) -> list[str]:
    """Return the names of the distances that a run scored its samples by: Frechet, kernel; of each extractor, the first one first."""
    metric = views.headline(run, SPLIT)
    known = list(dict.fromkeys(run.scores.loc[run.scores["split"] == SPLIT, "metric"]))
    names = [] if metric is None else [metric, kernel(metric)]
    for name in known:
        if name != metric and kernel(name) != name and kernel(name) in known:
            names += [name, kernel(name)]
    return [name for name in names if name in known]


def kernel(metric: str) -> str:
    """Return the name of the kernel distance beside a Frechet distance."""
    return metric.replace("FID", "KID").replace("FD(", "KID(")


def drawn(run: Run) -> list[int]:
    """Return how many samples were drawn at the first and at the last scored version."""
    if SAMPLES_DRAWN not in set(run.scores["metric"]):
        return []
    counts = views.scored(run, SAMPLES_DRAWN, SPLIT)["value"]
    return [int(counts.iloc[0]), int(counts.iloc[-1])]


def beside(c: Compared) -> list[Section]:
    """Return the distances of several runs beside each other, if some of them drew by one extractor."""
    eyes = [_extractor(run) for run in c.runs]
    first = next((eye for eye in eyes if eye), None)
    if first is None:
        return []
    chosen = [i for i, eye in enumerate(eyes) if eye == first]
    runs, labels = [c.runs[i] for i in chosen], [c.labels[i] for i in chosen]
    names = [name for name in distances(runs[0]) if all(name in distances(run) for run in runs)]
    curves = [[views.scored(run, name, SPLIT) for name in names] for run in runs]
    time_s, up_bytes = (min(float(each[0][axis].max()) for each in curves) for axis in ("time_s", "up_bytes"))
    budgets: tuple[Budget, ...] = ({"time_s": time_s}, {"up_bytes": up_bytes})
    rows, numbers = [], {count for run in runs for count in drawn(run)}
    for label, run, each in zip(labels, runs, curves, strict=True):
        cells = [f"{drawn(run)[-1]:,}" if drawn(run) else "–"]
        for name, curve in zip(names, each, strict=True):
            cells += [number(curve["value"].iloc[0])]
            for budget in budgets:
                cells += [number(value_at(run, name, split=SPLIT, **budget))]
            cells += [number(curve["value"].iloc[-1])]
        rows.append((label, *cells))
    header = ["run", "N"]
    for name in names:
        header += [name, f"at {said('time_s', time_s)}", f"at {said('bytes', up_bytes)} up", "at the end"]
    text = [how(runs[0].info.task, seeds_of(runs[0]).data, [])]
    if len(numbers) > 1:
        text.append(
            "The runs did not draw equally many samples everywhere: read Frechet distances at equal N only."
        )
    if len(chosen) < len(c.runs):
        text.append(f"{plural(len(c.runs) - len(chosen), 'run')} without this extractor left out.")
    figure = figures.samples(runs, labels, [c.groups[i] for i in chosen], names)
    caption = (
        "Distances of samples at version 0, when the shortest run ended, at equal uploads, and at the end"
    )
    tables = [Table(header, rows, caption)]
    return [Section("samples", "What the models draw", text, figure, READING, tables=tables)]


def _extractor(run: Run) -> tuple[str, str] | None:
    """Return what looked at a run's samples: the name of the distance, and the hash of the weights."""
    names = distances(run)
    return (names[0], str(run.info.task.get("extractor_sha256"))) if names else None


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
    return f"{text}; that of {run.info.task['test_images']:,} real test images is {number(real)}."


def how(facts: Mapping[str, Any], seed: Any, counts: list[int]) -> str:
    """Return what a distance rests on: without it, two distances cannot be compared.

    Args:
        facts: of the run's task.
        seed: of the noise.
        counts: samples of the first and of the last scored version; empty: as the task says.
    """
    counts = list(dict.fromkeys(counts)) or [facts.get("samples", 0)]
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} (at the end {counts[-1]:,})"
    return (
        f"N = {n} samples against {facts.get('reference_images', 0):,} real images, "
        f"{facts.get('sampler', '')}, seed {seed}; features of {facts.get('extractor', '')}, images {facts.get('resize', '')}. "
        "Distances are comparable at equal N and extractor only, and even then the "
        "Frechet distance is biased upward by an amount that depends on the model that draws (arXiv 1911.07023); the "
        "kernel distance (KID: the mean over subsets of 50; where clients have models of their own, that of all samples together, "
        "and before fedsim 0.8.4 the mean of each client's own) is not."
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
    if folder is None or listed is None or not listed.is_file():
        return []
    try:
        entries = json.loads(bytes_of(listed, FACTS_BYTES, folder=folder))
        if not isinstance(entries, list):
            raise TypeError("it is no list")
        return [_picture(folder, entry) for entry in entries[:MOST_PICTURES]]
    except (*UNREADABLE, AttributeError) as problem:
        what = f"is damaged ({first_line(problem)})"
        raise RunFolderError(message(str(listed), what, fix=f"remove {listed.parent}")) from problem


def _picture(folder: Path, entry: Mapping[str, Any]) -> Picture:
    """Return a grid that a list names; what is not a picture of this folder is none.

    Raises:
        ValueError: the name leads elsewhere, or the file holds something else.
        UnreadableError: it is too long, no regular file, or a link to elsewhere.
    """
    name = str(entry["file"])
    if name in ("", "..") or name != Path(name).name:
        raise ValueError(f"{name!r} is no name of a file beside it")
    raw = bytes_of(folder / "samples" / name, PICTURE_BYTES, folder=folder)
    if not raw.startswith(PNG):
        raise ValueError(f"{name!r} is no picture in PNG")
    return Picture(f"data:image/png;base64,{base64.b64encode(raw).decode()}", str(entry["caption"]))
