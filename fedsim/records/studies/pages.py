"""Tables of a page: numbers with their spread or interval, Markdown, and what is written between two marks of a page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from fedsim.records.quantities import number
from fedsim.records.statistics import MeanInterval


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table.

    >>> table(["", "hours"], [["rounds", "3.4"]])
    ['|  | hours |', '| --- | --- |', '| rounds | 3.4 |']
    """
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Return mean ± standard deviation of the seeds, the value of a single one; `–` if one is missing.

    >>> spread([1.0, 2.0, 3.0]), spread([2.0], 2), spread([1.0, float("nan")])
    ('2.0 ± 1.0', '2.00', '–')
    """
    found = np.array(list(values), dtype=float)
    if found.size == 0 or np.isnan(found).any():
        return "–"
    deviation = f" ± {found.std(ddof=1):.{digits}f}" if found.size > 1 else ""
    return f"{found.mean():.{digits}f}{deviation}"


def with_interval(interval: MeanInterval) -> str:
    """Return a mean and its interval in words: one number where it has none, or where its ends are the mean; `–` if there is no mean.

    >>> with_interval(MeanInterval(1.5, 1.25, 1.75, 3, "student"))
    '1.50 (1.25 to 1.75)'
    """
    if math.isnan(interval.mean):
        return "–"
    text, *ends = (number(x) for x in (interval.mean, interval.low, interval.high))
    return text if math.isnan(interval.low) or set(ends) == {text} else f"{text} ({ends[0]} to {ends[1]})"


def between(page: str, begin: str, end: str, lines: Iterable[str]) -> str:
    r"""Return a page with other lines between two of its lines, which stay.

    >>> between("a\n<!-- t -->\nold\n<!-- e -->\nz\n", "<!-- t -->", "<!-- e -->", ["new"])
    'a\n<!-- t -->\nnew\n<!-- e -->\nz\n'

    Raises:
        ValueError: one of them is not there.
    """
    before, found, rest = page.partition(f"{begin}\n")
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no {end if found else begin!r}")
    text = "".join(f"{line}\n" for line in lines)
    return f"{before}{found}{text}{closed}{after}"
