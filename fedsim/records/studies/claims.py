"""Rows of docs/claims.md that a study writes: a claim, its source, what was run, what came out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from fedsim.records.quantities import number
from fedsim.records.studies.kept import Rows
from fedsim.records.studies.marks import NOT_RUN, OUTCOMES, Found, judged
from fedsim.records.studies.pages import between, table, with_interval

HEAD = ("claim", "source", "what we ran", "ours (95 % interval)", "outcome")
Row = Sequence[str]


def end(study: str) -> str:
    """Return the line below the rows of a study."""
    return f"<!-- end of claims of {study} -->"


def begin(study: str) -> str:
    """Return the line above the rows of a study, whose folder in experiments/ is called so."""
    return f"<!-- claims: written by `python experiments/{study}/tables.py` -->"


def told(found: Found) -> str:
    """Return what came out of a mark, with the number of seeds: `–` if nothing was run.

    >>> import math
    >>> from fedsim.records.statistics import MeanInterval
    >>> still = MeanInterval(1.0, 0.9, 1.1, 3, "student")
    >>> told(Found(MeanInterval(1.5, 1.25, 1.75, 3, "student"), still, 0, False, "yes"))
    '1.50 (1.25 to 1.75); n = 3'
    >>> told(Found(MeanInterval(math.nan, math.nan, math.nan, 3, "student"), still, 1, False, "not decided"))
    '–; n = 3, 1 without'
    """
    if not found.ours.n:
        return "–"
    without = f", {found.missing} without" if found.missing else ""
    mean = number(found.ours.mean) if found.alike and not found.missing else with_interval(found.ours)
    alike = ", all alike" if found.alike and not found.missing else ""
    return f"{mean}; n = {found.ours.n}{without}{alike}"


def of_marks(
    rows: Rows,
    marks: Iterable[Mapping[str, str]],
    study: str,
    named: str,
    *,
    what: str = "{study}",
    notes: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Row]:
    """Yield the row of every mark.

    Args:
        rows: of runs.csv.
        marks: the rows of marks.csv.
        study: name of its folder in experiments/.
        named: the column of marks.csv that says the claim.
        what: the words of the link to its page.
        notes: name of a mark -> what a reader of its outcome must know; one that begins with an outcome (`**...**`) stands in
            its place, as where the published figure is of something else than was measured.

    Raises:
        ValueError: a note on no mark.
    """
    listed = list(marks)
    if unknown := set(notes) - {mark["mark"] for mark in listed}:
        raise ValueError(f"notes on no mark: {', '.join(sorted(unknown))}")
    for mark in listed:
        found = judged(rows, mark)
        theirs = f": {mark['theirs']}" if mark.get("theirs") else ""
        ran = (
            f"[{what.format(**mark)}](../experiments/{study}/README.md): {mark['ways'].replace(' | ', '; ')}"
        )
        yield (
            f"{mark[named]}{theirs}",
            mark["source"],
            ran,
            told(found),
            outcome(found.verdict, notes.get(mark["mark"], "")),
        )


def outcome(verdict: str, note: str) -> str:
    """Return an outcome in the words of the page, with what its reader must know; nothing is known of what was not run.

    >>> outcome("yes", "as half of it is"), outcome("yes", "**not tested**: of another thing"), outcome("not run", "as half of it is")
    ('**confirmed**; as half of it is', '**not tested**: of another thing', '**not run**')
    """
    words = OUTCOMES[verdict]
    if not note or verdict == NOT_RUN:
        return words
    return note if note.startswith("**") else f"{words}; {note}"


def filled(page: str, study: str, rows: Iterable[Row]) -> str:
    """Return the text of docs/claims.md with the rows of a study in their place.

    Raises:
        ValueError: the page has no place for them.
    """
    return between(page, begin(study), end(study), table(HEAD, rows))
