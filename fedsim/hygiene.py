"""What an update must be before a rule may see it."""

from __future__ import annotations

import math

import numpy as np

from fedsim.jobs import Update


def fault(update: Update, size: int) -> str | None:
    """Return what is wrong with an update for a layout of `size` floats, in words; None if nothing is."""
    end = np.asarray(update.end)
    if end.shape != (size,):
        return f"it has shape {end.shape}, the layout needs ({size},)"
    if end.dtype != np.float32:
        return f"its numbers are {end.dtype}, not float32"
    finite = np.isfinite(end)
    if not finite.all():
        return f"{size - int(np.count_nonzero(finite))} of its {size} numbers are not finite"
    if not (math.isfinite(update.examples) and update.examples >= 0):
        return f"it counts {update.examples} examples"
    return None
