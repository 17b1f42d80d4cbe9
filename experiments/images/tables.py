"""The tables of README.md, and rows for docs/claims.md: runs.csv held against marks.csv; `figures.py` draws.

python experiments/images/tables.py
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsim.records.quantities import number
from fedsim.records.statistics import MeanInterval, mean_interval
from fedsim.records.studies.claims import Row
from fedsim.records.studies.claims import filled as filled_claims
from fedsim.records.studies.kept import Key, Rows, lines_of, rows_in
from fedsim.records.studies.marks import FEWEST
from fedsim.records.studies.pages import between, table, with_interval

HERE = Path(__file__).parent
MARKS, ROWS, RATES, PAGE = (HERE / name for name in ("marks.csv", "runs.csv", "rates.csv", "README.md"))
CLAIMS = HERE.parents[1] / "docs" / "claims.md"
MEASURES = {
    "fd_own": "FD, classifier",
    "kid_own": "KID, classifier",
    "fd_lite": "FD, EfficientNet",
    "kid_lite": "KID, EfficientNet",
    "gap": "gap in classes",
}
"""Distances of samples from the clients' images, less is better: an order is established where all of them agree."""
WAYS = {
    "lora": "LoRA, shared",
    "full": "whole model",
    "local-only": "LoRA, alone",
    "personal": "LoRA, own B",
    "wide": "LoRA, wide",
}
OWN = ("local-only", "personal")
"""Methods whose clients have models of their own: version 0, which is one model, is scored on other images than those."""
PRETRAINED = "pretrained"
HELD = {
    PRETRAINED: ("local-only", "held_shared"),
    "full": ("full", "held_shared"),
    "lora": ("lora", "held_shared"),
    "lora and one epoch": ("lora", "held_own"),
    "local-only": ("local-only", "held_own"),
    "personal": ("personal", "held_own"),
}
"""A model -> which method's runs know its loss on what twelve clients hold out, under which name."""
NEARER, FARTHER, DISAGREE, OPEN, NOT_RUN = "nearer", "farther", "the measures disagree", "open", "not run"
OUTCOMES = {
    NEARER: "**confirmed**",
    FARTHER: "**refuted** in this setting",
    DISAGREE: "**not decided**: the measures disagree",
    OPEN: "**not decided**",
    NOT_RUN: "**not run**",
}
BEGIN, END = "<!-- tables: written by `python experiments/images/tables.py` -->", "<!-- end of tables -->"


def read() -> dict[Key, dict[str, float]]:
    """Return the rows of runs.csv."""
    return rows_in(ROWS)


def cells_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of another CSV, as text."""
    return lines_of(path.read_text("utf-8")) if path.exists() else []


# what came out ----------------------------------------------------------------------------------


def value(rows: Rows, study: str, way: str, seed: int, measure: str) -> float:
    """Return a measure of a run, NaN without it; that of the pretrained model is version 0 of the shared adapter's run."""
    way, measure = found_in(way, measure)
    return rows.get(Key(study, way, seed), {}).get(measure, math.nan)


def found_in(model: str, measure: str) -> tuple[str, str]:
    """Return of which method's runs a measure of a model is, and its column."""
    if measure == "held":
        return HELD[model]
    return ("lora", f"start_{measure}") if model == PRETRAINED else (model, measure)


def seeds_of(rows: Rows, study: str) -> list[int]:
    """Return the seeds of a split, ascending."""
    return sorted({key.seed for key in rows if key.study == study})


def by_seed(rows: Rows, study: str, way: str, measure: str) -> list[float]:
    """Return a measure of the seeds that have it."""
    values = (value(rows, study, way, seed, measure) for seed in seeds_of(rows, study))
    return [x for x in values if not math.isnan(x)]


def pairs(rows: Rows, study: str, first: str, second: str, measure: str) -> list[tuple[float, float]]:
    """Return a measure of two methods, seed by seed, of the seeds that both were run with; NaN where a run has none."""
    run = [found_in(model, measure)[0] for model in (first, second)]
    return [
        (value(rows, study, first, seed, measure), value(rows, study, second, seed, measure))
        for seed in seeds_of(rows, study)
        if all(Key(study, way, seed) in rows for way in run)
    ]


def difference(rows: Rows, study: str, first: str, second: str, measure: str) -> MeanInterval:
    """Return the first less the second, with the interval of the pairs."""
    return mean_interval([a - b for a, b in pairs(rows, study, first, second, measure)])


@dataclass(frozen=True)
class Found:
    """What came out of a mark: in words, and the interval of each measure that it rests on."""

    verdict: str
    by_measure: Mapping[str, MeanInterval]


