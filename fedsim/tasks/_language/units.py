"""Units of text: a line of a file, a row of a table, or a document, with its owner and perhaps a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

from fedsim.tasks._natural.times import Moment, in_order


class Known(Protocol):
    """Units of which it is known whose they are, and perhaps what class they have and when they were written."""

    @property
    def owners(self) -> list[str]:
        """Whose."""

    @property
    def labels(self) -> list[str] | None:
        """Their classes."""

    @property
    def rows(self) -> bool:
        """Whether nothing is said about whose they are."""

    @property
    def times(self) -> list[Moment] | None:
        """When they were written."""


class About(TypedDict):
    """What is known of units, in their order: see `Texts`."""

    owners: list[str]
    labels: list[str] | None
    rows: bool
    times: list[Moment] | None


def joined(parts: Sequence[Known], *, timed: bool) -> About:
    """Return what is known of the units of several parts, one part after the other; classes if all parts have some.

    Args:
        parts: of one split.
        timed: whether it was asked when units were written.
    """
    labelled = all(part.labels is not None for part in parts)
    return {
        "owners": [owner for part in parts for owner in part.owners],
        "labels": [label for part in parts for label in part.labels or ()] if labelled else None,
        "rows": all(part.rows for part in parts),
        "times": [time for part in parts for time in part.times or ()] if timed else None,
    }


def chosen(units: Known, rows: Sequence[int]) -> About:
    """Return what is known of some units."""
    return {
        "owners": [units.owners[i] for i in rows],
        "labels": None if units.labels is None else [units.labels[i] for i in rows],
        "rows": units.rows,
        "times": None if units.times is None else [units.times[i] for i in rows],
    }


@dataclass(frozen=True)
class Texts:
    """Units of one split, in their order.

    Attributes:
        texts: the text of each unit.
        owners: who wrote it: a client column's value, the document or the file.
        labels: its class; None if there is none.
        rows: whether the units are rows of tables that say nothing about whose they are.
        times: when each was written; None: nobody says.
    """

    texts: list[str]
    owners: list[str]
    labels: list[str] | None = None
    rows: bool = False
    times: list[Moment] | None = None

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> Texts:
        """Return some units."""
        return Texts([self.texts[i] for i in rows], **chosen(self, rows))

    def in_time(self, where: str) -> Texts:
        """Return the units from the earliest to the latest, in their order where nobody says when they were written."""
        return self if self.times is None else self.take(in_order(self.times, where))
