"""A run: a folder of tidy tables, written as it goes, and the object that holds them.

While a run goes, every row is one flushed JSON line; `Writer.close` folds the lines into Parquet,
and so does `load` for a run that was killed. What is measured with a wall clock (`run.json`,
`wall.jsonl`) never enters a table, so two runs of one experiment have equal tables to the byte.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from fedsim import run_folder, tables
from fedsim.errors import HostError, message
from fedsim.experiment import Experiment

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]
_PACKAGES = ("fedsim-edge", "numpy", "pandas", "pyarrow", "pydantic", "simpy", "torch", "transformers", "peft", "ray")  # fmt: skip


@dataclass(frozen=True, repr=False)
class Run:
    """What one simulation left behind.

    Attributes:
        folder: where it is stored; None if it lives in memory only (see `save`).
        experiment: the configuration as plain values; `Experiment.model_validate` gives the object back.
        info: `run.json`: name, status, reason, seed, digest, wall times, host, versions, executor,
            workers, end_time_s (virtual), totals, saved_share, task (facts about model and data).
        clients, visits, commits, scores, personal: the tables, columns as in `fedsim.tables.TABLES`.
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
                tables.replace(folder / "wall.jsonl", text.encode())
        values = {name: getattr(self, name) for name in tables.TABLES}
        return Run(folder=folder, experiment=self.experiment, info=self.info, wall=self.wall, **values)


class Writer:
    """Takes the rows of a running simulation; in a folder, or in memory if `folder` is None.

    Raises:
        RunFolderError: the folder holds a run already or cannot be created.
    """

    def __init__(self, folder: Path | None, experiment: Experiment) -> None:
        self.folder = None if folder is None else Path(folder)
        self._experiment = _portable(experiment)
        self._info = _started(experiment)
        self._from_s = time.perf_counter()
        self._clients = tables.joined("clients", [])
        self._files: dict[str, BinaryIO] = {}
        self._rows: dict[str, list[Row]] = {table: [] for table in (*run_folder.ROWS, "wall")}
        self._packed: dict[str, list[tables.Columns]] = {table: [] for table in run_folder.ROWS}
        if self.folder is not None:
            with run_folder.claimed(self.folder, self._experiment, self._info):
                pass

    def clients(self, columns: Mapping[str, Any]) -> None:
        """Write the table of clients, one array a column; arrays that it does not have are left out."""
        self._clients = tables.joined("clients", [tables.fit("clients", columns)])
        if self.folder is not None:
            tables.write_parquet("clients", self._clients, self.folder / "clients.parquet")

    def visit(self, row: Row) -> None:
        """Append a visit that has ended."""
        self._append("visits", row)

    def commit(self, row: Row) -> None:
        """Append a server step."""
        self._append("commits", row)

    def score(self, row: Row) -> None:
        """Append one metric of one version."""
        self._append("scores", row)

    def personal(self, row: Row) -> None:
        """Append what one client gained from its own copy."""
        self._append("personal", row)

    def wall(self, row: Row) -> None:
        """Append something measured with a wall clock; `wall_s` since the start is added."""
        self._line("wall", {"wall_s": time.perf_counter() - self._from_s, **row})

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add facts to `run.json` at once, so that they are known even if the run is killed."""
        self._info.update(run_folder.finite(facts))
        if self.folder is not None:
            run_folder.write_info(self.folder, self._info)

    def _append(self, table: str, row: Row) -> None:
        tables.check_row(table, row)
        self._line(table, row)

    def _line(self, table: str, row: Row) -> None:
        if self.folder is None:
            rows = self._rows[table]
            rows.append(dict(row))
            if len(rows) == 8192 and table in self._packed:  # dicts are ten times the size of arrays
                self._packed[table].append(tables.pack(table, rows))
                rows.clear()
            return
        try:
            file = self._files.get(table)
            if file is None:
                if table in run_folder.ROWS:
                    tables.pack(table, [row])  # a wrong type shows at the first row, not at the fold
                # Unbuffered: a line is one write to the system, so a kill never loses an earlier one.
                file = (self.folder / f"{table}.jsonl").open("ab", buffering=0)
                self._files[table] = file
            file.write((tables.encode(row) + "\n").encode())
        except OSError as problem:
            raise HostError(
                message(str(self.folder), f"cannot write a row ({problem.strerror})")
            ) from problem

    def close(
        self,
        *,
        status: Literal["done", "failed", "interrupted"],
        reason: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> Run:
        """End the run: fold the lines into Parquet, complete `run.json`, and return the run.

        Args:
            status: how it ended.
            reason: why, in one sentence.
            facts: more for `run.json`: executor, workers, end_time_s [virtual s], task, ...
        """
        ended = {
            "status": status,
            "reason": reason,
            "ended": _now(),
            "wall_s": time.perf_counter() - self._from_s,
        }
        self._info.update(ended)
        if self.folder is None:
            columns = {"clients": self._clients}
            for table in run_folder.ROWS:
                parts = [*self._packed[table], tables.pack(table, self._rows[table])]
                columns[table] = tables.joined(table, parts)
            info = _ended(self._info, columns, facts or {})
            return _run(None, self._experiment, info, columns, [dict(line) for line in self._rows["wall"]])
        for file in self._files.values():
            file.close()
        self._files.clear()
        columns = run_folder.read_tables(self.folder)
        info = _ended(self._info, columns, facts or {})
        run_folder.fold(self.folder, columns, info)
        return _run(self.folder, self._experiment, info, columns, run_folder.read_wall(self.folder))


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


def _portable(experiment: Experiment) -> dict[str, Any]:
    """Return the plain configuration with every path absolute, so that it can be run from anywhere."""

    def absolute(stored: Any, typed: Any) -> Any:
        if isinstance(typed, Path):
            return str(typed.absolute())
        if isinstance(typed, dict):
            return {key: absolute(item, typed[key]) for key, item in stored.items()}
        return stored

    found: dict[str, Any] = absolute(experiment.plain(), experiment.model_dump())
    return found


def _started(experiment: Experiment) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "name": experiment.name,
        "status": "running",
        "reason": "",
        "seed": experiment.seed,
        "digest": experiment.digest,
        "started": _now(),
        "ended": None,
        "wall_s": None,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "versions": versions,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _ended(
    info: Mapping[str, Any], columns: Mapping[str, tables.Columns], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Complete `run.json`: what the simulation says goes before what the tables show."""
    counted, said = _totals(columns), run_folder.finite(facts)
    return {**info, **counted, **said, "totals": {**counted["totals"], **said.get("totals", {})}}


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