def standing(found: Mapping[str, MeanInterval]) -> str:
    """Return how the first stands to the second: nearer or farther only where every measure's interval says so."""
    if all(interval.n == 0 for interval in found.values()):
        return NOT_RUN
    if any(interval.n < FEWEST for interval in found.values()):
        return OPEN
    below, above = ([sign * i.low > 0 < sign * i.high for i in found.values()] for sign in (-1, 1))
    if all(below) or all(above):
        return NEARER if all(below) else FARTHER
    return DISAGREE if any(below) and any(above) else OPEN


def judged(rows: Rows, mark: Mapping[str, str]) -> Found:
    """Return what came out of a mark."""
    study, first, second = mark["study"], mark["first"], mark["second"]
    if mark["form"] == "share":
        shares = [a / b for a, b in pairs(rows, study, first, second, "update_bytes")]
        verdict = NOT_RUN if not shares else NEARER if max(shares) < float(mark["most"]) else FARTHER
        return Found(verdict, {"share of the bytes": mean_interval(shares)})
    measures = ["held"] if mark["form"] == "lower" else list(MEASURES)
    found = {measure: difference(rows, study, first, second, measure) for measure in measures}
    return Found(standing(found), found)


# tables -----------------------------------------------------------------------------------------


def signed(interval: MeanInterval) -> str:
    """Return a difference with its interval, bold where that leaves no doubt about the sign."""
    text = with_interval(interval)
    return text if interval.covers_zero else f"**{text}**"


def rates() -> Iterator[str]:
    """Yield the learning rates that were tried: the loss of held-out images of other clients, by method."""
    rows = cells_of(RATES)
    grid = sorted({float(row["rate"]) for row in rows})
    lines = []
    for way in (way for way in WAYS if any(row["way"] == way for row in rows)):
        losses = {float(row["rate"]): float(row["loss"]) for row in rows if row["way"] == way}
        best = min(losses, key=losses.__getitem__)
        shown = {rate: f"{loss:.4f}" for rate, loss in losses.items()} | {best: f"**{losses[best]:.4f}**"}
        inside = "inside" if min(losses) < best < max(losses) else "at an end"
        start = next(f"{float(row['before']):.4f}" for row in rows if row["way"] == way)
        lines.append(
            [WAYS[way], "" if way in OWN else start, *(shown.get(rate, "") for rate in grid), inside]
        )
    yield from table(
        ["loss of held-out images", "before", *(f"{rate:g}" for rate in grid), "the best is"], lines
    )


def ends(rows: Rows, study: str) -> Iterator[str]:
    """Yield where each method ends under a split."""
    lines = []
    for way, words in {PRETRAINED: PRETRAINED, **WAYS}.items():
        values = {measure: by_seed(rows, study, way, measure) for measure in (*MEASURES, "theirs", "largest")}
        if any(values.values()):
            lines.append(
                [words, str(len(values["gap"])), *(with_interval(mean_interval(v)) for v in values.values())]
            )
    more = ("samples of their classes", "of the commonest of them")
    yield from table(["", "seeds", *MEASURES.values(), *more], lines)


SPENT = {
    "update_bytes": ("kB an update", 1e3),
    "up_bytes": ("MB up", 1e6),
    "hours": ("virtual hours", 1.0),
    "joules": ("kJ", 1e3),
    "heard": ("clients heard", 1.0),
    "test_loss": ("loss of test images", 1.0),
}


def costs(rows: Rows, study: str) -> Iterator[str]:
    """Yield what each method took under a split."""
    lines = []
    for way, words in WAYS.items():
        spent = {
            name: [x / unit for x in by_seed(rows, study, way, name)] for name, (_, unit) in SPENT.items()
        }
        if any(spent.values()):
            lines.append([words, *(with_interval(mean_interval(v)) if v else "–" for v in spent.values())])
    yield from table(["", *(label for label, _ in SPENT.values())], lines)


def held(rows: Rows, study: str) -> Iterator[str]:
    """Yield the loss of what twelve clients hold out, by the model that each uses, and how far it is from the shared adapter's."""
    lines = []
    for model in HELD:
        values = by_seed(rows, study, model, "held")
        if values:
            apart = "" if model == "lora" else signed(difference(rows, study, model, "lora", "held"))
            lines.append([WAYS.get(model, model), with_interval(mean_interval(values)), apart])
    yield from table(["model of a client", "loss of its held-out images", "less the shared adapter's"], lines)


