"""A run: a folder of tidy tables, written as it goes, and the object that holds them.

While a run goes, every row is one flushed JSON line; `Writer.close` folds the lines into Parquet,
and so does `load` for a run that was killed. What is measured with a wall clock (`run.json`,
`wall.jsonl`) never enters a table, so two runs of one experiment have equal tables to the byte.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fedsim.arrays import Values
from fedsim.errors import RunFolderError, message
from fedsim.files.atomic import write_atomically
from fedsim.records import folder as run_folder
from fedsim.records import tables
from fedsim.records.info import RunInfo, read_info, summed
from fedsim.records.integrity.soundness import unsound
from fedsim.records.liveness.hold import hold
from fedsim.records.liveness.standing import Standing, standing
from fedsim.records.quantities import number, plural, said
from fedsim.records.stored.columns import FrameColumns, StoredColumns
from fedsim.records.stored.parts import clear_dropped

if TYPE_CHECKING:
    import pandas as pd


class _Frame:
    """A table as a data frame; one on disk is read when it is looked at for the first time."""

    def __set_name__(self, owner: type[Run], name: str) -> None:
        self._name = name

    def __get__(self, run: Run | None, owner: type[Run]) -> pd.DataFrame:
        if run is None:
            raise AttributeError(self._name)  # a table has no default
        rows = vars(run)[self._name]
        if isinstance(rows, StoredColumns):
            rows = tables.frame(self._name, rows.read([*rows]))
            vars(run)[self._name] = rows
        return cast("pd.DataFrame", rows)

    def __set__(self, run: Run, rows: pd.DataFrame | StoredColumns) -> None:
        vars(run)[self._name] = rows


@dataclass(frozen=True, repr=False)
class Run:
    """What one simulation left behind.

    Attributes:
        folder: where it is stored; None if it lives in memory only (see `save`).
        experiment: the configuration as plain values; `Experiment.model_validate` gives the object back.
        info: `run.json`: how it ended, what it took, facts about model and data.
        clients, visits, commits, scores, personal: the tables, columns as in `fedsim.records.rows`. A long table is
            read from the folder when it is looked at; `frame` and `columns` read some columns of it only.
        wall: wall-clock lines; never compared between runs.
    """

    folder: Path | None
    experiment: dict[str, Any]
    info: RunInfo
    clients: _Frame = _Frame()
    visits: _Frame = _Frame()
    commits: _Frame = _Frame()
    scores: _Frame = _Frame()
    personal: _Frame = _Frame()
    wall: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.info.name

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name, in the order of `fedsim.records.tables.TABLES`."""
        return {
            "clients": self.clients,
            "visits": self.visits,
            "commits": self.commits,
            "scores": self.scores,
            "personal": self.personal,
        }

    def frame(self, table: str, *names: str) -> pd.DataFrame:
        """Return some columns of a table; of a table on disk only these are read, and not kept."""
        rows = vars(self)[table]
        if isinstance(rows, StoredColumns):
            return tables.frame(table, rows.read(names), names)
        frame: pd.DataFrame = rows[list(names)]
        return frame

    def columns(self, table: str) -> Mapping[str, Values]:
        """Return the columns of a table as arrays, each read when it is asked for, and not kept."""
        rows = vars(self)[table]
        return rows if isinstance(rows, StoredColumns) else FrameColumns(rows)

    def blocks(self, table: str) -> Iterator[pd.DataFrame]:
        """Yield a table's rows in their order, some hundred thousand at a time."""
        rows = vars(self)[table]
        if isinstance(rows, StoredColumns):
            yield from (tables.frame(table, columns) for columns in rows.blocks())
            return
        for at in range(0, max(len(rows), 1), tables.GROUP):
            yield rows.iloc[at : at + tables.GROUP]

    def row(self, table: str, at: int) -> pd.DataFrame:
        """Return a row by its place, as a table of one row."""
        rows = vars(self)[table]
        if isinstance(rows, StoredColumns):
            return tables.frame(table, {name: np.array([value]) for name, value in rows.row(at).items()})
        frame: pd.DataFrame = rows.iloc[[at]]
        return frame

    def is_in_memory(self, table: str) -> bool:
        """Tell whether a table is a data frame already, or still on disk."""
        return not isinstance(vars(self)[table], StoredColumns)

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        rows = vars(self)[table]
        return rows.rows if isinstance(rows, StoredColumns) else len(rows)

    def with_info(self, info: RunInfo, folder: Path | None = None) -> Run:
        """Return this run with another `run.json`, and in a folder; tables on disk stay there."""
        rows = {table: vars(self)[table] for table in tables.TABLES}
        return Run(folder or self.folder, self.experiment, info, wall=self.wall, **rows)

    def __repr__(self) -> str:
        where = f" in {self.folder}" if self.folder else ""
        sizes = (self.count(table) for table in ("commits", "visits", "clients"))
        counts = ", ".join(
            plural(n, word) for n, word in zip(sizes, ("commit", "visit", "client"), strict=True)
        )
        return f"<Run {self.name}: {self.info.status}, {counts}{where}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows of a run: how it ended, what it took, its last score."""
        totals, score = self.info.totals, self.info.last_score
        rows = {
            "status": self.info.status + (f": {self.info.reason}" if self.info.reason else ""),
            "virtual time": said("time_s", self.info.end_time_s),
            "commits": str(self.count("commits")),
            "visits": ", ".join(
                f"{n} {outcome.replace('_', ' ')}" for outcome, n in sorted(totals.outcomes.items())
            ),
            "uploaded": said("bytes", totals.up_bytes),
            "energy": said("joules", totals.joules),
            "last score": ""
            if score is None
            else f"{score.metric} {number(math.nan if score.value is None else score.value)} ({score.split})",
            "folder": "" if self.folder is None else str(self.folder),
        }
        cells = "".join(
            f"<tr><th style='text-align: left'>{name}</th><td style='text-align: left'>{escape(text)}</td></tr>"
            for name, text in rows.items()
            if text
        )
        return f"<table><caption>{escape(self.name)}</caption>{cells}</table>"

    def save(self, folder: str | Path) -> Run:
        """Write a run that lives in memory to a new folder, and return it with that folder.

        Raises:
            RunFolderError: the folder holds a run already or cannot be created.
        """
        folder = Path(folder)
        columns: dict[str, tables.Arrays] = {}
        for table in tables.TABLES:
            rows = self.columns(table)
            columns[table] = rows if isinstance(rows, StoredColumns) else tables.fit(table, rows)
        with run_folder.claimed(folder, self.experiment, self.info):
            if self.wall:
                text = "".join(tables.encode(line) + "\n" for line in self.wall)
                write_atomically(folder / "wall.jsonl", text.encode())
            info = run_folder.fold(folder, columns, self.info)
        return self.with_info(info, folder)


