"""Images of one size with their classes, as they are read and as they are dealt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsim.tasks._natural.times import Moment, in_order


@dataclass(frozen=True, eq=False)
class Part:
    """One split as it is read.

    Attributes:
        pixels: see `Pictures`.
        labels: of each image.
        names: of the labels 0, 1, ... where the source says them.
        where: it was read, for messages.
        owners: who made each image; None: nobody says.
        times: when each was made; None: nobody says.
    """

    pixels: NDArray[np.uint8]
    labels: list[str]
    names: tuple[str, ...]
    where: str
    owners: list[str] | None = None
    times: list[Moment] | None = None

    def in_time(self) -> Part:
        """Return the images from the earliest to the latest, in their order where nobody says when they were made."""
        if self.times is None:
            return self
        order = in_order(self.times, self.where)
        owners = None if self.owners is None else [self.owners[row] for row in order]
        labels = [self.labels[row] for row in order]
        return replace(self, pixels=self.pixels[order], labels=labels, owners=owners, times=None)

    def pictures(self, labels: NDArray[np.int64], names: tuple[str, ...]) -> Pictures:
        """Return the images with their classes as numbers of names."""
        owners = None
        if self.owners is not None:
            numbers = {owner: i for i, owner in enumerate(dict.fromkeys(self.owners))}
            owners = np.array([numbers[owner] for owner in self.owners], dtype=np.int64)
        return Pictures(self.pixels, labels, names, owners)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images of one size with their classes.

    Attributes:
        pixels: uint8 (n, C, H, W).
        labels: int64 (n,), numbers of `names`.
        names: of the classes.
        owners: int64 (n,), numbers of who made them; None: nobody says.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    owners: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def take(self, rows: NDArray[np.integer | np.bool_]) -> Pictures:
        """Return some of the images."""
        owners = None if self.owners is None else self.owners[rows]
        return Pictures(self.pixels[rows], self.labels[rows], self.names, owners)
