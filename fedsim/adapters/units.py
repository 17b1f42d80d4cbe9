"""One scale for what clients of different scales send, keep and owe: that of the layout, the server's units.

A client of scale s_k computes s_k B A, the server s B A. Its B counts as B times s_k / s: the product stays what it is,
whatever the scales, and nothing changes where they are equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Vector


def server_units(layout: Layout, scale: float | None) -> NDArray[np.float64] | None:
    """Return what a client's vector is multiplied with on the server, (layout.size,): s_k / s for B, 1 for all else.

    None where that changes nothing: equal scales, no scale of its own (None), whole tensors, or modules that
    differ in their scale (a client then uses theirs).
    """
    scales = layout.scales
    if scale is None or len(scales) != 1 or scale in scales:
        return None
    units = np.ones(layout.size)
    units[layout.of_factor("B")] = scale / next(iter(scales))
    return units


def in_server_units(layout: Layout, vector: Vector, scale: float | None) -> Vector:
    """Return a vector of a client of this scale as the server counts it; the same array where the scales are equal."""
    units = server_units(layout, scale)
    return vector if units is None else (vector * units).astype(np.float32)


def in_client_units(layout: Layout, vector: Vector, scale: float | None) -> Vector:
    """Return a vector of the server's as a client of this scale counts it: the inverse of `in_server_units`."""
    units = server_units(layout, scale)
    return vector if units is None else (vector / units).astype(np.float32)
