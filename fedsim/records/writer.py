"""A run being written: rows as they come, and the facts at its end."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from fedsim.config.experiment import Experiment
from fedsim.errors import HostError, message
from fedsim.files.disk import FULL, telling
from fedsim.files.lines import append_line
from fedsim.records import folder as run_folder
from fedsim.records import tables
from fedsim.records.info import RunInfo, saved_share, summed
from fedsim.records.integrity.seals import sealed, settings_sha256
from fedsim.records.integrity.versions import installed_versions
from fedsim.records.liveness.hold import Hold, hold, hold_of
from fedsim.records.liveness.process import this_process
from fedsim.records.rows import CommitRow, PersonalRow, Row, ScoreRow, VisitRow
from fedsim.records.run import Run, run_of
from fedsim.records.stored.parts import RowFile
from fedsim.records.stored.spool import Spool, spooled
from fedsim.records.watching.score import last_score

FOLDED_AT_ONCE = 20_000
"""Rows up to which a run that is interrupted is folded into Parquet before the process ends: half a second."""


class Writer:
    """Takes the rows of a running simulation; in a folder, or in memory (many of them in temporary files) if `folder` is None.

    Its wall seconds count from `began_s` of `time.perf_counter` (None: from now), when workers began to start.
    `info` is what `run.json` says from the start. With `continues` it is of a run that goes on in its folder, which is
    not claimed: its lock is had already.

    Attributes:
        folder: of the run.
        experiment: its settings as plain values, every path absolute.
        counts: rows that each table has by now.

    Raises:
        RunFolderError: the folder holds a run already or cannot be created.
    """

    def __init__(
        self,
        folder: Path | None,
        experiment: Experiment,
        began_s: float | None = None,
        info: RunInfo | None = None,
        *,
        continues: bool = False,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.experiment = portable(experiment)
        self._info = info or started(experiment)
        self.counts = dict.fromkeys(run_folder.WRITTEN, 0)
        self._from_s = time.perf_counter() if began_s is None else began_s
        self._clients: tables.Arrays = tables.joined("clients", [])
        self._files: dict[str, RowFile] = {}
        self._wall_file: BinaryIO | None = None
        self._lines = 0
        self._wall: list[dict[str, Any]] = []
        self._spools = {table: Spool(table) for table in run_folder.WRITTEN}
        self._hold: Hold | None = None
        if self.folder is not None and continues:
            self._hold = hold_of(self.folder)
        elif self.folder is not None:
            with telling(self.folder), run_folder.claimed(self.folder, self.experiment, self._info):
                self._hold = hold(self.folder)

    def clients(self, columns: Mapping[str, Any]) -> None:
        """Write the table of clients, one array a column; arrays that it does not have are left out."""
        rows = tables.joined("clients", [tables.fit("clients", columns)])
        if self.folder is None:
            self._clients = spooled("clients", rows)
        else:
            tables.write_parquet("clients", rows, self.folder / "clients.parquet")

    def visit(self, row: VisitRow) -> None:
        """Append a visit that has ended."""
        self._append("visits", row)

    def commit(self, row: CommitRow) -> None:
        """Append a server step."""
        self._append("commits", row)

    def score(self, row: ScoreRow) -> None:
        """Append one metric of one version."""
        self._append("scores", row)

    def personal(self, row: PersonalRow) -> None:
        """Append what one client gained from its own copy."""
        self._append("personal", row)

    def wall(self, facts: Mapping[str, Any]) -> None:
        """Append something measured with a wall clock; `wall_s` since the start is added."""
        line = {"wall_s": self.wall_s, **facts}
        if self.folder is None:
            self._wall.append(line)
        else:
            self._append_wall(self.folder, line)

    @property
    def info(self) -> RunInfo:
        """What `run.json` holds by now."""
        return self._info

    def note(self, info: RunInfo) -> None:
        """Write `run.json` anew at once, so that its facts are known even if the run is killed."""
        self._info = info
        if self.folder is not None:
            run_folder.write_info(self.folder, info)

    @property
    def wall_s(self) -> float:
        """Wall seconds by now."""
        return time.perf_counter() - self._from_s

    def sync(self) -> None:
        """Have on the disk what was written.

        Raises:
            OSError: the disk does not take it.
        """
        for file in self._files.values():
            file.sync()
        if self._wall_file is not None:
            os.fsync(self._wall_file.fileno())

    def _append(self, table: str, row: Row) -> None:
        self.counts[table] += 1
        if self.folder is None:
            self._spools[table].add(row)
            return
        self._lines += 1
        with self._telling_of_rows(self.folder):
            if table not in self._files:
                self._files[table] = RowFile(self.folder, table, self._append_line)
            self._files[table].append(row)

    def _append_wall(self, folder: Path, line: Mapping[str, Any]) -> None:
        with self._telling_of_rows(folder):
            if self._wall_file is None:
                self._wall_file = (folder / "wall.jsonl").open("ab", buffering=0)
            self._append_line(self._wall_file.fileno(), (tables.encode(line) + "\n").encode())

    @contextlib.contextmanager
    def _telling_of_rows(self, folder: Path) -> Iterator[None]:
        """Let a row be written."""
        try:
            yield
        except OSError as problem:
            what = f"cannot write a row ({problem.strerror})"
            fix = f"free some space, then `fedsim resume {folder}`"
            raise HostError(message(str(folder), what, fix=fix)) from problem

    def _append_line(self, descriptor: int, line: bytes) -> None:
        """Append a line; on a full disk it takes the room that was kept for the end, and the run ends."""
        try:
            append_line(descriptor, line)
        except OSError as problem:
            if self._hold is not None and problem.errno in FULL:
                self._hold.give_room()
                with contextlib.suppress(OSError):
                    append_line(descriptor, line)
            raise

    def close(
        self,
        *,
        status: Literal["done", "failed", "interrupted"],
        reason: str = "",
        ended: RunInfo | None = None,
    ) -> Run:
        """End the run: fold the lines into Parquet, complete `run.json`, and return the run.

        Args:
            status: how it ended.
            reason: why, in one sentence.
            ended: `run.json` with what the simulation knows at its end; without it, `end_time_s` and
                `totals` are what the tables add up to.
        """
        self._close_files()
        folder = self.folder
        columns = self._columns() if folder is None else run_folder.read_tables(folder, scratch=folder)
        info = replace(
            summed(self._info, columns) if ended is None else ended,
            status=status,
            reason=reason,
            ended=now(),
            wall_s=self.wall_s,
            saved_share=saved_share(columns),
            last_score=last_score(tables.rows_of(columns["scores"])),
        )
        if self.folder is None:
            self._info = sealed(info, None, columns)
            return run_of(None, self.experiment, self._info, columns, [dict(line) for line in self._wall])
        try:
            self._info = run_folder.fold(self.folder, columns, info)
        except OSError:
            if self._hold is not None:
                self._hold.give_room()
            if status == "done":
                raise
            self.note(info)  # the lines stay, and whoever reads the run folds them
        self.release()
        return run_of(self.folder, self.experiment, self._info, columns, run_folder.read_wall(self.folder))

    def interrupt(self, reason: str) -> None:
        """End a run that somebody has stopped, quickly: many rows stay lines, which whoever reads the run folds."""
        if self._info.status == "done":  # its page was still being written
            return
        if self.folder is None or self._lines <= FOLDED_AT_ONCE:
            self.close(status="interrupted", reason=reason)
            return
        self._close_files()
        wall_s = self.wall_s
        self.note(replace(self._info, status="interrupted", reason=reason, ended=now(), wall_s=wall_s))
        self.release()

    def release(self) -> None:
        """Let go of the folder: this process works on it no more; safe to call twice."""
        self._close_files()
        if self._hold is not None:
            self._hold.release()

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._wall_file is not None:
            self._wall_file.close()
            self._wall_file = None

    def _columns(self) -> dict[str, tables.Arrays]:
        """Return the tables of a run without a folder."""
        return {"clients": self._clients, **{name: spool.columns() for name, spool in self._spools.items()}}


def portable(experiment: Experiment) -> dict[str, Any]:
    """Return the plain configuration with every path absolute, so that it can be run from anywhere."""

    def absolute(stored: Any, typed: Any) -> Any:
        if isinstance(typed, Path):
            return str(typed.absolute())
        if isinstance(typed, dict):
            return {key: absolute(item, typed[key]) for key, item in stored.items()}
        return stored

    values: dict[str, Any] = absolute(experiment.plain(), experiment.model_dump())
    return values


def started(experiment: Experiment) -> RunInfo:
    """Return `run.json` of a run that begins now, in this process."""
    return RunInfo(
        name=experiment.name,
        status="running",
        seed=experiment.seed,
        digest=settings_sha256(portable(experiment)),
        started=now(),
        host=socket.gethostname(),
        pid=os.getpid(),
        process=this_process(),
        versions=installed_versions(),
    )


def now() -> str:
    """Return the time by the wall clock, as `run.json` has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
