"""The rows of a run beside those that its schedule gives again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedsim.arrays import Bools
from fedsim.clock.plan import Plan
from fedsim.errors import RunFolderError, message
from fedsim.records import tables
from fedsim.records.folder import WRITTEN
from fedsim.records.info import RunInfo
from fedsim.records.rows import CommitRow, PersonalRow, Row, ScoreRow, VisitRow
from fedsim.records.stored.parts import PACKED
from fedsim.records.tables import Columns
from fedsim.records.verify.compared import COLUMNS, KEYS
from fedsim.records.writer import Writer
from fedsim.runs.resuming.folder import WrittenRows
from fedsim.samplers.seen import Counts

COMPARED_TABLES = ("visits", "commits")
TRAINED_COLUMNS = ("loss", "loss_square")
"""Columns that training computes and a replay takes from the run."""


class StoredRows:
    """The rows of a run's tables, found by their keys."""

    def __init__(self, where: str, columns: Mapping[str, Columns]) -> None:
        """Take the tables.

        Args:
            where: of the run, for errors.
            columns: its tables.
        """
        self._where, self._columns = where, columns
        self._keys = {table: _keys(table, columns[table]) for table in COMPARED_TABLES}
        self._sorted = {table: np.argsort(keys, kind="stable") for table, keys in self._keys.items()}
        self._written: dict[str, list[Counts]] = {table: [] for table in COMPARED_TABLES}

    def compare(self, table: str, rows: Columns, *, final: bool = False) -> None:
        """Hold rows that the schedule gives against the run's.

        Args:
            table: whose rows.
            rows: in the order in which they were written.
            final: compare only where the run has a row that its end did not cut short, and not what training computes.

        Raises:
            RunFolderError: one is missing or differs; says where, and both values.
        """
        places = self._places(table, rows)
        there = places >= 0
        if final:
            there[there] = self._is_final(table, places[there])
        elif not there.all():
            raise self._differs(f"{table}: {_named(table, rows, int(np.argmin(there)))} is missing")
        mine = {name: column[places[there]] for name, column in self._columns[table].items()}
        right = {name: column[there] for name, column in rows.items()}
        for column in COLUMNS[table]:
            if not (final and column in TRAINED_COLUMNS):
                self._compare(table, column, mine, right)
        self._written[table].append(places)

    def _places(self, table: str, rows: Columns) -> Counts:
        """Return where the run has these rows, -1 where it has none."""
        keys, order = _keys(table, rows), self._sorted[table]
        if not len(order):
            return np.full(len(keys), -1)
        at = np.searchsorted(self._keys[table], keys, sorter=order)
        places: Counts = order[np.minimum(at, len(order) - 1)]
        return np.where(self._keys[table][places] == keys, places, -1)

    def _is_final(self, table: str, places: Counts) -> Bools:
        """Tell of rows whether they were not written because the run ended just then."""
        if table != "visits" or not len(self._keys[table]):
            return np.ones(len(places), dtype=np.bool_)
        outcome, version = (
            self._columns["visits"][name][places] for name in ("outcome", "committed_version")
        )
        cut_short = np.isin(outcome, ("in_flight", "failed")) | ((outcome == "landed") & (version < 0))
        return np.asarray(~cut_short, dtype=np.bool_)

    def _compare(self, table: str, column: str, mine: Columns, right: Columns) -> None:
        one, other = mine[column], right[column]
        same = one == other
        if other.dtype.kind == "f":
            same = same | (np.isnan(one) & np.isnan(other))
        if not np.all(same):
            at = int(np.argmin(same))
            where = f"{table}, {_named(table, right, at)}, column {column}"
            raise self._differs(f"{where}: is {_shown(one[at])}, the schedule gives {_shown(other[at])}")

    def compare_clients(self, right: Columns) -> None:
        """Hold the table of clients against the run's; one that it has not written yet is none.

        Raises:
            RunFolderError: they differ.
        """
        mine = self._columns["clients"]
        if len(mine["client"]) not in (0, len(right["client"])):
            what = f"clients: has {len(mine['client'])} rows, the schedule {len(right['client'])}"
            raise self._differs(what)
        for column in COLUMNS["clients"] if len(mine["client"]) else ():
            self._compare("clients", column, mine, right)

    def _differs(self, what: str) -> RunFolderError:
        fix = "see `fedsim verify`; what was changed since cannot be gone on from"
        return RunFolderError(message(self._where, f"is not the run that its settings make: {what}", fix=fix))

    def written(self, counts: Mapping[str, int]) -> dict[str, WrittenRows]:
        """Return the rows in the order in which they were written: so many of each table.

        Raises:
            RunFolderError: a table has fewer, or the schedule gave another number.
        """
        return {table: self._in_order(table, counts.get(table, 0)) for table in WRITTEN}

    def _in_order(self, table: str, count: int) -> WrittenRows:
        columns = self._columns[table]
        parts = self._written.get(table, [np.arange(min(count, tables.count(columns)))])
        places = np.concatenate([*parts, np.zeros(0, np.int64)])
        if len(places) != count:
            what = f"{table}: has {len(places)} rows up to the checkpoint, which was taken after {count}"
            raise self._differs(what)
        return WrittenRows(columns, places)


