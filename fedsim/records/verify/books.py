"""What the auditor reads: the tables of a run beside what they must be, recomputed from the tables alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from fedsim.arrays import Bools, Floats, Ints
from fedsim.records.info import UNFINISHED
from fedsim.records.run import Run

LARGEST = 1e300
"""A setting beyond it is none that anybody meant."""


class Books:
    """The tables of a run.

    Attributes:
        run: whose.
        unfinished: whether visits under way have no row yet.
        on_close: what becomes of a visit whose device goes away.
        as_another: whether another model is charged than the one that is trained.
        preinstalled: whether no visit brings the frozen model.
    """

    def __init__(self, run: Run) -> None:
        """Take a run whose tables have all their columns."""
        self.run, self.clients, self.commits = run, run.clients, run.commits
        self.unfinished = run.info.status in UNFINISHED
        self.on_close = str(self.block("population").get("on_close", "lost"))
        self.as_another = self.block("task").get("charge_as") is not None
        self.preinstalled = self.block("network").get("backbone") == "preinstalled"

    @property
    def takes_time(self) -> bool:
        """Whether the server works on its commits: a version is then ready later than its updates were taken."""
        return self.block("server").get("compute", "none") != "none"

    def taken_from_s(self) -> Floats:
        """Return the earliest instant at which the server can have taken the updates of each commit [s], (commits,)."""
        if not self.takes_time:
            return np.asarray(self.commits["time_s"].to_numpy(dtype=float))
        landed_s = self.visits.groupby("committed_version")["landed_s"].max()
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
        visits = self.run.visits
        client = {name: self._of_client(name) for name in ("rank", "memory_plan", "idle_w")}
        commit_s = self.commits.drop_duplicates("version").set_index("version")["time_s"]
        version = visits["committed_version"]
        online_s = visits["ended_s"] - visits["dispatched_s"] - visits["paused_s"]
        return visits.assign(
            client_rank=client["rank"],
            client_memory_plan=client["memory_plan"],
            expected_gross=visits["joules"] + client["idle_w"].astype(float) * online_s,
            expected_version=self._versions_made(),
            expected_staleness=np.where(version > 0, version - 1 - visits["version"], -1),
            commit_s=version.map(commit_s),
        )

    def _of_client(self, name: str) -> pd.Series[Any]:
        """Return a column of the clients' table, one entry a visit; NaN for clients that are not in it."""
        known = self.clients.drop_duplicates("client").set_index("client")[name]
        return self.run.visits["client"].map(known)

    def of_client(self, name: str) -> Floats:
        """Return a column of the clients' table, one number a visit; NaN for clients that are not in it, (visits,)."""
        return np.asarray(self._of_client(name).to_numpy(dtype=float))

    @cached_property
    def nothing(self) -> Bools:
        """No visit, (visits,)."""
        return np.zeros(len(self.run.visits), dtype=np.bool_)

    @cached_property
    def unpaused(self) -> Bools:
        """Visits whose device never paused, (visits,)."""
        return np.asarray(self.run.visits["paused_s"].to_numpy() == 0)

    def _versions_made(self) -> Ints:
        """Return how many versions there were at each dispatch."""
        times_s = np.sort(self.commits["time_s"].to_numpy(dtype=float))
        return np.searchsorted(times_s, self.run.visits["dispatched_s"].to_numpy(dtype=float), "right")

    @cached_property
    def small_memory(self) -> pd.Series[bool]:
        """Visits on devices whose memory is too small for the client's own rank, at that rank."""
        clients, visits = self.clients, self.visits
        short = clients["client"][clients["needed_memory_bytes"] > clients["usable_memory_bytes"]]
        return visits["client"].isin(short) & self.own_rank

    @cached_property
    def own_rank(self) -> pd.Series[bool]:
        """Visits at the client's own rank; a smaller adapter may fit where that does not."""
        return self.visits["rank"] == self.visits["client_rank"]


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
