"""Test text for a corpus that has none of its own: whole stretches, a tenth of all, of every label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from fedsim.errors import DataError, message
from fedsim.tasks._language.units import Texts

TENTH = 10
"""One part in so many is held out."""
STRETCHES = 10
"""Into so many stretches a table is cut whose rows are nobody's: a table that is sorted gives some of each."""

Group = list[int]
"""Numbers of units, ascending."""


def held_out(whole: Texts) -> tuple[Texts, Texts, str]:
    """Return training text, test text and how they were told apart.

    The last tenth of each owner's units of each label is the test; of few units, of the owner's all labels
    together; of fewer than ten, the last tenth of the lines of each text with at least ten; failing that, the last
    units of all. Rows of a table without owners and labels are cut into ten stretches first: the last tenth of each.

    Raises:
        DataError: too short to hold anything out.
    """
    tested: set[int] = set()
    shortened: dict[int, tuple[str, str]] = {}
    for group in groups(whole):
        if len(group) >= TENTH:
            tested.update(group[len(group) - len(group) // TENTH :])
            continue
        for row in group:
            lines = whole.texts[row].splitlines(keepends=True)
            if len(lines) >= TENTH:
                cut = len(lines) - len(lines) // TENTH
                shortened[row] = "".join(lines[:cut]), "".join(lines[cut:])
    how = _said(whole) if tested else "the last tenth of each text is"
    if not tested and not shortened:
        tested = set(range(len(whole) - max(1, len(whole) // TENTH), len(whole)))
        how = "the last units of all are"
    trained = [row for row in range(len(whole)) if row not in tested]
    if not trained:
        fix = "give a longer text, or a folder with *train* and *test* files"
        raise DataError(message("task.data", "too short to hold out a tenth for testing", fix=fix))
    texts = [
        [shortened[i][part] if i in shortened else t for i, t in enumerate(whole.texts)] for part in (0, 1)
    ]
    train, test = (replace(whole, texts=part) for part in texts)
    return (
        train.take(trained),
        test.take(sorted(tested | shortened.keys())),
        f"{how} held out, and nobody trains on it",
    )


def groups(whole: Texts) -> list[Group]:
    """Return the units of each owner and label; an owner's labels of fewer than ten units are one group."""
    groups: dict[tuple[str, str | None], Group] = {}
    labels: Sequence[str | None] = whole.labels or [None] * len(whole)
    for row, key in enumerate(zip(whole.owners, labels, strict=True)):
        groups.setdefault(key, []).append(row)
    rest: dict[str, Group] = {}
    large = []
    for (owner, _), group in groups.items():
        if len(group) >= TENTH:
            large += _stretches(group) if whole.rows and whole.labels is None else [group]
        else:
            rest.setdefault(owner, []).extend(group)
    return large + [sorted(group) for group in rest.values()]


def _stretches(group: Group) -> list[Group]:
    count = min(STRETCHES, len(group) // TENTH)
    edges = [at * len(group) // count for at in range(count + 1)]
    return [group[a:b] for a, b in pairwise(edges)]


def _said(whole: Texts) -> str:
    if whole.labels is not None:
        return "the last tenth of each label is"
    return "the last tenth of each of ten stretches of the table is" if whole.rows else "the last tenth is"
