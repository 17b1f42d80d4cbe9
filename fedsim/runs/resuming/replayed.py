"""The rows of a run beside those that its schedule gives again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsim.clock.plan import Plan
from fedsim.errors import RunFolderError, message
from fedsim.records import tables
from fedsim.records.folder import WRITTEN
from fedsim.records.info import RunInfo
from fedsim.records.rows import CommitRow, PersonalRow, ScoreRow, VisitRow, plain
from fedsim.records.tables import TABLES, Columns
from fedsim.records.verify.compared import COLUMNS, KEYS
from fedsim.records.writer import Writer

Key = tuple[object, ...]


class StoredRows:
    """The rows of a run's tables, found by their keys, as they were written."""

    def __init__(self, where: str, columns: Mapping[str, Columns]) -> None:
        """Take the tables.

        Args:
            where: of the run, for errors.
            columns: its tables.
        """
        self.where = where
        self._columns = {
            table: {name: column.tolist() for name, column in columns[table].items()} for table in TABLES
        }
        self._places = {table: self._indexed(table) for table in ("visits", "commits")}
        self.written: dict[str, list[int]] = {"visits": [], "commits": []}

    def _indexed(self, table: str) -> dict[Key, int]:
        keys = zip(*(self._columns[table][name] for name in KEYS[table]), strict=True)
        return {key: place for place, key in enumerate(keys)}

    def compare(self, table: str, row: VisitRow | CommitRow) -> None:
        """Compare a row that the schedule gives with the run's.

        Raises:
            RunFolderError: there is none, or it differs; says where, and both values.
        """
        values, named = plain(row), self._named(table, plain(row))
        place = self._places[table].get(tuple(values[name] for name in KEYS[table]))
        if place is None:
            raise self._differs(f"{table}: {named} is missing")
        self._compare(table, place, values, named)
        self.written[table].append(place)

    def compare_final(self, table: str, row: VisitRow | CommitRow) -> None:
        """Compare a row with the run's where that was final, but for what training computes; there may be none.

        Raises:
            RunFolderError: it differs.
        """
        values = plain(row)
        place = self._places[table].get(tuple(values[name] for name in KEYS[table]))
        if place is None or not self._is_final(table, place):
            return
        untrained = {
            name: self._columns[table][name][place] for name in ("loss", "loss_square") if name in values
        }
        self._compare(table, place, values | untrained, self._named(table, values))

    def _is_final(self, table: str, place: int) -> bool:
        """Tell whether a row was not written because the run ended just then."""
        if table != "visits":
            return True
        columns = self._columns["visits"]
        outcome, version = columns["outcome"][place], columns["committed_version"][place]
        return outcome not in ("in_flight", "failed") and (outcome != "landed" or version >= 0)

    def compare_all(self, table: str, columns: Columns) -> None:
        """Compare a whole table, row by row.

        Raises:
            RunFolderError: as `compare`.
        """
        rows = len(columns[KEYS[table][0]])
        if rows != len(self._columns[table][KEYS[table][0]]):
            raise self._differs(
                f"{table}: has {len(self._columns[table][KEYS[table][0]])} rows, the schedule {rows}"
            )
        again = {name: column.tolist() for name, column in columns.items()}
        for place in range(rows):
            values = {name: column[place] for name, column in again.items()}
            self._compare(table, place, values, self._named(table, values))

    def _compare(self, table: str, place: int, values: Mapping[str, object], named: str) -> None:
        for column in COLUMNS[table]:
            mine, right = self._columns[table][column][place], values[column]
            if mine != right and not (mine != mine and right != right):  # noqa: PLR0124  # NaN
                what = f"{table}, {named}, column {column}: is {mine!r}, the schedule gives {right!r}"
                raise self._differs(what)

    def _named(self, table: str, values: Mapping[str, object]) -> str:
        if table == "visits":
            return f"visit {values['visit']} of client {values['client']}"
        return f"{KEYS[table][0]} {values[KEYS[table][0]]}"

    def _differs(self, what: str) -> RunFolderError:
        fix = "see `fedsim verify`; what was changed since cannot be gone on from"
        return RunFolderError(message(self.where, f"is not the run that its settings make: {what}", fix=fix))

    def lines(self, counts: Mapping[str, int]) -> dict[str, bytes]:
        """Return the rows as lines, in the order in which they were written: so many of each table.

        Raises:
            RunFolderError: a table has fewer, or the schedule gave another number.
        """
        return {table: b"".join(self._lines(table, counts.get(table, 0))) for table in WRITTEN}

    def _lines(self, table: str, count: int) -> Iterator[bytes]:
        columns = self._columns[table]
        there = len(next(iter(columns.values())))
        places: Sequence[int] = self.written.get(table, range(min(count, there)))
        if len(places) != count:
            what = f"{table}: has {len(places)} rows up to the checkpoint, which was taken after {count}"
            raise self._differs(what)
        for place in places:
            row = {name: column[place] for name, column in columns.items()}
            yield (tables.encode(row) + "\n").encode()


class RepeatedRows(Writer):
    """Takes the rows of a run that begins again in its folder, and holds each against what was there."""

    def __init__(
        self, folder: Path, plan: Plan, info: RunInfo, began_s: float, stored: StoredRows | None
    ) -> None:
        """Take the folder, cut back to nothing, and the rows that were there; None: they cannot be compared."""
        super().__init__(folder, plan.experiment, began_s, continues=info)
        self._stored = stored

    def visit(self, row: VisitRow) -> None:
        """Append a visit."""
        if self._stored is not None:
            self._stored.compare_final("visits", row)
        super().visit(row)

    def commit(self, row: CommitRow) -> None:
        """Append a server step."""
        if self._stored is not None:
            self._stored.compare_final("commits", row)
        super().commit(row)


class ReplayedRows(Writer):
    """Takes the rows of a replay and holds each against the run's; writes nothing."""

    def __init__(self, plan: Plan, stored: StoredRows) -> None:
        """Take the plan and the run's rows."""
        super().__init__(None, plan.experiment)
        self._stored = stored

    def clients(self, columns: Mapping[str, Any]) -> None:
        """Compare the table of clients."""
        self._stored.compare_all("clients", tables.joined("clients", [tables.fit("clients", columns)]))

    def visit(self, row: VisitRow) -> None:
        """Compare a visit."""
        self.counts["visits"] += 1
        self._stored.compare("visits", row)

    def commit(self, row: CommitRow) -> None:
        """Compare a server step."""
        self.counts["commits"] += 1
        self._stored.compare("commits", row)

    def score(self, row: ScoreRow) -> None:
        """There are none without values."""

    def personal(self, row: PersonalRow) -> None:
        """There are none without values."""

    def wall(self, facts: Mapping[str, Any]) -> None:
        """A replay has no real time."""

    def note(self, info: RunInfo) -> None:
        """Keep what `run.json` would hold."""
        self._info = info
