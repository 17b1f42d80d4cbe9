"""Rows of docs/claims.md that a study writes: a claim, its source, what was run, what came out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fedsim.records.statistics import MeanInterval
from fedsim.records.studies.kept import Rows
from fedsim.records.studies.marks import OUTCOMES, judged
from fedsim.records.studies.pages import between, table, with_interval

HEAD = ("claim", "source", "what we ran", "ours (95 % interval)", "outcome")
END = "<!-- end of claims -->"
Row = Sequence[str]


def begin(study: str) -> str:
    """Return the line above the rows of a study, whose folder in experiments/ is called so."""
    return f"<!-- claims: written by `python experiments/{study}/tables.py` -->"


def told(interval: MeanInterval, missing: int = 0) -> str:
    """Return what came out, with the number of seeds: `–` if nothing was run.

    >>> told(MeanInterval(1.5, 1.25, 1.75, 3, "student"), missing=1)
    '1.50 (1.25 to 1.75); n = 3, 1 without'
    >>> told(MeanInterval(1.5, 1.5, 1.5, 3, "student"))
    '1.50; n = 3, all alike'
    """
    if not interval.n:
        return "–"
    without = f", {missing} without" if missing else ""
    alike = ", all alike" if interval.n > 1 and interval.low == interval.high else ""
    return f"{with_interval(interval)}; n = {interval.n}{without}{alike}"


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
    """
    for mark in marks:
        found = judged(rows, mark)
        theirs = f": {mark['theirs']}" if mark.get("theirs") else ""
        ran = (
            f"[{what.format(**mark)}](../experiments/{study}/README.md): {mark['ways'].replace(' | ', '; ')}"
        )
        yield (
            f"{mark[named]}{theirs}",
            mark["source"],
            ran,
            told(found.ours, found.missing),
            _outcome(OUTCOMES[found.verdict], notes.get(mark["mark"], "")),
        )


def _outcome(said: str, note: str) -> str:
    return note if note.startswith("**") else f"{said}; {note}" if note else said


def put(page: Path, study: str, rows: Iterable[Row]) -> None:
    """Write the rows of a study into docs/claims.md.

    Raises:
        ValueError: the page has no place for them.
    """
    text = between(page.read_text("utf-8"), begin(study), END, table(HEAD, rows))
    page.write_text(text, encoding="utf-8")