def load(folder: str | Path) -> Run:
    """Return the run stored in a folder.

    The lines of a run that was killed are folded into Parquet first, and its status becomes `killed`; so are those that
    an interrupted run has left.
    A run that may still be going, here or on another host, is read without touching its files; `info.reason` says how
    that is known.

    Raises:
        RunFolderError: the folder does not exist, holds no run, or holds one that cannot be read.
    """
    folder = Path(folder)
    head, experiment = run_folder.read_head(folder)
    info = head
    running = info.status == "running"
    stands = standing(folder, info) if running else None
    unfolded = run_folder.has_lines(folder) or not info.files
    loose = running or (info.status in ("interrupted", "failed") and unfolded)
    closed = stands is None or (stands.sure and not stands.alive)
    if closed:
        clear_dropped(folder)
    columns = run_folder.read_tables(folder, complete=not loose, scratch=folder if closed else None)
    damage = next(unsound(columns), None)
    if damage is not None:
        fix = "take the folder as the run left it, or run the experiment again"
        raise RunFolderError(message(str(folder), f"is damaged: {damage}", fix=fix))
    if loose:
        info = summed(info, columns)
    if stands is not None:
        info = _standing_as(info, stands)
    wall = run_folder.read_wall(folder)  # what cannot be read leaves the folder as it is
    untidy = run_folder.has_lines(folder) if stands is None else closed
    if untidy:
        info = _tidied(folder, head, info, columns)
    return run_of(folder, experiment, info, columns, wall)


def _standing_as(info: RunInfo, stands: Standing) -> RunInfo:
    """Return what is known of a run that nobody has closed: it is going, or it was killed; and how that is known."""
    if stands.alive:
        return replace(info, reason=stands.words)
    return replace(info, status="killed", reason=f"nobody has closed the run: {stands.words}")


def _tidied(folder: Path, head: RunInfo, info: RunInfo, columns: Mapping[str, tables.Arrays]) -> RunInfo:
    """Fold what a run has left, unless somebody has begun to work on it since its `head` was read.

    A read-only copy, or one on a full disk, is as readable untidied.
    """
    with contextlib.suppress(OSError, RunFolderError):
        held = hold(folder)
        try:
            if read_info(folder / "run.json").text() == head.text():
                info = run_folder.fold(folder, columns, info)
        finally:
            held.release()
    return info


def run_of(
    folder: Path | None,
    experiment: dict[str, Any],
    info: RunInfo,
    columns: Mapping[str, tables.Arrays],
    wall: list[dict[str, Any]],
) -> Run:
    """Return a run of the columns of its tables; long ones on disk stay there."""
    rows = {table: _rows(table, columns[table]) for table in tables.TABLES}
    return Run(folder=folder, experiment=experiment, info=info, wall=wall, **rows)


def _rows(table: str, columns: tables.Arrays) -> pd.DataFrame | StoredColumns:
    is_long = isinstance(columns, StoredColumns) and not columns.is_kept
    return cast("StoredColumns", columns) if is_long else tables.frame(table, columns)
