"""Classes of images: from labels as people write them to numbers from 0 on, and their names.

Whole numbers from 0 to 99,999 are class numbers themselves, whether they are numbers of a table, text or names of
folders: folder `10` is class 10. All others (words, negative, large or broken numbers) are names, which are numbered
in their order: numbers by value, words by alphabet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsim.arrays import Ints
from fedsim.errors import DataError, message

LARGEST = 100_000
"""Numbers below it are class numbers; so many names are made for them."""


@dataclass(frozen=True)
class Classes:
    """Names of classes, and the number of each label.

    Attributes:
        names: by number.
        numbers: label -> number.
    """

    names: tuple[str, ...]
    numbers: Mapping[str, int]

    def of(self, labels: Iterable[str]) -> Ints:
        """Return the numbers of labels."""
        return np.array([self.numbers[label] for label in labels], dtype=np.int64)


def classes_of(labels: Iterable[str]) -> Classes:
    """Return the classes that some labels are of.

    >>> classes_of(["2", "10", "0"]).numbers["10"], classes_of(["dog", "cat"]).names
    (10, ('cat', 'dog'))
    >>> classes_of(["-1", "1000000007"]).names
    ('-1', '1000000007')
    """
    different = set(labels)
    values = {label: int(label) for label in different if label.isascii() and label.isdecimal()}
    if (
        len(values) == len(different) == len(set(values.values()))
        and max(values.values(), default=0) < LARGEST
    ):
        names = list(map(str, range(max(values.values(), default=-1) + 1)))
        for label, value in values.items():
            names[value] = label
        return Classes(tuple(names), values)
    ordered = sorted(different, key=_order)
    return Classes(tuple(ordered), {label: i for i, label in enumerate(ordered)})


def text_of(labels: Sequence[object], column: str, where: str) -> list[str]:
    """Return the labels of a table as text, the same for 3, 3.0 and "3".

    Raises:
        DataError: one is missing.
    """
    words: list[str] = []
    for row, label in enumerate(labels, start=1):
        number = float(label) if isinstance(label, float | np.floating) else None
        if label is None or label == "" or (number is not None and math.isnan(number)):
            what, fix = f"{where}: row {row} has no {column}", "fill it in, or remove the row"
            raise DataError(message("task.label_column", what, fix=fix))
        words.append(str(int(number)) if number is not None and number.is_integer() else str(label))
    return words


def _order(label: str) -> tuple[float, str]:
    """Put numbers first, by value."""
    try:
        value = float(label)
    except ValueError:
        return math.inf, label
    return (math.inf if math.isnan(value) else value), label
