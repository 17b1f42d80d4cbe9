"""The auditor: replays the accounting of a run from its tables alone.

Nothing of the simulator is used. Each rule that does not hold gives one sentence that names
the first visit or commit which breaks it, and how many more do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fedsim.records.integrity.soundness import unsound
from fedsim.records.run import Run
from fedsim.records.tables import TABLES
from fedsim.records.verify.books import Books
from fedsim.records.verify.invariants import CONFUSED, said
from fedsim.records.verify.links import links
from fedsim.records.verify.papers import (
    broken_seals,
    columns_of,
    wrong_ends,
    wrong_heads,
    wrong_metrics,
    wrong_values,
    wrong_wall,
)
from fedsim.records.verify.rounds import wrong_rounds
from fedsim.records.verify.sums import (
    unbalanced_batteries,
    wrong_commits,
    wrong_running_totals,
    wrong_scores,
    wrong_totals,
    wrong_versions,
)
from fedsim.records.verify.visits import INVARIANTS, broken_visits

AUDITED = ("visits", "commits", "scores", "clients")


def verify(run: Run) -> list[str]:
    """Return what is wrong with a run's tables, one sentence a rule; empty if all hold.

    Checked: one ending per visit; instants in order; no client in two visits at once; seconds, bytes, FLOPs and
    joules computed again from the clients' devices and links; windows, pauses and cut work where the settings allow
    them, with a cause; batteries' joules in, out and left; transfers no faster than their links and the server's;
    memory refusals and plans against the clients' memory; cohorts, deadlines and buffers; versions consecutive and
    staleness recomputed; the sums of every commit and of `run.json` recomputed from the visits; scored versions; the
    SHA-256 of files and values.
    """
    missing = [
        f"{table} has no column {column!r}"
        for table in AUDITED
        for column in TABLES[table]
        if column not in run.columns(table)
    ]
    if missing:
        return missing
    books, problems = Books(run), list[str]()
    confused: Exception | None = None
    for check in CHECKS:
        try:
            with np.errstate(all="ignore"):  # numbers that are none are found, and warn of nothing
                problems += check(books)
        except CONFUSED as problem:
            confused = problem
    problems += unsound_values(run)
    if confused is not None and not problems:
        raise confused
    return problems


def unsound_values(run: Run) -> list[str]:
    """Return the values of a run's tables that stand for nothing, one sentence a column."""
    return [str(damage) for damage in unsound(columns_of(run))]


def _broken_links(books: Books) -> Iterator[str]:
    for visits, broken, sentence in links(books):
        yield from said(visits, broken, sentence)


CHECKS: tuple[Callable[[Books], Iterator[str]], ...] = (
    broken_visits,
    _broken_links,
    wrong_versions,
    wrong_commits,
    wrong_running_totals,
    wrong_totals,
    unbalanced_batteries,
    wrong_scores,
    wrong_rounds,
    wrong_heads,
    wrong_ends,
    wrong_wall,
    wrong_values,
    wrong_metrics,
    broken_seals,
)
RULES = len(INVARIANTS) + len(CHECKS) - 1
"""Rules that are held against the tables."""