def _keys(table: str, columns: Columns) -> Counts:
    """Return one number a row that no other row has: of a visit, its client and which of its visits."""
    first, *rest = (columns[name].astype(np.int64) for name in KEYS[table])
    return first if not rest else (first << 32) + rest[0]


def _named(table: str, rows: Columns, at: int) -> str:
    if table == "visits":
        return f"visit {rows['visit'][at]} of client {rows['client'][at]}"
    return f"{KEYS[table][0]} {rows[KEYS[table][0]][at]}"


def _shown(value: object) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


class _Chunks:
    """Rows of some tables, handed on some thousand at a time."""

    def __init__(self, stored: StoredRows, *, final: bool) -> None:
        self._stored, self._final = stored, final
        self._rows: dict[str, list[Row]] = {table: [] for table in COMPARED_TABLES}

    def add(self, table: str, row: VisitRow | CommitRow) -> None:
        self._rows[table].append(row)
        if len(self._rows[table]) == PACKED:
            self.compare()

    def compare(self) -> None:
        """Compare all that is here."""
        for table, rows in self._rows.items():
            if rows:
                self._stored.compare(table, tables.pack(table, rows), final=self._final)
                rows.clear()


class RepeatedRows(Writer):
    """Takes the rows of a run that begins again in its folder, and holds each against what was there."""

    def __init__(
        self, folder: Path, plan: Plan, info: RunInfo, began_s: float, stored: StoredRows | None
    ) -> None:
        """Take the folder, cut back to nothing, and the rows that were there; None: they cannot be compared."""
        super().__init__(folder, plan.experiment, began_s, info, continues=True)
        self._chunks = None if stored is None else _Chunks(stored, final=True)

    def visit(self, row: VisitRow) -> None:
        """Append a visit."""
        super().visit(row)
        if self._chunks is not None:
            self._chunks.add("visits", row)

    def commit(self, row: CommitRow) -> None:
        """Append a server step, and compare what there is by now."""
        super().commit(row)
        if self._chunks is not None:
            self._chunks.add("commits", row)
            self._chunks.compare()


class ReplayedRows(Writer):
    """Takes the rows of a replay and holds each against the run's; writes nothing."""

    def __init__(self, plan: Plan, stored: StoredRows) -> None:
        """Take the plan and the run's rows."""
        super().__init__(None, plan.experiment)
        self._stored, self._chunks = stored, _Chunks(stored, final=False)

    def clients(self, columns: Mapping[str, object]) -> None:
        """Compare the table of clients."""
        self._stored.compare_clients(tables.joined("clients", [tables.fit("clients", columns)]))

    def compare(self) -> None:
        """Compare the rows that were not compared yet."""
        self._chunks.compare()

    def visit(self, row: VisitRow) -> None:
        """Compare a visit."""
        self.counts["visits"] += 1
        self._chunks.add("visits", row)

    def commit(self, row: CommitRow) -> None:
        """Compare a server step."""
        self.counts["commits"] += 1
        self._chunks.add("commits", row)

    def score(self, row: ScoreRow) -> None:
        """There are none without values."""

    def personal(self, row: PersonalRow) -> None:
        """There are none without values."""

    def wall(self, facts: Mapping[str, object]) -> None:
        """A replay has no real time."""

    def note(self, info: RunInfo) -> None:
        """Keep what `run.json` would hold."""
        self._info = info
