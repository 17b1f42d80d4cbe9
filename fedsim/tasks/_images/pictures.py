"""Images of one size with their classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images of one size with their classes.

    Attributes:
        pixels: uint8 (n, C, H, W).
        labels: int64 (n,), numbers of `names`.
        names: of the classes.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def take(self, rows: NDArray[np.integer | np.bool_]) -> Pictures:
        """Return some of the images."""
        return Pictures(self.pixels[rows], self.labels[rows], self.names)
