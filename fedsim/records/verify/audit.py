"""The auditor: replays the accounting of a run from its tables alone.

Nothing of the simulator is used. Each invariant that does not hold gives one sentence that names
the first visit or commit which breaks it, and how many more do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fedsim.records.run import Run
from fedsim.records.tables import TABLES
from fedsim.records.verify.books import Books
from fedsim.records.verify.invariants import said
from fedsim.records.verify.links import links
from fedsim.records.verify.sums import (
    unbalanced_batteries,
    wrong_commits,
    wrong_running_totals,
    wrong_scores,
    wrong_totals,
    wrong_versions,
)
from fedsim.records.verify.visits import broken_visits

AUDITED = ("visits", "commits", "scores", "clients")


def verify(run: Run) -> list[str]:
    """Return what is wrong with a run's tables, one sentence an invariant; empty if all hold.

    Checked: one ending per visit; instants in order; no client in two visits at once; bytes, FLOPs and
    joules in their bounds; gross joules recomputed from joules, idle power and time; pauses and cut work where
    `population.on_close` allows them, with a cause; batteries' joules in, out and left; transfers no faster
    than their links and the server's; memory refusals and plans against the clients' memory; versions
    consecutive and staleness recomputed; the sums of every commit and of `run.json` recomputed from the
    visits; scored versions.
    """
    missing = [
        f"{table} has no column {column!r}"
        for table in AUDITED
        for column in TABLES[table]
        if column not in run.tables[table].columns
    ]
    if missing:
        return missing
    books = Books(run)
    return [problem for check in CHECKS for problem in check(books)]


def _broken_links(books: Books) -> Iterator[str]:
    for visits, broken, sentence in links(books.run):
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
)
