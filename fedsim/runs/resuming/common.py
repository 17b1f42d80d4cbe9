"""What a run that goes on from a checkpoint and one that begins again have in common."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from fedsim.clock.plan import Plan
from fedsim.clock.plan_tables import clients_table
from fedsim.errors import HostError, message
from fedsim.records import tables
from fedsim.records.info import RunInfo
from fedsim.records.liveness.resumption import Resumption
from fedsim.records.run import Run
from fedsim.records.stored.columns import StoredColumns
from fedsim.records.tables import Columns
from fedsim.records.writer import now, portable
from fedsim.runs.resuming.folder import WrittenRows, cut_back
from fedsim.runs.resuming.machine import processor


def resumption(before: Run, version: int, visits: int, commits: int, seconds: float) -> Resumption:
    """Return what `run.json` says of a run that goes on now; `before` is as its end has left it."""
    status = before.info.status
    after = "killed" if status == "running" else status
    return Resumption(now(), after, version, visits, commits, seconds, socket.gethostname(), processor())


def clients_columns(plan: Plan) -> Columns:
    """Return the table of clients of a plan."""
    return tables.joined("clients", [tables.fit("clients", clients_table(plan))])


def columns_of(run: Run) -> dict[str, Columns]:
    """Return the columns of a run's tables."""
    columns = {table: run.columns(table) for table in tables.TABLES}
    return {
        table: rows.read([*rows]) if isinstance(rows, StoredColumns) else dict(rows)
        for table, rows in columns.items()
    }


def cut(folder: Path, plan: Plan, info: RunInfo, rows: Mapping[str, WrittenRows], wall_s: float) -> None:
    """Cut a run folder back, see `fedsim.runs.resuming.folder.cut_back`.

    Raises:
        HostError: the disk does not take it.
    """
    try:
        cut_back(folder, portable(plan.experiment), info, rows, wall_s)
    except OSError as problem:
        raise HostError(message(str(folder), f"cannot be written ({problem.strerror})")) from problem
