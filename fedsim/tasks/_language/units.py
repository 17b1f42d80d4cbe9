"""Units of text: a line of a file, a row of a table, or a document, with its owner and perhaps a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedsim.tasks._natural.times import Moment, in_order


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
        labels = None if self.labels is None else [self.labels[i] for i in rows]
        times = None if self.times is None else [self.times[i] for i in rows]
        return Texts([self.texts[i] for i in rows], [self.owners[i] for i in rows], labels, self.rows, times)

    def in_time(self, where: str) -> Texts:
        """Return the units from the earliest to the latest, in their order where nobody says when they were written."""
        return self if self.times is None else self.take(in_order(self.times, where))
