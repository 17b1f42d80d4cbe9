"""Cells as numbers: what every reader of tables takes for one, and marks that Python alone reads."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from fedsim.errors import ProfileError
from fedsim.files.plain_number import plain_number
from fedsim.importers.numbers import number


@pytest.mark.parametrize(
    ("cell", "value"),
    [("12", 12.0), (" -1.5e3 ", -1500.0), (7, 7.0), (Decimal("0.5"), 0.5), ("inf", math.inf)],
)
def test_numbers(cell, value):
    assert plain_number(cell) == value


@pytest.mark.parametrize(
    "cell", ["", None, True, "1_097", "\u0669\u0667", "\uff11", "12 GB", "0x10", 10**400, [1], b"1"]
)
def test_what_is_none(cell):
    assert math.isnan(plain_number(cell))


@pytest.mark.parametrize("cell", ["1_097", "\u0669\u0667"])
def test_importers_take_the_same(cell):
    with pytest.raises(ProfileError, match="must be a finite number"):
        number("file row 3", "kbps", cell)
