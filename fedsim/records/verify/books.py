"""What the auditor reads: the tables of a run beside what they must be, recomputed from the tables alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from fedsim.arrays import Bools, Floats, Ints, Values
from fedsim.records.info import UNFINISHED
from fedsim.records.run import Run

LARGEST = 1e300
"""A setting beyond it is none that anybody meant."""


class Clients:
    """The table of clients, found by their number.

    Attributes:
        rows: how many.
    """

    def __init__(self, run: Run) -> None:
        """Take the clients of a run."""
        self._run, self.rows = run, run.count("clients")
        self._columns: dict[str, pd.Series[Any]] = {}
        self._made: dict[str, pd.Series[Any]] = {}

    def column(self, name: str) -> pd.Series[Any]:
        """Return a column, by client; of one that is there twice its first row."""
        if name not in self._columns:
            rows = self._run.frame("clients", "client", name).drop_duplicates("client")
            self._columns[name] = pd.Series(rows[name].array, index=self._index(rows["client"]), name=name)
        return self._columns[name]

    def once(self, name: str, make: Callable[[Run], pd.Series[Any]]) -> pd.Series[Any]:
        """Return what follows from the table, by client: made at the first question, whichever visits it is asked for."""
        if name not in self._made:
            self._made[name] = make(self._run)
        return self._made[name]

    def _index(self, clients: pd.Series[Any]) -> pd.Index[Any]:
        """Return one index for all columns: what it is searched with is made once."""
        first = next(iter(self._columns.values()), None)
        return pd.Index(clients) if first is None else first.index

    @cached_property
    def small(self) -> Values:
        """Clients whose memory is too small for their rank."""
        rows = self._run.frame("clients", "client", "needed_memory_bytes", "usable_memory_bytes")
        return rows["client"][rows["needed_memory_bytes"] > rows["usable_memory_bytes"]].to_numpy()


class Books:
    """The tables of a run, or some of its visits with the other tables.

    Attributes:
        run: whose.
        known: its clients.
        commits: its commits.
        unfinished: whether visits under way have no row yet.
        on_close: what becomes of a visit whose device goes away.
        as_another: whether another model is charged than the one that is trained.
        preinstalled: whether no visit brings the frozen model.
    """

    def __init__(self, run: Run, rows: pd.DataFrame | None = None, known: Clients | None = None) -> None:
        """Take a run whose tables have all their columns.

        Args:
            run: whose.
            rows: some of its visits; None: all.
            known: its clients, where they were looked at already.
        """
        self.run, self.known, self.commits = run, known or Clients(run), run.commits
        self._rows = rows
        self.unfinished = run.info.status in UNFINISHED
        self.on_close = str(self.block("population").get("on_close", "lost"))
        self.as_another = self.block("task").get("charge_as") is not None
        self.preinstalled = self.block("network").get("backbone") == "preinstalled"

    def blocks(self) -> Iterator[Books]:
        """Yield the visits of the run in their order, some at a time."""
        yield from (Books(self.run, rows, self.known) for rows in self.run.blocks("visits"))

    def frame(self, *names: str) -> pd.DataFrame:
        """Return some columns of the visits."""
        return self.run.frame("visits", *names) if self._rows is None else self._rows[list(names)]

    def row(self, at: int) -> pd.Series[Any]:
        """Return one of the visits, with the columns of `visits`."""
        rows = self.run.row("visits", at) if self._rows is None else self._rows.iloc[[at]]
        return Books(self.run, rows, self.known).visits.iloc[0]

    @property
    def rows(self) -> pd.DataFrame:
        """The visits, as the table has them."""
        return self.run.visits if self._rows is None else self._rows

    @property
    def takes_time(self) -> bool:
        """Whether the server works on its commits: a version is then ready later than its updates were taken."""
        return self.block("server").get("compute", "none") != "none"

    def taken_from_s(self) -> Floats:
        """Return the earliest instant at which the server can have taken the updates of each commit [s], (commits,)."""
        if not self.takes_time:
            return np.asarray(self.commits["time_s"].to_numpy(dtype=float))
        taken = self.frame("committed_version", "landed_s")
        landed_s = taken.groupby("committed_version")["landed_s"].max()
        last_s = self.commits["version"].map(landed_s).to_numpy(dtype=float)
        return np.maximum.accumulate(np.nan_to_num(last_s))

    def block(self, name: str) -> Mapping[str, object]:
        """Return a block of the settings; an empty one if there is none."""
        block = self.run.experiment.get(name)
        return block if isinstance(block, Mapping) else {}

    def number(self, block: str, key: str) -> float | None:
        """Return a number of the settings; None if there is none."""
        value = self.block(block).get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST:
            return None
        return float(value)

    @cached_property
    def visits(self) -> pd.DataFrame:
        """The visits; columns `client_*` are of the client, `expected_*` what must stand in the column."""
        visits = self.rows
        client = {name: self._of_client(name) for name in ("rank", "memory_plan", "idle_w")}
        version = visits["committed_version"]
        online_s = visits["ended_s"] - visits["dispatched_s"] - visits["paused_s"]
        return visits.assign(
            client_rank=client["rank"],
            client_memory_plan=client["memory_plan"],
            expected_gross=visits["joules"] + client["idle_w"].astype(float) * online_s,
            expected_version=self._versions_made(),
            expected_staleness=np.where(version > 0, version - 1 - visits["version"], -1),
            commit_s=self.commit_s(version),
        )

    def commit_s(self, version: pd.Series[Any]) -> pd.Series[Any]:
        """Return when versions were committed [s]; NaN for those that were not."""
        return version.map(self.commits.drop_duplicates("version").set_index("version")["time_s"])

    def _of_client(self, name: str) -> pd.Series[Any]:
        """Return a column of the clients' table, one entry a visit; NaN for clients that are not in it."""
        return self.rows["client"].map(self.known.column(name))

    def of_client(self, name: str) -> Floats:
        """Return a column of the clients' table, one number a visit; NaN for clients that are not in it, (visits,)."""
        return np.asarray(self._of_client(name).to_numpy(dtype=float))

    @cached_property
    def nothing(self) -> Bools:
        """No visit, (visits,)."""
        return np.zeros(len(self.rows), dtype=np.bool_)

    @cached_property
    def unpaused(self) -> Bools:
        """Visits whose device never paused, (visits,)."""
        return np.asarray(self.rows["paused_s"].to_numpy() == 0)

    def _versions_made(self) -> Ints:
        """Return how many versions there were at each dispatch."""
        times_s = np.sort(self.commits["time_s"].to_numpy(dtype=float))
        return np.searchsorted(times_s, self.rows["dispatched_s"].to_numpy(dtype=float), "right")

    @cached_property
    def small_memory(self) -> pd.Series[bool]:
        """Visits on devices whose memory is too small for the client's own rank, at that rank."""
        return self.visits["client"].isin(self.known.small) & self.own_rank

    @cached_property
    def own_rank(self) -> pd.Series[bool]:
        """Visits at the client's own rank; a smaller adapter may fit where that does not."""
        return self.visits["rank"] == self.visits["client_rank"]


