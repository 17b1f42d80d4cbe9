"""A run: a folder of tidy tables, written as it goes, and the object that holds them.

While a run goes, every row is one flushed JSON line; `Writer.close` folds the lines into Parquet,
and so does `load` for a run that was killed. What is measured with a wall clock (`run.json`,
`wall.jsonl`) never enters a table, so two runs of one experiment have equal tables to the byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.files import atomic
from fedsim.records import folder as run_folder
from fedsim.records import tables

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Run:
    """What one simulation left behind.

    Attributes:
        folder: where it is stored; None if it lives in memory only (see `save`).
        experiment: the configuration as plain values; `Experiment.model_validate` gives the object back.
        info: `run.json`: name, status, reason, seed, digest, wall times, host, versions, executor,
            workers, end_time_s (virtual), totals, saved_share, task (facts about model and data).
        clients, visits, commits, scores, personal: the tables, columns as in `fedsim.records.tables.TABLES`.
        wall: wall-clock lines; never compared between runs.
    """

    folder: Path | None
    experiment: dict[str, Any]
    info: dict[str, Any]
    clients: pd.DataFrame
    visits: pd.DataFrame
    commits: pd.DataFrame
    scores: pd.DataFrame
    personal: pd.DataFrame
    wall: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.info["name"])

    def __repr__(self) -> str:
        where = f" in {self.folder}" if self.folder else ""
        counts = f"{len(self.commits)} commits, {len(self.visits)} visits, {len(self.clients)} clients"
        return f"<Run {self.name}: {self.info['status']}, {counts}{where}>"

    def save(self, folder: str | Path) -> Run:
        """Write a run that lives in memory to a new folder, and return it with that folder.

        Raises:
            RunFolderError: the folder holds a run already or cannot be created.
        """
        folder = Path(folder)
        with run_folder.claimed(folder, self.experiment, self.info):
            for table in tables.TABLES:
                columns = tables.fit(table, {name: s.to_numpy() for name, s in getattr(self, table).items()})
                tables.write_parquet(table, columns, folder / f"{table}.parquet")
            if self.wall:
                text = "".join(tables.encode(line) + "\n" for line in self.wall)
                atomic.replace(folder / "wall.jsonl", text.encode())
        values = {name: getattr(self, name) for name in tables.TABLES}
        return Run(folder=folder, experiment=self.experiment, info=self.info, wall=self.wall, **values)


def load(folder: str | Path) -> Run:
    """Return the run stored in a folder.

    The lines of a run that was killed are folded into Parquet first, and its status becomes `killed`.
    A run that may still be going is read without touching its files.

    Raises:
        RunFolderError: the folder does not exist, holds no run, or holds one that cannot be read.
    """
    folder = Path(folder)
    info, experiment = run_folder.read_head(folder)
    killed = info["status"] == "running" and not run_folder.may_be_alive(info)
    columns = run_folder.read_tables(folder, complete=info["status"] != "running")
    if info["status"] == "running":
        info = {**info, **_totals(columns)}
    if killed:
        info = {**info, "status": "killed", "reason": "the process ended without closing the run"}
    if killed or (info["status"] != "running" and run_folder.has_lines(folder)):
        with contextlib.suppress(PermissionError):  # a read-only copy is as readable, only not tidied up
            run_folder.fold(folder, columns, info)
    return _run(folder, experiment, info, columns, run_folder.read_wall(folder))


def _run(
    folder: Path | None,
    experiment: dict[str, Any],
    info: dict[str, Any],
    columns: Mapping[str, tables.Columns],
    wall: list[dict[str, Any]],
) -> Run:
    frames = {table: tables.frame(table, columns[table]) for table in tables.TABLES}
    return Run(folder=folder, experiment=experiment, info=info, wall=wall, **frames)


def _totals(columns: Mapping[str, tables.Columns]) -> dict[str, Any]:
    """Return the sums that the command line and the report show."""
    visits, commits = columns["visits"], columns["commits"]
    count = len(visits["order"])
    times = np.concatenate([visits["ended_s"], commits["time_s"], columns["scores"]["time_s"], [0.0]])
    totals = {
        "clients": len(columns["clients"]["client"]),
        "visits": count,
        "outcomes": {name: n for name in tables.OUTCOMES if (n := int((visits["outcome"] == name).sum()))},
        "commits": len(commits["version"]),
        "up_bytes": int(visits["up_bytes"].sum()),
        "down_bytes": int(visits["down_bytes"].sum()),
        "serialized_up_bytes": int(visits["serialized_up_bytes"].sum()),
        "serialized_down_bytes": int(visits["serialized_down_bytes"].sum()),
        "joules": float(visits["joules"].sum()),
    }
    saved = 1.0 - float(visits["trained"].sum()) / count if count else 0.0
    return {"end_time_s": float(np.nanmax(times)), "totals": totals, "saved_share": saved}
