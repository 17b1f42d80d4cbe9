"""A run: a folder of tidy tables, written as it goes, and the object that holds them.

While a run goes, every row is one flushed JSON line; `Writer.close` folds the lines into Parquet,
and so does `load` for a run that was killed. What is measured with a wall clock (`run.json`,
`wall.jsonl`) never enters a table, so two runs of one experiment have equal tables to the byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.errors import RunFolderError, message
from fedsim.files.atomic import write_atomically
from fedsim.records import folder as run_folder
from fedsim.records import tables
from fedsim.records.info import RunInfo, read_info, summed
from fedsim.records.integrity.soundness import unsound
from fedsim.records.liveness.hold import hold
from fedsim.records.liveness.standing import Standing, standing
from fedsim.records.quantities import plural

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Run:
    """What one simulation left behind.

    Attributes:
        folder: where it is stored; None if it lives in memory only (see `save`).
        experiment: the configuration as plain values; `Experiment.model_validate` gives the object back.
        info: `run.json`: how it ended, what it took, facts about model and data.
        clients, visits, commits, scores, personal: the tables, columns as in `fedsim.records.rows`.
        wall: wall-clock lines; never compared between runs.
    """

    folder: Path | None
    experiment: dict[str, Any]
    info: RunInfo
    clients: pd.DataFrame
    visits: pd.DataFrame
    commits: pd.DataFrame
    scores: pd.DataFrame
    personal: pd.DataFrame
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

    def __repr__(self) -> str:
        where = f" in {self.folder}" if self.folder else ""
        sizes = (len(self.commits), "commit"), (len(self.visits), "visit"), (len(self.clients), "client")
        counts = ", ".join(plural(n, word) for n, word in sizes)
        return f"<Run {self.name}: {self.info.status}, {counts}{where}>"

    def save(self, folder: str | Path) -> Run:
        """Write a run that lives in memory to a new folder, and return it with that folder.

        Raises:
            RunFolderError: the folder holds a run already or cannot be created.
        """
        folder = Path(folder)
        columns = {
            table: tables.fit(table, {str(name): column.to_numpy() for name, column in rows.items()})
            for table, rows in self.tables.items()
        }
        with run_folder.claimed(folder, self.experiment, self.info):
            if self.wall:
                text = "".join(tables.encode(line) + "\n" for line in self.wall)
                write_atomically(folder / "wall.jsonl", text.encode())
            info = run_folder.fold(folder, columns, self.info)
        return replace(self, folder=folder, info=info)


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
    columns = run_folder.read_tables(folder, complete=not loose)
    damage = next(unsound(columns), None)
    if damage is not None:
        fix = "take the folder as the run left it, or run the experiment again"
        raise RunFolderError(message(str(folder), f"is damaged: {damage}", fix=fix))
    if loose:
        info = summed(info, columns)
    if stands is not None:
        info = _standing_as(info, stands)
    wall = run_folder.read_wall(folder)  # what cannot be read leaves the folder as it is
    untidy = run_folder.has_lines(folder) if stands is None else (stands.sure and not stands.alive)
    if untidy:
        info = _tidied(folder, head, info, columns)
    return run_of(folder, experiment, info, columns, wall)


def _standing_as(info: RunInfo, stands: Standing) -> RunInfo:
    """Return what is known of a run that nobody has closed: it is going, or it was killed; and how that is known."""
    if stands.alive:
        return replace(info, reason=stands.words)
    return replace(info, status="killed", reason=f"nobody has closed the run: {stands.words}")


def _tidied(folder: Path, head: RunInfo, info: RunInfo, columns: Mapping[str, tables.Columns]) -> RunInfo:
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
    columns: Mapping[str, tables.Columns],
    wall: list[dict[str, Any]],
) -> Run:
    """Return a run of the columns of its tables."""
    frames = {table: tables.frame(table, columns[table]) for table in tables.TABLES}
    return Run(folder=folder, experiment=experiment, info=info, wall=wall, **frames)
