"""An invariant of visits as a value: which visits break it, and a sentence about one that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fedsim.records.verify.books import Books

CONFUSED = (ValueError, TypeError, KeyError, IndexError, OverflowError)
"""What a rule may raise where tables or settings are damaged, which another rule finds."""

Broken = Callable[[Books], Any]
"""Books -> for each visit, whether it breaks the invariant."""
Sentence = Callable[[Any], str]
"""A visit that breaks it -> what is wrong with it."""


class Invariant(NamedTuple):
    """Something that holds for every visit.

    Attributes:
        name: of it.
        broken: which visits break it.
        sentence: about one that does.
        whole: whether a visit is compared with others: it is then asked about all of them at once, and reads only the
            columns that it needs; else about some at a time.
    """

    name: str
    broken: Broken
    sentence: Sentence
    whole: bool = False


class Finding:
    """What was found of an invariant so far: the first visit that breaks it, and how many do."""

    def __init__(self, invariant: Invariant) -> None:
        self._invariant = invariant
        self._first: Any = None
        self._count = 0
        self._problem: Exception | None = None

    def look(self, books: Books) -> None:
        """Hold the invariant against some visits, or all; what confuses it is told by `said`."""
        if self._problem is not None:
            return
        try:
            at = np.flatnonzero(np.asarray(self._invariant.broken(books), dtype=bool))
            if at.size and not self._count:
                self._first = books.row(int(at[0]))
            self._count += at.size
        except CONFUSED as problem:
            self._problem = problem

    def said(self) -> Iterator[str]:
        """Say what is wrong with the first visit, and how many more there are.

        Raises:
            Exception: whatever has confused the invariant.
        """
        if self._problem is not None:
            raise self._problem
        if self._count:
            yield _sentence(self._first, self._count, self._invariant.sentence)


def said(visits: pd.DataFrame, broken: Any, sentence: Sentence) -> Iterator[str]:
    """Say once what is wrong with the first of the broken visits, and how many more there are."""
    at = np.flatnonzero(np.asarray(broken, dtype=bool))
    if at.size:
        row = (
            visits.iloc[[int(at[0])]].astype(object).iloc[0]
        )  # else whole numbers would become floats among floats
        yield _sentence(row, at.size, sentence)


def _sentence(row: Any, count: int, sentence: Sentence) -> str:
    more = f" (and {count - 1} more)" if count > 1 else ""
    return f"visit {row['visit']} of client {row['client']} {sentence(row)}{more}"
