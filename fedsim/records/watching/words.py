"""How long a run will take, in words."""

from __future__ import annotations

from fedsim.records.quantities import duration
from fedsim.records.watching.pace import Left

NARROW = 0.2
"""A band this narrow, by its half width over its middle, is said as one number."""


def left_said(left: Left) -> str:
    """Return how long it will take: one number, or the band where that is wide.

    >>> left_said(Left(3000.0, 2800.0, 3200.0)), left_said(Left(3000.0, 1800.0, 4500.0))
    ('about 50m left', '30m to 1h15m left')
    """
    if left.most_s - left.middle_s <= NARROW * left.middle_s or left.most_s < 10.0:
        return f"about {rounded(left.middle_s)} left"
    return f"{rounded(left.least_s)} to {rounded(left.most_s)} left"


def rounded(seconds: float) -> str:
    """Return a duration with no more digits than an estimate has.

    >>> rounded(3.4), rounded(4000.0)
    ('3s', '1h7m')
    """
    for unit in (3600.0, 60.0, 10.0):
        if seconds >= 10.0 * unit:
            return duration(round(seconds / unit) * unit)
    return duration(round(seconds))
