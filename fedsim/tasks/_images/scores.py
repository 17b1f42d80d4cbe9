"""What one piece of an evaluation says about a denoiser: its loss, or what extractors see in its samples.

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
from fedsim.metrics.kernel import within_strata
from fedsim.metrics.sums import Stacked
from fedsim.tasks._images.extractor import Features

OF_TEST = " of test images"
"""Ends the name of the distance between real images, which good samples come near to."""
NOTHING = Stacked()


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
class Look:
    """What one extractor sees in samples.

    Attributes:
        drawn: of the samples.
        kernel: kernel distance of each piece times its samples; where there are rows, without those within the samples.
        reference: (clients' images, test images); one piece alone brings them, so that their sums are those of one.
        rows: features of the samples (n, d), a piece an array, where clients have models of their own: then the distance is
            that of what all of them draw. A mean of their distances would have how unlike the clients are in it.
        own: then, the mean kernel within each piece times its samples.
    """

    drawn: Moments
    kernel: float
    reference: tuple[Moments, Moments] | None
    rows: Stacked = NOTHING
    own: float = 0.0

    def sums(self, prefix: str) -> Sums:
        """Return the parts by name."""
        sums = {**_parts(self.drawn, prefix), f"{prefix}kernel": self.kernel}
        if self.reference is not None:
            real, held_out = self.reference
            sums |= _parts(real, f"{prefix}real_") | _parts(held_out, f"{prefix}held_")
        return sums | ({f"{prefix}rows": self.rows, f"{prefix}own": self.own} if self.rows else {})

    @property
    def _within(self) -> float:
        """The kernels within what all clients draw, where those are not in `kernel`."""
        return within_strata(np.concatenate(self.rows), self.own / self.drawn.n) if self.rows else 0.0

    def metrics(self, features: Features) -> dict[str, float]:
        """Return the distances, called after the extractor."""
        assert self.reference is not None
        real, held_out = self.reference
        frechet_name, kernel_name = features.names
        return {
            frechet_name: frechet(self.drawn, real),
            kernel_name: self.kernel / self.drawn.n + self._within,
            f"{frechet_name}{OF_TEST}": frechet(held_out, real),
        }


@dataclass(frozen=True)
class Samples:
    """What extractors see in samples.

    Attributes:
        looks: of each extractor, the first one first.
        counts: samples of each class, by number of the data's; None where no classifier looks.
    """

    looks: tuple[Look, ...]
    counts: NDArray[np.float64] | None

    def sums(self) -> Sums:
        """Return the parts by name."""
        sums: Sums = {} if self.counts is None else {"seen": self.counts}
        for number, look in enumerate(self.looks):
            sums |= look.sums(_prefix(number))
        return sums

    def metrics(
        self, eyes: Sequence[Features], names: Sequence[str], classes: Sequence[int]
    ) -> dict[str, float]:
        """Return the distances by each extractor and, where a classifier looks, shares of classes.

        Args:
            eyes: what looked at the samples, in the order of `looks`.
            names: of all classes of the data.
            classes: that clients have.
        """
        first, *further = (look.metrics(what) for look, what in zip(self.looks, eyes, strict=True))
        metrics, drawn = first, self.looks[0].drawn.n
        if self.counts is not None:
            shares = self.counts / drawn
            metrics[CLIENTS_CLASSES] = float(shares[list(classes)].sum())
            metrics |= {f"share of {names[c]}": float(shares[c]) for c in classes}
        for more in further:
            metrics |= more
        return metrics | {SAMPLES_DRAWN: float(drawn)}


def read(sums: Sums) -> Loss | Samples:
    """Return what added sums are the sums of."""
    if sums.keys() == {"error", "draws", "tokens"}:
        return Loss(sums["error"], sums["draws"], sums["tokens"])
    looks: list[Look] = []
    while f"{_prefix(len(looks))}n" in sums:
        looks.append(_look(sums, _prefix(len(looks))))
    return Samples(tuple(looks), sums.get("seen"))


def _look(sums: Sums, prefix: str) -> Look:
    reference = None
    if f"{prefix}real_n" in sums:
        reference = (_moments(sums, f"{prefix}real_"), _moments(sums, f"{prefix}held_"))
    return Look(
        _moments(sums, prefix),
        sums[f"{prefix}kernel"],
        reference,
        sums.get(f"{prefix}rows", NOTHING),
        sums.get(f"{prefix}own", 0.0),
    )


def _prefix(number: int) -> str:
    """Return how the names of an extractor's parts begin; those of the first have nothing before them."""
    return f"{number + 1}_" if number else ""


def _parts(moments: Moments, prefix: str) -> Sums:
    return {f"{prefix}n": moments.n, f"{prefix}total": moments.total, f"{prefix}outer": moments.outer}


def _moments(sums: Sums, prefix: str) -> Moments:
    return Moments(sums[f"{prefix}n"], sums[f"{prefix}total"], sums[f"{prefix}outer"])
