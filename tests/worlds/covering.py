"""Rows that together hold every allowed pair of values, chosen greedily and always alike."""

from __future__ import annotations

from itertools import combinations


def pairs_of(row):
    """All pairs ((factor, value), (factor, value)) of a row, as sets."""
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def cover(factors, allowed):
    """Return rows, one value of every factor each, that hold every pair that some allowed row can hold.

    Args:
        factors: name -> its values, the plainest first.
        allowed: whether a whole row may be.
    """
    plain = {name: values[0] for name, values in factors.items()}
    wanted = []
    for one, other in combinations(factors, 2):
        for a in factors[one]:
            for b in factors[other]:
                if completed({one: a, other: b}, plain, factors, allowed) is not None:
                    wanted.append({one: a, other: b})
    open_ = {frozenset(pair.items()) for pair in wanted}
    rows = []
    for pair in wanted:
        if frozenset(pair.items()) not in open_:
            continue
        row = completed(pair, plain, factors, allowed)
        for name in factors:
            if name in pair:
                continue
            tries = [{**row, name: value} for value in factors[name]]
            row = max((t for t in tries if allowed(t)), key=lambda t: len(pairs_of(t) & open_), default=row)
        open_ -= pairs_of(row)
        rows.append(row)
    return rows


def completed(pair, plain, factors, allowed):
    """The pair in a plain row, with at most one other factor changed if that is needed; None: never allowed."""
    row = {**plain, **pair}
    if allowed(row):
        return row
    for name in factors:
        if name not in pair:
            for value in factors[name]:
                if allowed({**row, name: value}):
                    return {**row, name: value}
    return None
