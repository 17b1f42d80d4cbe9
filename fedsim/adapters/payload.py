"""What travels between server and client in one direction: which arrays, how many slots, how many further numbers."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from fedsim.adapters.adapter import Layout


@dataclass(frozen=True)
class Payload:
    """What travels between server and client in one direction, and nothing besides.

    Attributes:
        arrays: names as in `Layout.slices` (`NAME.lora_A`, ...); None: every array of the layout.
        rank: slots of each factor that are sent; None: the layout's.
        extra_floats: more numbers, a catch-up with a moved base for one; float32 whatever the wire format.
    """

    arrays: tuple[str, ...] | None = None
    rank: int | None = None
    extra_floats: int = 0

    def floats(self, layout: Layout) -> int:
        """Return the number of floats, the extra ones included."""
        names = layout.slices if self.arrays is None else self.arrays
        return self.extra_floats + sum(math.prod(self.shape(layout, name)) for name in names)

    def shape(self, layout: Layout, name: str) -> tuple[int, ...]:
        """Return the shape in which an array travels: its slots cut to `rank`; whole tensors stay whole."""
        shape = layout.slices[name][1]
        axis = layout.slot_axes[name]
        if self.rank is None or axis is None:
            return shape
        return (*shape[:axis], min(self.rank, shape[axis]), *shape[axis + 1 :])

    def without(self, layout: Layout, names: Collection[str]) -> Payload:
        """Return what is left of it without some arrays; itself if they are none."""
        if not names:
            return self
        sent, left_out = layout.slices if self.arrays is None else self.arrays, frozenset(names)
        return replace(self, arrays=tuple(name for name in sent if name not in left_out))


WHOLE = Payload()
"""Every array at the layout's rank."""
NOTHING = Payload(arrays=())
"""Not a byte."""
