"""Marks of studies: one made up, and what tells whether those of a file are still those that were stated."""

from __future__ import annotations

import hashlib

CONTROL = ("control_form", "control_ways", "control_low", "control_high")
ASKED = ("mark", "study", "measure", "form", "ways", "low", "high", "null", *CONTROL)
"""What a mark asks for; the other columns say it in words."""


def stated(marks):
    """SHA-256 of what marks ask for."""
    asked = "\n".join("\t".join(row[name] for name in ASKED) for row in marks)
    return hashlib.sha256(asked.encode()).hexdigest()


def mark(**changed):
    """A mark of a ratio of two ways, without a control."""
    plain = {
        "study": "s",
        "measure": "m",
        "form": "ratio",
        "ways": "a | b",
        "low": "0.98",
        "high": "1.02",
        "null": "",
    }
    return plain | dict.fromkeys(CONTROL, "") | changed
