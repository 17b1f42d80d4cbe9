"""docs/families.md: its rows are what the models say; at least twenty families are on it."""

from __future__ import annotations

import re

import pytest
from worlds import families

TEXT = families.PAGE.read_text(encoding="utf-8")
ROWS = {
    kind: line
    for line, kind in re.findall(r"^(\| `(\w+)` \|.*)$", TEXT, re.MULTILINE)
    if kind != "model_type"
}
FEW = ("gemma3_text", "gemma2", "mixtral", "gpt_neox")
"""Of the others tests/slow/test_families.py sees to it."""


def test_every_family_that_was_tried_has_a_row():
    assert list(ROWS) == list(dict.fromkeys(families.FAMILIES))
    assert len(ROWS) >= 20
    assert {line.split(" | ")[1] for line in ROWS.values()} >= {"written out", "swapped", "stock PEFT"}


@pytest.mark.parametrize("kind", FEW)
def test_a_row_is_what_the_model_says(kind):
    """If not: python tests/worlds/families.py."""
    assert ROWS[kind] == families.row(kind)
