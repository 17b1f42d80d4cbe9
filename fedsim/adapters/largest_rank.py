"""Does the rank fit the layers that are adapted? Asked as soon as their shapes are known, before anything starts."""

from __future__ import annotations

import math

from fedsim.adapters.adapter import Layout, Module
from fedsim.errors import ExperimentError, message


def smaller_side(module: Module) -> int:
    """Return min(in, out) of an adapted matrix: no product B A of it has a larger rank; a convolution's in is in x h x w."""
    return min(math.prod(module.a_shape[1:]), module.b_shape[0])


def refuse_larger_ranks(layout: Layout) -> None:
    """Refuse slots that no product can use: a rank above the smaller side of a layer.

    Raises:
        ExperimentError: with the smallest such layer.
    """
    narrow = [module for module in layout.modules if module.rank > smaller_side(module)]
    if not narrow:
        return
    module = min(narrow, key=smaller_side)
    side = smaller_side(module)
    sides = f"{module.b_shape[0]} x {math.prod(module.a_shape[1:])}"
    others = f", and {len(narrow) - 1} more" if len(narrow) > 1 else ""
    what = f"is more than {module.name} has ({sides}{others}): a product B A of it has rank {side} at most"
    fix = f"set lora.r: {side} or less, or leave that layer out of lora.targets"
    raise ExperimentError(message("lora.r", what, got=module.rank, fix=fix))
