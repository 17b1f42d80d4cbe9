"""The tables and the figure of README.md, and the rows of docs/claims.md: runs.csv held against marks.csv.

python experiments/published/tables.py
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from fedsim.records.quantities import number
from fedsim.records.statistics import MeanInterval, mean_interval

HERE = Path(__file__).parent
MARKS, ROWS, PAGE, FIGURE = (HERE / name for name in ("marks.csv", "runs.csv", "README.md", "published.png"))
CLAIMS = HERE.parents[1] / "docs" / "claims.md"
Key = tuple[str, str, int]
Rows = Mapping[Key, Mapping[str, float]]


def read() -> dict[Key, dict[str, float]]:
    """Return the rows of runs.csv."""
    if not ROWS.exists():
        return {}
    with ROWS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return {
        (row.pop("study"), row.pop("way"), int(row.pop("seed"))): {
            name: float(cell) for name, cell in row.items() if cell
        }
        for row in rows
    }


# marks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What came out of one mark: the interval over seeds, its control, how many runs had no value, and in words."""

    ours: MeanInterval
    control: MeanInterval
    missing: int
    verdict: str


def marks() -> list[dict[str, str]]:
    """Return the rows of marks.csv."""
    with MARKS.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


OF: dict[str, Callable[..., float]] = {
    "value": lambda a: a,
    "ratio": lambda a, b: a / b if b else math.nan,
    "difference": lambda a, b: a - b,
    "double": lambda a, b, c, d: (a / b) / (c / d),
}


def numbers(rows: Rows, study: str, measure: str, form: str, ways: str) -> list[float]:
    """Return one number a seed that all ways have; NaN where one of them has no value."""
    names = ways.split(" | ")
    of = [{seed for name, way, seed in rows if (name, way) == (study, wanted)} for wanted in names]
    seeds = sorted(set.intersection(*of))
    return [OF[form](*(rows[study, way, s].get(measure, math.nan) for way in names)) for s in seeds]


def judged(rows: Rows, mark: Mapping[str, str]) -> Found:
    """Return what came out of a mark."""
    study, measure = mark["study"], mark["measure"]
    values = numbers(rows, study, measure, mark["form"], mark["ways"])
    still = numbers(rows, study, measure, mark["control_form"], mark["control_ways"])
    ours, control = mean_interval(values), mean_interval(still)
    low, high, null, least, most = (
        float(mark[name]) for name in ("low", "high", "null", "control_low", "control_high")
    )
    up = low >= null
    right = ours.low > null if up else ours.high < null
    wrong = ours.high < null if up else ours.low > null
    if len(set(values)) == 1 and len(values) > 1:  # every seed says the same
        right, wrong = (
            ours.mean != null and (ours.mean > null) == up,
            ours.mean != null and (ours.mean > null) != up,
        )
    inside = low <= ours.mean <= high
    if not values:
        verdict = "not run"
    elif mark["form"] == "value" and not inside and not math.isnan(ours.mean):
        verdict = "did not come out"
    elif not right or math.isnan(control.mean):
        verdict = "no: the other way" if wrong else "not decided"
    elif not least <= control.mean <= most:
        verdict = "direction, but the control has it too"
    else:
        verdict = "yes" if inside else "direction, another size"
    return Found(ours, control, sum(map(math.isnan, values)), verdict)


def said(interval: MeanInterval) -> str:
    """Return a mean and its interval in words."""
    if math.isnan(interval.mean):
        return "–"
    text, *ends = (number(x) for x in (interval.mean, interval.low, interval.high))
    return text if math.isnan(interval.low) or set(ends) == {text} else f"{text} ({ends[0]} to {ends[1]})"


def table() -> Iterator[str]:
    """Yield the lines of the tables."""
    rows = read()
    yield "| source | figure | setting | theirs | mark | ours | control | same direction, mark met |"
    yield "|---|---|---|---|---|---|---|---|"
    for mark in marks():
        found = judged(rows, mark)
        ours = said(found.ours) + (f"; {found.missing} of {found.ours.n} without" if found.missing else "")
        span = f"{mark['low']} to {mark['high']}"
        still = f"{said(found.control)}, {mark['control_low']} to {mark['control_high']}: {mark['control']}"
        cells = [
            mark["source"],
            mark["figure"],
            mark["setting"],
            mark["theirs"],
            span,
            ours,
            still,
            found.verdict,
        ]
        yield f"| {' | '.join(cells)} |"
    verdicts = Counter(judged(rows, mark).verdict for mark in marks())
    yield ""
    yield f"Of {verdicts.total()} marks: {', '.join(f'{n} {verdict}' for verdict, n in verdicts.most_common())}."
    yield from details(rows)


