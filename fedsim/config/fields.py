"""Types of fields that several blocks share."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, localcontext
from typing import Annotated

from pydantic import Field

LARGEST = 1e100
"""The largest number of a setting: its square, and its products with counts, are finite."""
Positive = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
AtLeastOne = Annotated[float, Field(ge=1, le=LARGEST, allow_inf_nan=False)]
MOST = 10**9
"""The largest count: no run gets there, and products of counts stay whole numbers that NumPy can hold."""
Count = Annotated[int, Field(ge=1, le=MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
LargeCount = Annotated[int, Field(ge=1, le=10**15)]
"""Of parameters, or of tokens."""
Sigma = Annotated[float, Field(ge=0, le=3, allow_inf_nan=False)]
DAY_S = 86_400.0


def least_shown(bound: float) -> str:
    """Return a lower bound in four digits, rounded up: whoever writes what is shown is let through.

    >>> least_shown(0.7 / 0.3), least_shown(9.0), least_shown(0.9 / (1 - 0.9))
    ('2.334', '9', '9')
    """
    with localcontext(prec=4, rounding=ROUND_CEILING):
        return f"{float(+Decimal(bound * (1 - 1e-12))):g}"
