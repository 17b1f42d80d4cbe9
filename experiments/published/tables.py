"""The tables and the figure of README.md, and the rows of docs/claims.md: runs.csv held against marks.csv.

python experiments/published/tables.py
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from fedsim.records.statistics import mean_interval
from fedsim.records.studies.claims import Row, of_marks, told
from fedsim.records.studies.claims import filled as filled_claims
from fedsim.records.studies.kept import Key, Rows, lines_of, rows_in
from fedsim.records.studies.marks import NOT_RUN, Found, interval_of, judged
from fedsim.records.studies.pages import between
from fedsim.records.studies.pages import with_interval as said

HERE = Path(__file__).parent
MARKS, ROWS, PAGE, FIGURE = (HERE / name for name in ("marks.csv", "runs.csv", "README.md", "published.png"))
CLAIMS = HERE.parents[1] / "docs" / "claims.md"


def read() -> dict[Key, dict[str, float]]:
    """Return the rows of runs.csv."""
    return rows_in(ROWS)


def marks() -> list[dict[str, str]]:
    """Return the rows of marks.csv."""
    return lines_of(MARKS.read_text("utf-8"))


def table() -> Iterator[str]:
    """Yield the lines of the tables."""
    rows = read()
    known, verdicts = notes(rows), Counter[str]()
    yield "| source | figure | setting | theirs | mark | ours | control | same direction, mark met |"
    yield "|---|---|---|---|---|---|---|---|"
    for mark in marks():
        found = judged(rows, mark)
        came_out = verdict(found, known.get(mark["mark"], ""))
        verdicts[came_out] += 1
        span = f"{mark['low']} to {mark['high']}"
        still = f"{said(found.control)}, {mark['control_low']} to {mark['control_high']}: {mark['control']}"
        cells = [
            mark["source"],
            mark["figure"],
            mark["setting"],
            mark["theirs"],
            span,
            told(found),
            still,
            came_out,
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"Of {verdicts.total()} marks: {', '.join(f'{n} {verdict}' for verdict, n in verdicts.most_common())}."
    yield from details(rows)


def verdict(found: Found, note: str) -> str:
    """Return what came out of a mark; that it was no test, where its note says so."""
    untested = found.verdict != NOT_RUN and note.startswith(f"**{NOT_TESTED}**")
    return NOT_TESTED if untested else found.verdict


NOT_TESTED = "not tested"
TO_TARGET = ("reached", "target_s", "target_updates", "target_up_bytes", "hours_per_commit", "last")
TO_STAY = ("reached", "target_s", "target_updates", "target_up_bytes", "worst_after", "settled_s", "last")
SHOWN = {
    "flash": ("failed", "offline", "top_30", "hours_per_commit", "clients_share"),
    "bonawitz": ("offline", "failed", "swing", "day_over_night"),
    "fedscale": ("commits_per_hour",),
    "timelyfl": ("clients_share", "updates_per_commit", "commits", "target_s"),
    "timelyfl-horizon": ("clients_share", "updates_per_commit", "commits", "target_s"),
    "overshoot": ("target_s", "worst_after", "settled_s"),
    "tifl-schedule": ("hours_per_commit", "clients_share"),
    "text-1000": TO_STAY,
    "text-1000-step": TO_STAY,
    "refl": ("wasted_joules", "clients_share", "offline", "commits"),
}
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
            interval_of(rows, "asynchrony", measure, "ratio", f"sync {n} | fedbuff {n}").mean for n in slots
        ]
        right.plot(slots, pairs, "o-", label=f"{label} to the target")
    right.axhline(1.0, color="0.4", linewidth=0.8, linestyle=":")
    right.set_xlim(25, 1200)
    right.set_xscale("log")
    right.set_xlabel("clients at once")
    right.set_ylabel("rounds over FedBuff")
    right.legend(fontsize=8)
    figure.savefig(FIGURE, dpi=100)


def claims() -> Iterator[Row]:
    """Yield the rows of docs/claims.md that come from here."""
    rows = read()
    return of_marks(rows, marks(), "published", "figure", what="`{study}`", notes=notes(rows))


def notes(rows: Rows) -> dict[str, str]:
    """Return what a reader of an outcome must know, by mark; README.md has more of it."""

    def later(at_once: int) -> float:
        """Time of rounds to the target, over that until FedBuff stays there: its first crossing is an overshoot."""
        rounds = interval_of(rows, "asynchrony", "target_s", "value", f"sync {at_once}").mean
        stays = interval_of(rows, "overshoot", "settled_s", "value", f"fedbuff {at_once}").mean
        return rounds / stays

    def ratio(study: str, measure: str, ways: str) -> float:
        return interval_of(rows, study, measure, "ratio", ways).mean

    slots = ratio("fedscale", "commits_per_hour", "async, equal, ten slots | sync, equal")
    versions = ratio("timelyfl", "commits", "fedbuff | timely")
    half_normal = ratio("asynchrony", "target_updates", "sync 300 | fedbuff 300")
    best = {
        name: ratio("asynchrony", measure, "sync 300, lr 1 | fedbuff 300")
        for name, measure in (
            ("time", "target_s"),
            ("bytes", "target_up_bytes"),
            ("updates", "target_updates"),
        )
    }
    asked = ratio("asynchrony", "visits", "sync 1000 | fedbuff 1000")
    day = interval_of(rows, "bonawitz", "top_30", "value", "charging").mean
    versions_of = {
        way: interval_of(rows, "asynchrony", "commits", "value", way).mean
        for way in ("sync 300", "fedbuff 300")
    }
    untuned = "one step for all; at 300 at once and each server's best stable step"
    laws = f"{half_normal:.3g} under half-normal ones, too, since rounds take {versions_of['sync 300']:g} versions and FedBuff {versions_of['fedbuff 300']:g}"
    return {
        "flash-top30": f"the windows are fitted to 300 of FLASH's phones, and the nine hours are of a night: {day:.2g} after a day of other phones",
        "flash-time": "it hangs on which phone stands for all where one is unaware",
        "bonawitz-swing": "**not tested**: theirs is of devices that are idle, charging and on an unmetered network",
        "bonawitz-day": "lengths of sessions by hour are fitted to FLASH's phones",
        "fedscale": f"{slots:.2f} of it is ten slots against five",
        "timelyfl-people": "**not tested**: theirs is who is in a version, ours who is in the model in the end",
        "timelyfl-time": f"one step for both, not tuned, and FedBuff makes {versions:.2g} times the versions",
        "papaya-time": f"at the first crossing; until FedBuff stays there {later(1000):.3g}; {untuned} {best['time']:.2f}",
        "papaya-time-grows": f"at the first crossing; until FedBuff stays there {later(1000) / later(30):.2g}; one step for all",
        "papaya-bytes": f"at the first crossing; {asked:.3g} times the downloads; {untuned} {best['bytes']:.2f}",
        "papaya-bytes-grow": "at the first crossing; one step for all",
        "fedbuff-sync": f"at the first crossing; {untuned} {best['updates']:.2f}",
        "fedbuff-fedasync": "at the first crossing; one step for both",
        "fedbuff-exponential": laws,
        "fedbuff-uniform": laws,
        "oort-charging": "**not tested**: theirs is of a gain in accuracy, ours of time",
        "fedat-bytes": "**not tested**: FedAT's coder and its tiers of several clients are not here",
        "fedat-fedasync": "**not tested**: FedAT's coder and its tiers of several clients are not here, and the control has no FedAsync",
    }


BEGIN = "<!-- tables: written by `python experiments/published/tables.py` -->"
END = "<!-- end of tables -->"


def main() -> None:
    """Write everything anew."""
    PAGE.write_text(between(PAGE.read_text("utf-8"), BEGIN, END, table()), encoding="utf-8")
    CLAIMS.write_text(filled_claims(CLAIMS.read_text("utf-8"), "published", claims()), encoding="utf-8")
    draw()


if __name__ == "__main__":
    main()
