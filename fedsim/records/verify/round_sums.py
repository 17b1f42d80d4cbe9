"""Which rounds have to be looked at one by one: all of them at once, by sums that a right round cannot miss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedsim.arrays import Bools, Floats, Ints, Values

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Terms:
    """What a protocol says of a round: how many count, how many are asked, until when, and whether the others are stopped."""

    cohort: float
    asked: float
    deadline_s: float | None
    stops: bool


class Rounds:
    """Visits by their round, ascending; within one in the table's order.

    Attributes:
        numbers: of the rounds, (rounds,).
    """

    def __init__(self, visits: pd.DataFrame) -> None:
        """Take visits with the columns that rounds are judged by."""
        rounds = visits["round"].to_numpy()
        order = np.argsort(rounds, kind="stable")
        self.numbers, self._starts = np.unique(rounds[order], return_index=True)
        self._visits, self._order = visits, order
        self._of = np.repeat(np.arange(len(self.numbers)), np.diff(self._starts, append=len(rounds)))

    def one_by_one(self, which: Bools) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield some rounds: the number of each, and its visits."""
        ends = np.append(self._starts[1:], len(self._order))
        for at in np.flatnonzero(which).tolist():
            rows = self._order[self._starts[at] : ends[at]]
            yield int(self.numbers[at]), self._visits.iloc[rows]

    def doubtful(self, terms: Terms, in_time: tuple[str, ...], slack_s: float) -> Bools:
        """Return which rounds may break a rule, (rounds,); the others surely break none."""
        if not len(self.numbers):
            return np.zeros(0, dtype=np.bool_)
        outcome, landed_s, ended_s = (
            self._sorted("outcome"),
            self._sorted("landed_s"),
            self._sorted("ended_s"),
        )
        counts = np.isin(outcome, in_time)
        began_s, last_began_s = (
            self._least(self._sorted("dispatched_s")),
            self._most(self._sorted("dispatched_s")),
        )
        number = self._count(counts)
        full_s = self._most(np.where(counts & ~np.isnan(landed_s), landed_s, -np.inf))
        doubt = (
            (began_s != last_began_s) | (self._count(counts | True) > terms.asked) | (number > terms.cohort)
        )
        late, surplus = outcome == "late", outcome == "surplus"
        doubt |= self._any(surplus) & (number < terms.cohort)
        doubt |= self._any(late) & (number >= terms.cohort)
        if terms.deadline_s is None:
            doubt |= self._any(late)
        else:
            doubt |= full_s > began_s + terms.deadline_s + slack_s
        if terms.stops:
            ends_s = began_s + (terms.deadline_s or 0.0)
            doubt |= self._any(late & (np.abs(ended_s - ends_s[self._of]) > slack_s / 2))
            late_s = np.where(late, ended_s, np.nan)
            doubt |= self._any(late & (late_s != self._most(np.nan_to_num(late_s, nan=-np.inf))[self._of]))
            stopped = surplus & np.isnan(landed_s)
            doubt |= self._any(stopped & ~(np.abs(ended_s - full_s[self._of]) <= slack_s / 2))
        return np.asarray(doubt | self._wrongly_committed(counts, number, full_s, terms))

    def _wrongly_committed(self, counts: Bools, number: Ints, full_s: Floats, terms: Terms) -> Bools:
        version, commit_s = self._sorted("committed_version"), self._sorted("commit_s")
        dropped = counts & (self._sorted("outcome") == "landed") & (version < 0)
        taken = counts & (version > 0)
        most = self._most(np.where(taken, version, 0))
        doubt = self._any(dropped) | self._any(taken & (version != most[self._of]))
        off = taken & (commit_s != full_s[self._of])
        return np.asarray(doubt | (self._any(off) & (number == terms.cohort)))

    def _sorted(self, name: str) -> Values:
        return np.asarray(self._visits[name].to_numpy()[self._order])

    def _count(self, which: Bools) -> Ints:
        return np.add.reduceat(which.astype(np.int64), self._starts)

    def _any(self, which: Bools) -> Bools:
        return np.logical_or.reduceat(which, self._starts)

    def _least(self, values: Values) -> Values:
        return np.minimum.reduceat(values, self._starts)

    def _most(self, values: Values) -> Values:
        return np.maximum.reduceat(values, self._starts)
