"""What one piece of an evaluation says about a denoiser: its loss, or what an extractor sees in its samples.

Both are sums, so that pieces add up; `read` gets them back from the sum of all pieces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsim.jobs import Sums
from fedsim.metrics.direction import CLIENTS_CLASSES, SAMPLES_DRAWN
from fedsim.metrics.frechet import Moments, frechet
from fedsim.tasks._images.extractor import Features

OF_TEST = " of test images"
"""Ends the name of the distance between real images, which good samples come near to."""


@dataclass(frozen=True)
class Loss:
    """A loss in parts.

    Attributes:
        error: squared errors, each the mean of an image's pixels, summed over images and timesteps.
        draws: how many.
        tokens: pixels of the images.
    """

    error: float
    draws: float
    tokens: float

    def sums(self) -> Sums:
        """Return the parts by name."""
        return {"error": self.error, "draws": self.draws, "tokens": self.tokens}

    def metrics(self) -> dict[str, float]:
        """Return `loss`."""
        return {"loss": self.error / self.draws if self.draws else math.nan}


@dataclass(frozen=True)
class Samples:
    """What an extractor sees in samples.

    Attributes:
        drawn: of the samples.
        kernel: kernel distance of each piece times its samples.
        counts: samples of each class, by number of the data's; None where no classifier looks.
        reference: (clients' images, test images); one piece alone brings them, so that their sums are those of one.
    """

    drawn: Moments
    kernel: float
    counts: NDArray[np.float64] | None
    reference: tuple[Moments, Moments] | None

    def sums(self) -> Sums:
        """Return the parts by name."""
        sums = {**_parts(self.drawn), "kernel": self.kernel}
        if self.counts is not None:
            sums["seen"] = self.counts
        if self.reference is not None:
            real, held_out = self.reference
            sums |= _parts(real, "real_") | _parts(held_out, "held_")
        return sums

    def metrics(self, features: Features, names: Sequence[str], classes: Sequence[int]) -> dict[str, float]:
        """Return the distances and, where a classifier looks, shares of classes.

        Args:
            features: what looked at the samples.
            names: of all classes of the data.
            classes: that clients have.
        """
        assert self.reference is not None
        real, held_out = self.reference
        frechet_name, kernel_name = features.names
        metrics = {
            frechet_name: frechet(self.drawn, real),
            kernel_name: self.kernel / self.drawn.n,
            f"{frechet_name}{OF_TEST}": frechet(held_out, real),
        }
        if self.counts is not None:
            shares = self.counts / self.drawn.n
            metrics[CLIENTS_CLASSES] = float(shares[list(classes)].sum())
            metrics |= {f"share of {names[c]}": float(shares[c]) for c in classes}
        return metrics | {SAMPLES_DRAWN: float(self.drawn.n)}


def read(sums: Sums) -> Loss | Samples:
    """Return what added sums are the sums of."""
    if sums.keys() == {"error", "draws", "tokens"}:
        return Loss(sums["error"], sums["draws"], sums["tokens"])
    reference = (_moments(sums, "real_"), _moments(sums, "held_")) if "real_n" in sums else None
    return Samples(_moments(sums), sums["kernel"], sums.get("seen"), reference)


def _parts(moments: Moments, prefix: str = "") -> Sums:
    return {f"{prefix}n": moments.n, f"{prefix}total": moments.total, f"{prefix}outer": moments.outer}


def _moments(sums: Sums, prefix: str = "") -> Moments:
    return Moments(sums[f"{prefix}n"], sums[f"{prefix}total"], sums[f"{prefix}outer"])
