"""What a page is made of: plain values that the template lays out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fedsim.records.quantities import plural

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Card", "Page", "Picture", "Section", "Table", "listing", "plural"]

WORDS = 54
"""Longest cell that is a number with what belongs to it: `-1.25 (-2.00 to -0.500) no difference shown`."""


@dataclass(frozen=True)
class Card:
    """One figure of the verdict: a large value, what it is, and what it compares with."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of ready text; the first column is the row's name, the others are numbers, or words (`is_words`)."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    is_words: bool = False

    @cached_property
    def columns_of_words(self) -> frozenset[int]:
        """Places of the columns of words, the first one apart: all, or those of which a cell is longer than any number."""
        if self.is_words:
            return frozenset(range(1, len(self.header)))
        return frozenset(
            column
            for row in self.rows
            for column, cell in enumerate(row)
            if column and len(str(cell)) > WORDS
        )


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: its `data:` address, and what it shows."""

    source: str
    caption: str


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        anchor: id in the page; `title`: the question's name.
        text: paragraphs, plain text.
        figure: a Plotly figure, or None.
        stretches: (name, figure) to choose from in the figure's place, the first of them the figure; empty: no choice.
        reading: what the figure shows, for the caption and for a screen reader.
        formula: lines shown as they are, in a box.
        tables: below the figure.
        pictures: below the tables.
    """

    anchor: str
    title: str
    text: Sequence[str] = ()
    figure: Any = None
    reading: str = ""
    formula: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    stretches: Sequence[tuple[str, go.Figure]] = ()


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: heading; `lead`: the verdict in a sentence or two.
        notes: boxes that a reader must not miss (what was charged, how the run ended).
        cards, sections: see there.
        configurations: (name, YAML text) to fold out at the end.
        versions: what computed it.
    """

    title: str
    lead: str
    notes: Sequence[tuple[str, str]]
    cards: Sequence[Card]
    sections: Sequence[Section]
    configurations: Sequence[tuple[str, str]]
    versions: str


def listing(words: Sequence[str]) -> str:
    """Return words as a reader says them.

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