def orders(rows: Rows) -> Iterator[str]:
    """Yield every mark with what came out of it, measure by measure."""
    lines = []
    for mark in marks():
        found = judged(rows, mark)
        if mark["form"] == "order":
            pair = f"{WAYS[mark['first']]} less {WAYS.get(mark['second'], mark['second'])}"
            cells = [signed(interval) for interval in found.by_measure.values()]
            lines.append([f"`{mark['mark']}`: {pair}", *cells, found.verdict])
    yield from table(["", *MEASURES.values(), "all five"], lines)


def marks() -> list[dict[str, str]]:
    """Return the rows of marks.csv."""
    return cells_of(MARKS)


def tables() -> Iterator[str]:
    """Yield the lines of all tables."""
    rows = read()
    if cells_of(RATES):
        yield from (
            "Learning rates, chosen by the loss of images that other clients hold out:",
            "",
            *rates(),
            "",
        )
    for study in dict.fromkeys(key.study for key in rows):
        yield from (f"{study}, where each method ends:", "", *ends(rows, study), "")
        yield from (f"{study}, what it took:", "", *costs(rows, study), "")
        yield from (f"{study}, for the clients themselves:", "", *held(rows, study), "")
    if rows:
        yield from (
            "The marks on what is drawn, a difference below 0 meaning that the first is nearer to the clients' images:",
            "",
        )
        yield from (*orders(rows), "")
        noise = start_noise(rows)
        yield f"Version 0 is one model: its measures under `lora` and `full` of one seed differ by at most {number(noise)} of themselves."
        tried = [float(row["wall_s"]) for row in cells_of(RATES)]
        hours = [number(sum(seconds) / 3600) for seconds in ([row["wall_s"] for row in rows.values()], tried)]
        yield ""
        yield f"{len(rows)} runs took {hours[0]} hours by the clock on the wall, the {len(tried)} that chose the rates {hours[1]}."
    else:
        yield "Not run yet."


def start_noise(rows: Rows) -> float:
    """Return by how much version 0 differs between the runs of two methods that draw it from the same noise, relative to itself."""
    apart = [
        abs(a - b) / max(abs(a), 1e-12)
        for study in dict.fromkeys(key.study for key in rows)
        for measure in MEASURES
        for a, b in pairs(rows, study, "lora", "full", f"start_{measure}")
        if not math.isnan(a - b)
    ]
    return max(apart, default=math.nan)


def claims() -> Iterator[Row]:
    """Yield the rows of docs/claims.md that come from here."""
    rows = read()
    known_notes = notes(rows)
    for mark in marks():
        found = judged(rows, mark)
        known = {name: interval for name, interval in found.by_measure.items() if interval.n}
        if mark["form"] == "share":
            against, parts = "over", [f"{100 * i.mean:.2f} % (exact)" for i in known.values()]
        else:
            against, parts = (
                "less",
                [f"{MEASURES.get(name, name)} {with_interval(i)}" for name, i in known.items()],
            )
            parts += [f"n = {max(i.n for i in known.values())}"] if known else []
        ran = f"[Fashion-MNIST](../experiments/images/README.md), {mark['study']}: {mark['first']} {against} {mark['second']}"
        note = known_notes.get(mark["mark"], "") if found.verdict != NOT_RUN else ""
        yield mark["claim"], mark["source"], ran, "; ".join(parts) or "–", OUTCOMES[found.verdict] + note


def notes(rows: Rows) -> dict[str, str]:
    """Return what a reader of an outcome must know, by mark; README.md has more of it."""
    wide = [a / b for a, b in pairs(rows, "Dirichlet 0.1", "wide", "full", "update_bytes")]
    said = {"bytes": (" at rank 4 on attention; rank 8 on convolutions, too, has {} %", wide)}
    for study, ending, begins in (("Dirichlet 0.1", "", " in the mean;"), ("two classes", "-2", ";")):
        said[f"epoch{ending}"] = (
            f"{begins} {{}} % of the clients lose by it",
            by_seed(rows, study, "lora", "worse"),
        )
        one = [
            a / b
            for a, b in zip(*(by_seed(rows, study, "lora", m) for m in ("largest", "theirs")), strict=True)
        ]
        said[f"start{ending}"] = ("; {} % of what it draws of their classes is of one of them", one)
    return {
        mark: words.format(number(100 * float(np.mean(values)), 3))
        for mark, (words, values) in said.items()
        if values
    }


def main() -> None:
    """Write everything anew."""
    PAGE.write_text(between(PAGE.read_text("utf-8"), BEGIN, END, tables()), encoding="utf-8")
    CLAIMS.write_text(filled_claims(CLAIMS.read_text("utf-8"), "images", claims()), encoding="utf-8")
    runpy.run_path(str(HERE / "figures.py"), run_name="__main__")


if __name__ == "__main__":
    main()
