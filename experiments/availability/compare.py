"""What a low battery costs: the schedules of README.md, and what is kept of them.

`python experiments/availability/compare.py run` plays them (timeline only, a minute of CPU) and writes runs.csv;
`python experiments/availability/compare.py table` writes the table of README.md from it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import fedsim
from fedsim.cli.shell import script
from fedsim.config.experiment import Experiment
from fedsim.config.loading import load
from fedsim.records.studies.kept import Key, Rows, rows_in, text_of
from fedsim.records.studies.marks import interval_of
from fedsim.records.studies.pages import between, table, with_interval

HERE = Path(__file__).parent
ROWS, PAGE = HERE / "runs.csv", HERE / "README.md"
STUDY, SEEDS = "availability", range(5)
WAYS: Mapping[str, list[str]] = {
    "no battery": ["energy.battery=null"],
    "lost": ["population.on_close=lost"],
    "pause": ["population.on_close=pause"],
    "partial": ["population.on_close=partial"],
    "pause, 120 at work": ["population.on_close=pause", "protocol.concurrency=120"],
    "lost, 120 at work": ["population.on_close=lost", "protocol.concurrency=120"],
    "pause, four days": ["population.on_close=pause", "budget.time_s=345600"],
    "lost, four days": ["population.on_close=lost", "budget.time_s=345600"],
}
"""Way -> what it changes of base.yaml."""
COLUMNS = {
    "commits": "commits",
    "lost": "visits lost, %",
    "lost_joules": "their joules, %",
    "paused": "visits paused, %",
    "waiting": "slots that wait for a charger, %",
    "staleness": "mean staleness",
    "stalest": "largest",
    "people": "phones in the model",
    "cut_minutes": "minutes of a cut visit",
    "landed_minutes": "of one that lands",
}
BEGIN, END = (
    "<!-- table: written by `python experiments/availability/compare.py table` -->",
    "<!-- end of table -->",
)


def experiment(way: str, seed: int) -> Experiment:
    """Return one experiment."""
    return load(HERE / "base.yaml", [f"seed={seed}", f"name=availability-{seed}", *WAYS[way]])


def figures(run: fedsim.Run) -> dict[str, float]:
    """Return what is kept of a run: of visits that have ended how they ended, of slots how much of the time they stood still.

    A visit that is cut for good lasted from when it was dispatched to when it was cut; `paused_s` is how long a visit has waited,
    also one that is under way at the end. Slots are the visits that a server keeps at work at a time.
    """
    ended = run.visits[run.visits["outcome"] != "in_flight"]
    lost, landed = ended[ended["outcome"] == "offline"], ended[ended["outcome"] == "landed"]
    used = ended[ended["committed_version"] > 0]
    slots = run.experiment["protocol"]["concurrency"] * run.info.end_time_s
    return {
        "commits": float(len(run.commits)),
        "lost": 100.0 * len(lost) / len(ended),
        "lost_joules": 100.0 * float(lost["joules"].sum() / ended["joules"].sum()),
        "paused": 100.0 * float((ended["paused_s"] > 0).mean()),
        "waiting": 100.0 * float(run.visits["paused_s"].sum()) / slots,
        "staleness": float(used["staleness"].mean()),
        "stalest": float(used["staleness"].max()),
        "people": float(used["client"].nunique()),
        "cut_minutes": float((lost["ended_s"] - lost["dispatched_s"]).median()) / 60,
        "landed_minutes": float((landed["landed_s"] - landed["dispatched_s"]).median()) / 60,
    }


def play() -> None:
    """Play everything, and write what came out of it."""
    rows = {
        Key(STUDY, way, seed): figures(fedsim.simulate(experiment(way, seed), timeline_only=True))
        for way in WAYS
        for seed in SEEDS
    }
    about = "written by experiments/availability/compare.py run: one run a row"
    ROWS.write_text(text_of(rows, list(rows), about), "utf-8")


def read() -> dict[Key, dict[str, float]]:
    """Return the rows of runs.csv."""
    return rows_in(ROWS)


def commits_over(rows: Rows, way: str, other: str) -> str:
    """Return how many times as many commits one way makes as another, over seeds, with its interval."""
    return with_interval(interval_of(rows, STUDY, "commits", "ratio", f"{way} | {other}"))


def tables() -> list[str]:
    """Return the lines of the tables."""
    rows = read()

    def cell(way: str, column: str) -> str:
        return with_interval(interval_of(rows, STUDY, column, "value", way))

    body = [[way, *(cell(way, column) for column in COLUMNS)] for way in WAYS]
    pairs = [
        ("lost", "no battery"),
        ("pause", "lost"),
        ("partial", "lost"),
        ("partial", "pause"),
        ("pause, 120 at work", "lost"),
        ("pause, 120 at work", "lost, 120 at work"),
        ("pause, four days", "lost, four days"),
    ]
    ratios = [[f"{way} over {other}", commits_over(rows, way, other)] for way, other in pairs]
    return [*table(["", *COLUMNS.values()], body), "", *table(["commits", "times as many"], ratios)]


def main(arguments: list[str]) -> int:
    """Do what the command line asks for."""
    if arguments not in (["run"], ["table"]):
        print(__doc__)
        return 2
    if arguments == ["run"]:
        play()
    PAGE.write_text(between(PAGE.read_text("utf-8"), BEGIN, END, tables()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
