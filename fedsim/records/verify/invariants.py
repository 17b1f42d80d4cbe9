"""An invariant of visits as a value: which visits break it, and a sentence about one that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fedsim.records.verify.books import Books

Broken = Callable[[Books], Any]
"""Books -> for each visit, whether it breaks the invariant."""
Sentence = Callable[[Any], str]
"""A visit that breaks it -> what is wrong with it."""


class Invariant(NamedTuple):
    """Something that holds for every visit."""

    name: str
    broken: Broken
    sentence: Sentence


def said(visits: pd.DataFrame, broken: Any, sentence: Sentence) -> Iterator[str]:
    """Say once what is wrong with the first of the broken visits, and how many more there are."""
    at = np.flatnonzero(np.asarray(broken, dtype=bool))
    if at.size:
        row = visits.iloc[int(at[0])]
        more = f" (and {at.size - 1} more)" if at.size > 1 else ""
        yield f"visit {row['visit']} of client {row['client']} {sentence(row)}{more}"