def nth_of(*keys: Values) -> tuple[Ints, Ints]:
    """Return rows in the order of some keys, the first one first, and which of those with the same first key each is.

    Returns:
        Numbers of the rows, (rows,); for each of these 0, 1, ..., (rows,).
    """
    order = np.lexsort(keys[::-1])
    first = keys[0][order]
    new = np.ones(len(first), dtype=np.bool_)
    new[1:] = first[1:] != first[:-1]
    begins = np.flatnonzero(new)
    lengths = np.diff(begins, append=len(first))
    return order, np.arange(len(first)) - np.repeat(begins, lengths)


def repeated(*keys: Values) -> Bools:
    """Return which rows have the same keys as one before them, (rows,)."""
    order = np.lexsort(keys[::-1])
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    found = np.zeros(len(order), dtype=np.bool_)
    found[order[1:][same]] = True
    return found


def close_to(seconds: Floats, expected_s: Floats, at_s: Floats) -> Bools:
    """Compare durations that are differences of instants as late as `at_s`, up to the rounding of those."""
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.abs(seconds - expected_s) <= 1e-9 + 1e-9 * np.abs(expected_s) + 1e-12 * np.abs(at_s)
        )


def equal(values: Any, expected: Any) -> Bools:
    """Compare whole numbers exactly, sums of floats up to the order of summation."""
    if np.issubdtype(np.asarray(values).dtype, np.integer):
        return np.asarray(values == expected)
    return np.asarray(np.isclose(values, expected, rtol=1e-9, atol=1e-9))
