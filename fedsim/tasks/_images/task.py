"""The runtime side of image generation.

Of a split there are three things to know: the loss of its images (`test`, `clients`, ...), what an extractor
sees in samples of the model (`samples`), and the samples themselves (`gallery`). A task is arrays and
settings, pickled whole to every worker; the worker that first needs the model loads it.

A piece of samples brings its own sums, and the first one besides those of the clients' images and of
the test images: their distance is what good samples come near to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Vector
from fedsim.cost.quantised import Quantise
from fedsim.errors import DataError, message
from fedsim.jobs import SPLIT, DrawingTask, FileKind, Job, Probe, Sums, Update
from fedsim.rng import stream
from fedsim.tasks._dealt import Batching, DealtTask
from fedsim.tasks._images.extractor import Features
from fedsim.tasks._images.pictures import Pictures
from fedsim.tasks._splits import Rows

if TYPE_CHECKING:
    from fedsim.metrics.frechet import Moments
    from fedsim.tasks._images.scores import Look, Loss, Samples
    from fedsim.training.diffusion.denoising import Shard
    from fedsim.training.diffusion.image_model import ImageModel
    from fedsim.training.diffusion.lora import Source
    from fedsim.training.diffusion.models import Signature

DRAWN = 50
"""Samples of one probe: the subsets over which the kernel distance is averaged."""


@dataclass(frozen=True)
class ImagesTask(DealtTask, DrawingTask):
    """Who has which images, and a denoiser by name.

    Attributes:
        prediction: what the denoiser predicts, or `auto`.
        told: whether it is told the classes.
        size: pixels of a side.
        classes: that clients have.
        grid: timesteps of a loss.
        samples, sampling_steps: images drawn a version, and DDIM's steps.
        features: the extractor, which counts classes, too; None: nothing looks at samples.
        further: more of them, for distances of their own.
        pictures: the clients' images.
        test: images that nobody trains on.
        quantise: how the frozen weights are held; None: as the model has them.
    """

    prediction: Literal["auto", "epsilon", "v_prediction", "sample"]
    told: bool
    size: int
    classes: tuple[int, ...]
    grid: int
    samples: int
    sampling_steps: int
    features: Features | None
    pictures: Pictures = field(repr=False)
    test: Pictures = field(repr=False)
    quantise: Quantise | None = None
    further: tuple[Features, ...] = ()

    unit: ClassVar[str] = "images"
    batching: ClassVar[Batching] = Batching(fewest=2, most=16, together=2**20)
    choose_split: ClassVar[str] = "choose test, clients or samples"

    @property
    def example_tokens(self) -> int:
        """Pixels of an image."""
        return self.size**2

    @property
    def eyes(self) -> tuple[Features, ...]:
        """What looks at samples, the one that counts classes first."""
        return () if self.features is None else (self.features, *self.further)

    def files(self, kinds: Collection[FileKind]) -> dict[str, Path]:
        """Return where the denoiser lies, and what looks at samples."""
        looking = {name for what in self.eyes for name in what.files} if "model" in kinds else set()
        return super().files(kinds) | {name: Path(name) for name in sorted(looking)}

    def moved(self, place: Callable[[str], str]) -> Self:
        """Return the task with other places of its denoiser and of what looks at samples."""
        features = None if self.features is None else self.features.moved(place)
        further = tuple(what.moved(place) for what in self.further)
        return replace(super().moved(place), features=features, further=further)

    def pretrained(self) -> Vector:
        """Return the model's own weights."""
        return self.image_model.pretrained(self.layout)

    def suggested_training(self) -> Literal["swapped", "sequential"]:
        """Return what `numerics.training` stands for with this model and these targets."""
        return self.image_model.path(self.layout)

    def warm(self) -> None:
        """Load the weights."""
        self.image_model.load()

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train the jobs together, or one by one where no backbone takes several clients."""
        data = [_shard(self.pictures, self.splits.training[job.client]) for job in jobs]
        return self.image_model.train(data, jobs)

    def save_adapter(self, vector: Vector, folder: Path, base: Vector | None = None) -> int:
        """Write the adapter as a PEFT and as a diffusers folder, or the model as diffusers'; return its rank."""
        return self.image_model.save(vector, folder, base)

    # scores -------------------------------------------------------------------------------------

    def probes(self, split: str, windows: int | None = None, client: int | None = None) -> list[Probe]:
        """Return pieces of 32 images of a split (of `windows` drawn once by address), or of 50 samples.

        Clients with models of their own start from noises of their own, and what they draw together is looked at as what one
        model draws.

        Raises:
            DataError: there is no such split, or nothing that could look at samples.
        """
        if split != "samples":
            return super().probes(split, windows, client)
        if not self.samples:
            fix = "set task.features (and task.samples), or leave samples out"
            what = "there is nothing to look at samples with"
            raise DataError(message("evaluate.splits", what, got=split, fix=fix))
        ends = [*range(DRAWN, self.samples - 1, DRAWN), self.samples]  # never one alone: it has no KID
        first = 0 if client is None else client * self.samples
        pairs = zip([0, *ends], ends, strict=False)
        return [Probe(split, first + at, first + end, client) for at, end in pairs]

    def score(self, vector: Vector, probe: Probe, base: Vector | None = None) -> Sums:
        """Return the sums of one piece: of a loss, or of what an extractor sees in samples; or pictures."""
        if probe.split == SPLIT:
            return {"images": self.draw(vector, range(probe.start, probe.stop), base)}
        if probe.split == "samples":
            return self.seen(vector, probe, base).sums()
        return self.loss(vector, probe, base).sums()

    def metric_names(self, split: str) -> tuple[str, ...] | None:
        """Return the names of `metrics`; those of samples hang on what looks at them, which is seen then."""
        return None if split == "samples" else ("loss",)

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return `loss`; or of samples the distances and, where a classifier looks, shares of classes."""
        from fedsim.tasks._images.scores import Loss, read

        score = read(sums)
        if isinstance(score, Loss):
            return score.metrics()
        return score.metrics(self.eyes, self.pictures.names, self.classes)

    def loss(self, vector: Vector, probe: Probe, base: Vector | None) -> Loss:
        """Return the squared errors of a piece over the grid."""
        from fedsim.tasks._images.scores import Loss

        pictures = self.test if probe.split == "test" else self.pictures
        rows = self.rows(probe.split, probe.client)[probe.start : probe.stop]
        address = "test" if probe.split == "test" else "clients"
        images = _shard(pictures, rows)
        error = self.image_model.error(vector, images, rows.tolist(), self.grid, address, base)
        return Loss(error, float(len(rows) * self.grid), float(len(rows) * self.example_tokens))

    def seen(self, vector: Vector, probe: Probe, base: Vector | None) -> Samples:
        """Return what the extractors see in a piece of samples."""
        from fedsim.tasks._images import features
        from fedsim.tasks._images.scores import Samples
        from fedsim.training.local import one_thread

        with one_thread():
            images = self.draw(vector, range(probe.start, probe.stop), base)
            looks = tuple(self._look(i, images, probe) for i in range(len(self.eyes)))
            classes = features.classes(self.eyes[0], images)
        counts = None
        if classes is not None:
            counts = np.bincount(classes, minlength=len(self.pictures.names)).astype(np.float64)
        return Samples(looks, counts)

    def _look(self, number: int, images: NDArray[np.uint8], probe: Probe) -> Look:
        """Return what one extractor sees; the first piece of a score brings the sums of real images."""
        from fedsim.metrics.frechet import Moments
        from fedsim.metrics.kernel import between, kernel_distance, within
        from fedsim.metrics.sums import Stacked
        from fedsim.tasks._images import features
        from fedsim.tasks._images.scores import Look

        drawn = features.features(self.eyes[number], images)
        real, known, itself = self._reference[number]
        reference = (known, self._held_out[number]) if probe.start == 0 else None
        if probe.client is None:
            return Look(Moments.of(drawn), kernel_distance(drawn, real, itself) * len(drawn), reference)
        outside = (itself - 2 * between(drawn, real)) * len(drawn)
        return Look(Moments.of(drawn), outside, reference, Stacked((drawn,)), within(drawn) * len(drawn))

    def draw(self, vector: Vector, numbers: Sequence[int], base: Vector | None = None) -> NDArray[np.uint8]:
        """Return the samples of these numbers (n, C, H, W); sample i starts from noise i, of class i mod C."""
        told = np.array([self.classes[i % len(self.classes)] for i in numbers]) if self.told else None
        return self.image_model.draw(vector, numbers, told, self.sampling_steps, base)

    def real(self, n: int) -> NDArray[np.uint8]:
        """Return n of the clients' images, class after class."""
        order = stream(self.seed, "gallery").permutation(len(self.pictures))
        pools = [order[self.pictures.labels[order] == c] for c in self.classes]
        rows = [pools[i % len(pools)][i // len(pools) % len(pools[i % len(pools)])] for i in range(n)]
        return self.pictures.pixels[rows]

    def classes_of(self, client: int) -> str:
        """Return the names of a client's classes, largest first, at most three."""
        counts = np.bincount(self.pictures.labels[self.splits.training[client]])
        largest = [self.pictures.names[c] for c in np.argsort(-counts, kind="stable") if counts[c]]
        return ", ".join(largest[:3]) + (" and others" if len(largest) > 3 else "")

    @cached_property
    def _reference(self) -> list[tuple[NDArray[np.float64], Moments, float]]:
        """By extractor: features of the clients' images, held-out ones included, their sums and mean kernel; once a process."""
        from fedsim.metrics.frechet import Moments
        from fedsim.tasks._images.features import reference

        known = [reference(what, self.pictures.pixels) for what in self.eyes]
        return [(features, Moments.of(features), itself) for features, itself in known]

    @cached_property
    def _held_out(self) -> list[Moments]:
        """By extractor: sums of the test images' features; once a process."""
        from fedsim.metrics.frechet import Moments
        from fedsim.tasks._images.features import reference

        return [Moments.of(reference(what, self.test.pixels)[0]) for what in self.eyes]

    # the model: torch is imported here and not before ----------------------------------------------

    @property
    def source(self) -> Source:
        """The denoiser, as a worker needs it to load it."""
        from fedsim.training.diffusion.lora import Source

        return Source(self.model, self.prediction, self.lora, self.told, self.quantise)

    @property
    def how(self) -> Signature:
        """How the denoiser is called."""
        from fedsim.training.diffusion.models import signature

        return signature(self.model)

    @property
    def image_model(self) -> ImageModel:
        """The denoiser, as this process trains it and draws with it."""
        from fedsim.training.diffusion.image_model import ImageModel

        return ImageModel(self.source, self.numerics, self.seed)


def _shard(pictures: Pictures, rows: Rows) -> Shard:
    from fedsim.training.diffusion.denoising import Shard

    return Shard(pictures.pixels[rows], pictures.labels[rows])
