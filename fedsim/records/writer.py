"""A run being written: rows as they come, and the facts at its end."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from fedsim.config.experiment import Experiment
from fedsim.errors import HostError, message
from fedsim.records import folder as run_folder
from fedsim.records import tables
from fedsim.records.run import Run, _run, _totals

Row = Mapping[str, Any]
_PACKAGES = ("fedsim-edge", "numpy", "pandas", "pyarrow", "pydantic", "simpy", "torch", "transformers", "peft", "ray")  # fmt: skip


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
