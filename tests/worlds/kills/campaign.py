"""Many trials one after the other: which ones, what came of them as a table and a CSV file."""

from __future__ import annotations

import csv
import fcntl
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np

from worlds.kills.kinds import QUICK, REAL_MODELS
from worlds.kills.watch import Order

COLUMNS = ("way", "kind", "trials", "cuts", "equal")
MOST_IN_A_ROW = 4
LARGE = ("write", "library")
"""Changes that can be done by half."""


def asked(name, default):
    """A number of trials from the environment."""
    return int(os.environ.get(f"FEDSIM_{name}", default))


def random_kills(numbers, seed):
    """Yield (kind, address, kills in a row): the kinds in turn, those that train a model less often.

    Six of ten are killed once, the others up to four times.
    """
    names = [*QUICK, REAL_MODELS[0]]
    for number in numbers:
        address, turn = (seed, number), number // len(names)
        names[-1] = REAL_MODELS[turn % len(REAL_MODELS)]
        times = int(np.random.default_rng((*address, 1)).choice(MOST_IN_A_ROW, p=[0.6, 0.2, 0.1, 0.1])) + 1
        yield names[number % len(names)], address, times


def orders(trace, rng, done):
    """Yield what to do at the places of a trace that are not done yet: one change of each, in every way."""
    places = {}
    for number, change in enumerate(trace):
        places.setdefault(change.place, []).append(number)
    for place, numbers in places.items():
        what = trace[numbers[0]].what
        for when in ("before", "half", "after") if what in LARGE else ("before", "after"):
            if (place, when) not in done:
                done.add((place, when))
                yield place, Order("kill", int(rng.choice(numbers)), when)


class Book:
    """What came of the trials."""

    def __init__(self):
        """Begin with none."""
        self.trials, self.cuts, self.equal, self.failures = Counter(), Counter(), Counter(), []
        self._until_s = time.monotonic() + asked("KILLS_S", 7200)

    def is_late(self):
        """Whether the time for these trials is over (FEDSIM_KILLS_S a test): what was tried by then counts."""
        return time.monotonic() > self._until_s

    def note(self, way, trial):
        """Note a trial."""
        key = way, trial.kind
        self.trials[key] += 1
        self.cuts[key] += trial.cuts
        self.equal[key] += not trial.wrong
        if trial.wrong:
            self.failures.append(f"{way}: {trial}")

    def rows(self):
        """One row for each way and kind, and one for each way."""
        rows = [(*key, self.trials[key], self.cuts[key], self.equal[key]) for key in sorted(self.trials)]
        for way in sorted({way for way, _ in self.trials}):
            mine = [row for row in rows if row[0] == way]
            rows.append((way, "all", *(sum(row[i] for row in mine) for i in (2, 3, 4))))
        return rows

    def table(self):
        """The rows as text."""
        lines = [COLUMNS, *self.rows()]
        return "\n".join(f"{w:<12}{k:<20}{t!s:>8}{c!s:>8}{e!s:>8}" for w, k, t, c, e in lines)

    def save(self, path):
        """Add the numbers to a CSV file."""
        with Path(path).open("a+", newline="", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            for way, kind, trials, cuts, equal in list(csv.reader(file))[1:]:
                if kind != "all":
                    self.trials[way, kind] += int(trials)
                    self.cuts[way, kind] += int(cuts)
                    self.equal[way, kind] += int(equal)
            file.truncate(0)
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *self.rows()])
