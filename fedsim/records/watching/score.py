"""The last score of a run, and its best: what `run.json` keeps of its table for those who ask how it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LastScore:
    """The last score of the split that is looked at first: `test`, or the one that was scored last; its first metric.

    Attributes:
        version, split, metric: of what.
        value: None if it is not finite.
    """

    version: int
    split: str
    metric: str
    value: float | None


@dataclass(frozen=True, slots=True)
class BestVersion:
    """The version whose adapter is in `best/`, and the score that it was chosen by."""

    version: int
    split: str
    metric: str
    value: float


def last_score(rows: Sequence[Mapping[str, object]]) -> LastScore | None:
    """Return the last score of rows in the order in which they were written; None if there is none.

    What is no whole row is passed over.
    """
    scores = [score for row in rows if (score := _score(row)) is not None]
    if not scores:
        return None
    split = "test" if any(score.split == "test" for score in scores) else scores[-1].split
    of_split = [score for score in scores if score.split == split]
    return next(score for score in of_split if score.version == of_split[-1].version)


def _score(row: Mapping[str, object]) -> LastScore | None:
    version, split, metric, value = (row.get(key) for key in ("version", "split", "metric", "value"))
    if not (isinstance(version, int) and isinstance(split, str) and isinstance(metric, str)):
        return None
    finite = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    return LastScore(version, split, metric, finite)
