"""A run of any number of visits: a real timeline, repeated end to end, through the writer that every run has.

Clients, devices and windows are those of the timeline; each repetition begins when the one before has made its last commit, so that
instants, places, versions and sums go on and every rule of the auditor holds. (No schedule gives it: it cannot be replayed.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

import fedsim
from fedsim.config.experiment import Experiment
from fedsim.records import folder as run_folder
from fedsim.records import tables
from fedsim.records.info import RunInfo, saved_share, totals_of
from fedsim.records.rows import CommitRow, VisitRow
from fedsim.records.run import Run
from fedsim.records.tables import TABLES, Columns
from fedsim.records.writer import Writer, started

COHORT = 100
ROUNDS = 20
SETTINGS = {
    "name": "long",
    "population": {"preset": "mixed_edge_2025", "clients": 2000, "availability": "always"},
    "task": {"kind": "quadratic", "layout": "lora", "dimension": 6},
    "lora": {"r": 4, "alpha": 8},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 5},
    "protocol": {"kind": "synchronous", "cohort": COHORT},
}


@dataclass(frozen=True)
class Repeated:
    """A timeline that is repeated: its run, the settings of the whole, and how often it goes.

    Attributes:
        run: of one repetition.
        experiment: of all of them.
        times: how often.
    """

    run: Run
    experiment: Experiment
    times: int

    def begins_s(self) -> Iterator[float]:
        """Yield when each repetition begins: at the last commit of the one before, to the bit [virtual s]."""
        last_s, begin_s = float(self.run.commits["time_s"].iloc[-1]), 0.0
        for _ in range(self.times):
            yield begin_s
            begin_s = last_s + begin_s

    @property
    def end_time_s(self) -> float:
        """When the last one has made its last commit [virtual s]."""
        return float(self.run.commits["time_s"].iloc[-1]) + max(self.begins_s())

    def visits(self) -> Iterator[Columns]:
        """Yield the visits of each repetition."""
        base = {name: column.to_numpy() for name, column in self.run.visits.items()}
        number = base["client"]
        per_client = np.bincount(number, minlength=len(self.run.clients))
        for at, later_s in enumerate(self.begins_s()):
            versions = at * len(self.run.commits)
            rows = dict(base)
            rows["order"] = base["order"] + at * len(number)
            rows["visit"] = base["visit"] + at * per_client[number]
            rows["version"], rows["round"] = base["version"] + versions, base["round"] + versions
            made = base["committed_version"]
            rows["committed_version"] = np.where(made > 0, made + versions, made)
            for name in ("dispatched_s", "downloaded_s", "trained_s", "landed_s", "ended_s"):
                rows[name] = base[name] + later_s
            yield {str(name): rows[name] for name in TABLES["visits"]}

    def commits(self) -> Iterator[Columns]:
        """Yield the commits of each repetition."""
        base = {name: column.to_numpy() for name, column in self.run.commits.items()}
        for at, later_s in enumerate(self.begins_s()):
            rows = dict(base)
            rows["version"] = base["version"] + at * len(base["version"])
            rows["time_s"] = base["time_s"] + later_s
            for name in ("up_bytes", "down_bytes", "joules"):
                rows[f"total_{name}"] = base[f"total_{name}"] + at * self.run.visits[name].sum()
            yield {str(name): rows[name] for name in TABLES["commits"]}


def repeated(visits: int, **settings: object) -> Repeated:
    """Return a timeline that has at least so many visits when it has been repeated."""
    one = Experiment.model_validate({**SETTINGS, "budget": {"commits": ROUNDS}, **settings})
    run = fedsim.simulate(one, timeline_only=True, report=False)
    times = -(-visits // len(run.visits))
    whole = Experiment.model_validate(
        {**SETTINGS, "budget": {"commits": times * len(run.commits)}, **settings}
    )
    return Repeated(run, whole, times)


def written(timeline: Repeated, folder: Path | None) -> Writer:
    """Write every row of a repeated timeline, as a run does; the writer is not closed."""
    writer = Writer(folder, timeline.experiment)
    columns = {name: column.to_numpy() for name, column in timeline.run.clients.items()}
    writer.clients({str(name): column for name, column in columns.items()})
    for visits, commits in zip(timeline.visits(), timeline.commits(), strict=True):
        for row in zip(*(column.tolist() for column in visits.values()), strict=True):
            writer.visit(VisitRow(*row))
        for row in zip(*(column.tolist() for column in commits.values()), strict=True):
            writer.commit(CommitRow(*row))
    return writer


def made(timeline: Repeated, folder: Path) -> None:
    """Make the folder of a repeated timeline without its writer, in a hundredth of the time: columns become row groups."""
    writer = Writer(folder, timeline.experiment)
    columns = {name: column.to_numpy() for name, column in timeline.run.clients.items()}
    writer.clients({str(name): column for name, column in columns.items()})
    for table, blocks in (("visits", timeline.visits()), ("commits", timeline.commits())):
        tables.write_groups(table, _groups(table, blocks), folder / f"{table}.parquet")
    rows = run_folder.read_tables(folder)
    info = replace(_ended(timeline), status="done", saved_share=saved_share(rows))
    run_folder.fold(folder, rows, info)
    writer.release()


def _groups(table: str, blocks: Iterator[Columns]) -> Iterator[Columns]:
    """Yield the same rows as many at a time as a row group has."""
    waiting: list[Columns] = []
    for block in blocks:
        waiting.append(block)
        while sum(map(tables.count, waiting)) >= tables.GROUP:
            rows = tables.appended(table, waiting)
            yield {name: column[: tables.GROUP] for name, column in rows.items()}
            waiting = [{name: column[tables.GROUP :] for name, column in rows.items()}]
    yield tables.appended(table, waiting)


def closed(timeline: Repeated, writer: Writer) -> Run:
    """Close a repeated timeline that was written; returns the run."""
    return writer.close(status="done", ended=_ended(timeline))


def _ended(timeline: Repeated) -> RunInfo:
    """Return `run.json` of a repeated timeline."""
    told, times = timeline.run.info, timeline.times
    one = totals_of({table: timeline.run.columns(table) for table in TABLES})
    names = ("visits", "commits", "up_bytes", "down_bytes", "joules", "gross_joules")
    names = (*names, "serialized_up_bytes", "serialized_down_bytes")
    sums = {name: times * number for name, number in asdict(one).items() if name in names}
    outcomes = {name: times * number for name, number in one.outcomes.items()}
    totals = replace(one, **sums, outcomes=outcomes, refused=0, handed_over=times * one.visits)
    return replace(
        started(timeline.experiment),
        timeline_only=True,
        task=told.task,
        charged=told.charged,
        population=told.population,
        resolved=told.resolved,
        executor=told.executor,
        end_time_s=timeline.end_time_s,
        totals=totals,
    )
