"""Seconds, bytes, joules and shares in the words a reader wants: `3.4 h`, `1.2 GB`, `99.76 %`.

Units are decimal (1 GB = 10^9 bytes). A scale is chosen once for a whole axis, so that the numbers of
one figure can be compared.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Scale(NamedTuple):
    """Divide by `divisor` to read the number in `unit`."""

    divisor: float
    unit: str


TIME = (Scale(1.0, "s"), Scale(60.0, "min"), Scale(3600.0, "h"), Scale(86400.0, "days"))
BYTES = tuple(Scale(1000.0**k, unit) for k, unit in enumerate(("B", "kB", "MB", "GB", "TB", "PB")))
ENERGY = tuple(Scale(1000.0**k, unit) for k, unit in enumerate(("J", "kJ", "MJ", "GJ")))
KINDS = {"time_s": TIME, "bytes": BYTES, "joules": ENERGY}
_ENOUGH = {"time_s": 2.0, "bytes": 1.0, "joules": 1.0}  # 90 minutes read better than 1.5 hours


def scale(kind: str, largest: float) -> Scale:
    """Return the unit in which the largest value of an axis is a handy number.

    >>> scale("bytes", 3.2e9)
    Scale(divisor=1000000000.0, unit='GB')
    """
    fitting = [step for step in KINDS[kind] if abs(largest) >= _ENOUGH[kind] * step.divisor]
    return fitting[-1] if fitting else KINDS[kind][0]


def number(value: float, digits: int = 3) -> str:
    """Return a number with about three significant digits and thousands apart.

    >>> number(1234.5), number(0.123456), number(22), number(float("nan"))
    ('1,234', '0.123', '22', '–')
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if whole >= digits:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}" if abs(value) < 1 else f"{value:.{digits - whole}f}"


def plural(n: int, word: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "client"), plural(1200, "visit")
    ('1 client', '1,200 visits')
    """
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def said(kind: str, value: float) -> str:
    """Return a quantity with its unit.

    >>> said("time_s", 12_240), said("bytes", 1_179_648), said("joules", 950)
    ('3.40 h', '1.18 MB', '950 J')
    """
    if not math.isfinite(value):
        return number(value)
    step = scale(kind, value)
    return f"{number(value / step.divisor)} {step.unit}"


def duration(value: float) -> str:
    """Return a duration for people.

    >>> [duration(s) for s in (0, 9.25, 75, 13260, 100000)]
    ['0s', '9.2s', '1m15s', '3h41m', '1d3h']
    """
    if not math.isfinite(value):
        return "never"
    if value < 60:
        return f"{value:.1f}s" if value % 1 else f"{value:.0f}s"
    whole = int(value)
    for big, small, unit in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big}{unit[0]}{rest}{unit[1]}" if rest else f"{whole // big}{unit[0]}"
    raise AssertionError(value)


def percent(share: float) -> str:
    """Return a share of one in percent, with the digits that matter near 0 and near 1.

    >>> percent(0.9976), percent(0.125), percent(0.0)
    ('99.76 %', '12.5 %', '0 %')
    """
    if not math.isfinite(share):
        return number(share)
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    digits = 2 if abs(share) > 0.99 or abs(share) < 0.001 else 1
    return f"{100 * share:.{digits}f} %"