SHOWN = {
    "flash": ("failed", "offline", "top_30", "hours_per_commit", "clients_share"),
    "bonawitz": ("offline", "failed", "swing", "day_over_night"),
    "fedscale": ("commits_per_hour",),
    "timelyfl": ("clients_share", "updates_per_commit", "commits", "target_s"),
    "timelyfl-horizon": ("clients_share", "updates_per_commit", "commits", "target_s"),
    "overshoot": ("target_s", "worst_after", "settled_s"),
    "tifl-schedule": ("hours_per_commit", "clients_share"),
    "text-1000": ("reached", "target_s", "target_updates", "target_up_bytes", "worst_after", "settled_s", "last"),
    "text-1000-step": ("reached", "target_s", "target_updates", "target_up_bytes", "worst_after", "settled_s", "last"),
    "refl": ("wasted_joules", "clients_share", "offline", "commits"),
}
TO_TARGET = ("reached", "target_s", "target_updates", "target_up_bytes", "hours_per_commit", "last")
LABELS = {
    "failed": "fail",
    "offline": "drop out",
    "top_30": "work of the top 30 %",
    "hours_per_commit": "hours a version",
    "clients_share": "share of clients in the model",
    "swing": "most online over least",
    "day_over_night": "drop-out, day over night",
    "commits_per_hour": "versions an hour",
    "commits": "versions",
    "updates_per_commit": "updates a version",
    "wasted_joules": "share of joules wasted",
    "reached": "runs that reached the target, share",
    "target_s": "hours to the target",
    "target_updates": "updates to the target",
    "target_up_bytes": "GB up to the target",
    "last": "last score",
    "worst_after": "worst score after it",
    "settled_s": "hours until it stays there",
}
UNITS = {"target_s": 3600.0, "settled_s": 3600.0, "target_up_bytes": 1e9}


def details(rows: Rows) -> Iterator[str]:
    """Yield a table of means a study, one way a row: what was varied, too."""
    for study in dict.fromkeys(name for name, _, _ in rows):
        names = SHOWN.get(study, TO_TARGET)
        yield from ("", f"`{study}`:", "", f"| way | seeds | {' | '.join(LABELS[name] for name in names)} |")
        yield f"|---|---|{'---|' * len(names)}"
        for way in dict.fromkeys(way for name, way, _ in rows if name == study):
            runs = [row for (name, of, _), row in rows.items() if (name, of) == (study, way)]
            values = {
                name: [run.get(name, math.nan) / UNITS.get(name, 1.0) for run in runs] for name in names
            }
            cells = [said(mean_interval(of_runs)) for of_runs in values.values()]
            yield f"| {way} | {len(runs)} | {' | '.join(cells)} |"


def draw() -> None:
    """Draw the ratios with their intervals and marks, and Papaya's against concurrency."""
    rows = read()
    wanted = [mark for mark in marks() if mark["form"] == "ratio"]
    known = [(mark, judged(rows, mark)) for mark in wanted]
    known = [(mark, found) for mark, found in known if not math.isnan(found.ours.mean)]
    figure = Figure(figsize=(11, 0.6 + 0.34 * len(known)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for place, (mark, found) in enumerate(reversed(known)):
        left.barh(
            place, float(mark["high"]) - float(mark["low"]), left=max(float(mark["low"]), 0.05), color="0.88"
        )
        left.plot([found.ours.low, found.ours.high], [place, place], color="C0", linewidth=2)
        left.plot([found.ours.mean], [place], "o", color="C0")
        left.plot([found.control.mean], [place], "x", color="C1")
    left.set_yticks(range(len(known)), [mark["mark"] for mark, _ in reversed(known)], fontsize=8)
    left.axvline(1.0, color="0.4", linewidth=0.8, linestyle=":")
    left.set_xscale("log")
    left.set_xlabel("ratio: mean and 95 % interval (dot), control (cross), mark (grey)")
    slots = (30, 100, 300, 1000)
    for measure, label in (("target_s", "time"), ("target_up_bytes", "bytes")):
        pairs = [
            mean_interval(numbers(rows, "asynchrony", measure, "ratio", f"sync {n} | fedbuff {n}")).mean
            for n in slots
        ]
        right.plot(slots, pairs, "o-", label=f"{label} to the target")
    right.axhline(1.0, color="0.4", linewidth=0.8, linestyle=":")
    right.set_xlim(25, 1200)
    right.set_xscale("log")
    right.set_xlabel("clients at once")
    right.set_ylabel("rounds over FedBuff")
    right.legend(fontsize=8)
    figure.savefig(FIGURE, dpi=100)


OUTCOMES = {
    "yes": "**confirmed**",
    "direction, another size": "**confirmed** in direction, not in size",
    "direction, but the control has it too": "**not decided**: the control has it, too",
    "not decided": "**not decided**",
    "not run": "**not run**",
    "did not come out": "**did not come out**",
    "no: the other way": "**refuted** in this setting",
}


def claims() -> Iterator[str]:
    """Yield the rows of docs/claims.md that come from here."""
    rows = read()
    yield "| claim | source | what we ran | ours (95 % interval) | outcome |"
    yield "|---|---|---|---|---|"
    for mark in marks():
        found = judged(rows, mark)
        ran = f"[`{mark['study']}`](../experiments/published/README.md): {mark['ways'].replace(' | ', ', ')}"
        n = f"; n = {found.ours.n}" + (f", {found.missing} without" if found.missing else "")
        told = f"{said(found.ours)}{n}" if found.ours.n else "–"
        yield f"| {mark['figure']}: {mark['theirs']} | {mark['source']} | {ran} | {told} | {OUTCOMES[found.verdict]} |"


BEGIN = "<!-- tables: written by `python experiments/published/tables.py` -->\n"
END = "<!-- end of tables -->"


def put(lines: Iterator[str], page: Path) -> None:
    """Write lines between the marks of a page."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    text = "\n".join(lines) + "\n"
    page.write_text(f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}", encoding="utf-8")


def main() -> None:
    """Write everything anew."""
    put(table(), PAGE)
    put(claims(), CLAIMS)
    draw()


if __name__ == "__main__":
    main()
