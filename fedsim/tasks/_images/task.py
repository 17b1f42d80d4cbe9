"""The runtime side of image generation: implements `fedsim.jobs.Task`.

A task is arrays and settings; it is pickled whole to every worker. The denoiser is loaded by the worker
that first needs it, once per process. A pixel counts as a token.

A version is scored in two ways: by its loss at fixed timesteps and noise of every image (`test`, `clients`), and
by images that it draws (`samples`). Both are cut into pieces for the workers, and everything that travels back is
a sum: of features and their products for the Frechet distance, of each piece's own unbiased estimate for the kernel
distance, of the classes that a classifier sees. The first piece also brings the sums of the clients' images and of
the test images: their distance is what good samples come near to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Vector
from fedsim.config.learning import LocalConfig, NumericsConfig
from fedsim.cost.shape import ModelShape
from fedsim.errors import DataError, message
from fedsim.jobs import SPLIT, DrawingTask, Job, Probe, Sums, Update
from fedsim.metrics import Moments, frechet, kernel_distance
from fedsim.metrics.direction import SAMPLES_DRAWN
from fedsim.rng import stream
from fedsim.tasks._images import features as _images_features
from fedsim.tasks._images.data import Pictures
from fedsim.training import gpu_room as room
from fedsim.training import lora as adapters
from fedsim.training.diffusion import lora as denoiser_lora
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion.denoising import Denoiser, Shard
from fedsim.training.diffusion.lora import Source
from fedsim.training.local import device, passes

Rows = NDArray[np.int64]

PIECE = 32
"""Images of one probe of a loss, whatever the number of workers."""
DRAWN = 50
"""Samples of one probe: the subsets over which the kernel distance is averaged."""
OF_TEST = " of test images"
"""Ends the name of the distance between real images, which good samples come near to."""
FEWEST, MOST, TOGETHER = 2, 16, 2**20
"""Clients in a client batch by default, and pixels times channels in a step of all of them."""


@dataclass(frozen=True)
class ImagesTask(DrawingTask):
    """Who has which images, and a denoiser by name.

    Attributes:
        source, how: the denoiser, and how it is called.
        numerics: by which path it trains.
        gpus_per_worker: share of a GPU that each worker has.
        seed: the experiment's, for the initialisation, the order of probes, and all noise.
        layout, shape: of what an update holds, of the model that trains.
        classes: that clients have.
        grid: timesteps of a loss.
        samples, sampling_steps: images drawn a version, and DDIM's steps.
        features: the extractor.
        pictures: the clients' images; `training`, `held_out`: each client's rows of them.
        test: images that nobody trains on.
        facts: about data and partition, for `describe`.
    """

    source: Source
    how: denoisers.Signature
    numerics: NumericsConfig
    gpus_per_worker: float
    seed: int
    layout: Layout
    shape: ModelShape
    classes: tuple[int, ...]
    grid: int
    samples: int
    sampling_steps: int
    features: _images_features.Features | None
    pictures: Pictures = field(repr=False)
    training: tuple[Rows, ...] = field(repr=False)
    held_out: tuple[Rows, ...] = field(repr=False)
    test: Pictures = field(repr=False)
    facts: dict[str, Any] = field(repr=False)

    @property
    def clients(self) -> int:
        """Number of clients."""
        return len(self.training)

    @property
    def pixels(self) -> int:
        """Tokens of an image."""
        return self.how.size**2

    def examples(self, client: int) -> int:
        """Return the images this client trains on, at least one."""
        return len(self.training[client])

    def tokens(self, client: int, local: LocalConfig) -> int:
        """Return the pixels of one visit, exactly."""
        return passes(self.examples(client), local) * self.pixels

    def initial(self) -> Vector:
        """Return version 0: LoRA's initialisation, or the pretrained weights."""
        if self.layout.full:
            return denoiser_lora.pretrained(self.source.name, self.layout)
        return adapters.initial(self.layout, self.seed)

    def suggested_training(self) -> Literal["swapped", "sequential"]:
        """Return what `numerics.training` stands for with this model and these targets."""
        skeleton = denoisers.skeleton(self.source.name)
        return denoiser_lora.resolved(skeleton, self.layout, self.numerics.training)

    def suggested_client_batch(self) -> int:
        """Return how many clients to train in one call: as many as fill `TOGETHER`, or what a GPU holds."""
        if room.on_gpu(self.gpus_per_worker):
            free = room.free_bytes(self.gpus_per_worker)
            return room.clients_that_fit(self.shape, self.layout, self.numerics.tokens_at_once, free)
        step = max(1, min(self.shape.batch, max(map(len, self.training)))) * self.pixels
        return max(FEWEST, min(MOST, TOGETHER // (step * self.shape.width)))

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train the jobs together, or one by one where no backbone takes several clients."""
        data = [self._shard(self.training[job.client]) for job in jobs]
        backbone, dropout = self._backbone(), self.source.lora.dropout
        if backbone is None:
            from fedsim.training import sequential
            from fedsim.training.diffusion.denoising import alone

            losses = alone(self.how, self.source.process, told=self.source.told)
            return sequential.train(self._trainee(), data, jobs, dropout=dropout, losses=losses)
        from fedsim.training import batched

        at_once = self.numerics.tokens_at_once
        return batched.train(backbone, data, jobs, tokens_at_once=at_once, dropout=dropout)

    def _shard(self, rows: Rows) -> Shard:
        return Shard(self.pictures.pixels[rows], self.pictures.labels[rows])

    def warm(self) -> None:
        """Load the denoiser."""
        if self._backbone() is None:
            self._trainee()

    # scores -------------------------------------------------------------------------------------

    def probes(self, split: str, windows: int | None = None, client: int | None = None) -> list[Probe]:
        """Return pieces of 32 images of a split (of `windows` drawn once by address), or of 50 samples.

        Clients with models of their own start from noises of their own: together they draw as one model would.

        Raises:
            DataError: there is no such split, or nothing that could look at samples.
        """
        if split == "samples":
            if not self.samples:
                fix = "set task.features (and task.samples), or leave samples out"
                what = "there is nothing to look at samples with"
                raise DataError(message("evaluate.splits", what, got=split, fix=fix))
            ends = [
                *range(DRAWN, self.samples - 1, DRAWN),
                self.samples,
            ]  # never one sample alone: it has no KID
            first = 0 if client is None else client * self.samples
            pairs = zip([0, *ends], ends, strict=False)
            return [Probe(split, first + at, first + end, client) for at, end in pairs]
        rows = self._rows(split, client)[1]
        n = len(rows) if windows is None else min(windows, len(rows))
        return [Probe(split, at, min(at + PIECE, n), client) for at in range(0, n, PIECE)]

    def score(self, vector: Vector, probe: Probe, base: Vector | None = None) -> Sums:
        """Return the sums of one piece: of a loss, or of what an extractor sees in samples."""
        if probe.split == SPLIT:
            return {"images": self.draw(vector, range(probe.start, probe.stop), base)}
        if probe.split != "samples":
            return self._loss(vector, probe, base)
        from fedsim.training.local import one_thread

        assert self.features is not None
        with one_thread():
            images = self.draw(vector, range(probe.start, probe.stop), base)
            seen = _images_features.features(self.features, images)
            named = _images_features.classes(self.features, images)
            real, known, itself = self._reference
            compared = {"real": known, "held": self._held} if probe.start == 0 else {}
        moments = Moments.of(seen)
        sums: Sums = {
            "n": moments.n,
            "total": moments.total,
            "outer": moments.outer,
            "kernel": kernel_distance(seen, real, itself) * len(seen),
        }
        if named is not None:
            sums["seen"] = np.bincount(named, minlength=len(self.pictures.names)).astype(np.float64)
        for name, of in compared.items():
            sums |= {f"{name}_n": of.n, f"{name}_total": of.total, f"{name}_outer": of.outer}
        return sums

    def _loss(self, vector: Vector, probe: Probe, base: Vector | None) -> Sums:
        """Return the summed squared errors of a piece over the grid, their number, and the pixels."""
        from fedsim.training.diffusion import scores as image_scores

        where, order = self._rows(probe.split, probe.client)
        rows = order[probe.start : probe.stop]
        name = "test" if probe.split == "test" else "clients"
        shard = Shard(where.pixels[rows], where.labels[rows])
        model = self._model()
        model.rebase(base)
        error = image_scores.grid_error(
            model, vector, self.source, shard, rows.tolist(), self.grid, (self.seed, name)
        )
        return {
            "error": error,
            "draws": float(len(rows) * self.grid),
            "tokens": float(len(rows) * self.pixels),
        }

    def draw(self, vector: Vector, numbers: Sequence[int], base: Vector | None = None) -> NDArray[np.uint8]:
        """Return the samples of these numbers (n, C, H, W); sample i starts from noise i, of class i mod C."""
        from fedsim.training.diffusion import scores as image_scores

        told = np.array([self.classes[i % len(self.classes)] for i in numbers]) if self.source.told else None
        model = self._model()
        model.rebase(base)
        return image_scores.drawn(
            model, vector, self.source, self.seed, list(numbers), told, self.sampling_steps
        )

    def real(self, n: int) -> NDArray[np.uint8]:
        """Return n of the clients' images, class after class."""
        order = stream(self.seed, "gallery").permutation(len(self.pictures))
        pools = [order[self.pictures.labels[order] == c] for c in self.classes]
        rows = [pools[i % len(pools)][i // len(pools) % len(pools[i % len(pools)])] for i in range(n)]
        return self.pictures.pixels[rows]

    def classes_of(self, client: int) -> str:
        """Return the names of a client's classes, largest first, at most three."""
        counts = np.bincount(self.pictures.labels[self.training[client]])
        largest = [self.pictures.names[c] for c in np.argsort(-counts, kind="stable") if counts[c]]
        return ", ".join(largest[:3]) + (" and others" if len(largest) > 3 else "")

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return `loss`; or of samples the distances and, where a classifier looks, shares of classes."""
        if "error" in sums:
            return {"loss": sums["error"] / sums["draws"] if sums["draws"] else math.nan}
        assert self.features is not None
        own = Moments(sums["n"], sums["total"], sums["outer"])
        real, held = (
            Moments(*(sums[f"{name}_{part}"] for part in ("n", "total", "outer")))
            for name in ("real", "held")
        )
        fd, kid = self.features.names
        found = {
            fd: frechet(own, real),
            kid: sums["kernel"] / sums["n"],
            f"{fd}{OF_TEST}": frechet(held, real),
        }
        if "seen" in sums:
            shares = sums["seen"] / sums["n"]
            found["share of the clients' classes"] = float(shares[list(self.classes)].sum())
            found |= {f"share of {self.pictures.names[c]}": float(shares[c]) for c in self.classes}
        return found | {SAMPLES_DRAWN: float(sums["n"])}

    def describe(self) -> dict[str, Any]:
        """Return facts for run.json and the report."""
        sizes = [self.examples(c) for c in range(self.clients)]
        return {
            **self.facts,
            "params": self.shape.params,
            "trainable_params": self.layout.size,
            "adapter_bytes": 4 * self.layout.size,
            "train_images": sum(sizes),
            "held_out_images": sum(len(rows) for rows in self.held_out),
            "test_images": len(self.test),
            "images_per_client": [min(sizes), int(np.median(sizes)), max(sizes)],
        }

    def save_adapter(self, vector: Vector, folder: Path, base: Vector | None = None) -> int:
        """Write the adapter as a PEFT and as a diffusers folder, or the model as diffusers'; return its rank."""
        return denoiser_lora.save(vector, self.source, folder, base)

    # ----------------------------------------------------------------------------------------------

    def _trainee(self) -> adapters.Trainee:
        return denoiser_lora.trainee(self.source, device(), self.numerics.dtype)

    def _backbone(self) -> Denoiser | None:
        return denoiser_lora.backbone(self.source, self.numerics.training, device(), self.numerics.dtype)

    def _model(self) -> Any:
        return self._backbone() or self._trainee()

    @cached_property
    def _reference(self) -> tuple[NDArray[np.float64], Moments, float]:
        """Features of the clients' images, held-out ones included, their sums and mean kernel; once a process."""
        assert self.features is not None
        found, itself = _images_features.reference(self.features, self.pictures.pixels)
        return found, Moments.of(found), itself

    @cached_property
    def _held(self) -> Moments:
        """Sums of the test images' features; once a process."""
        assert self.features is not None
        return Moments.of(_images_features.reference(self.features, self.test.pixels)[0])

    def _rows(self, split: str, client: int | None) -> tuple[Pictures, Rows]:
        """Return where a split's images are and their order; shuffled, so that any first part is a fair sample."""
        if split in ("client", "shard"):
            assert client is not None
            return self.pictures, (self.held_out if split == "client" else self.training)[client]
        if split not in self._orders:
            fix = "choose test, clients or samples"
            raise DataError(message("evaluate.splits", "the data have no such split", got=split, fix=fix))
        return self._orders[split]

    @cached_property
    def _orders(self) -> dict[str, tuple[Pictures, Rows]]:
        def shuffled(rows: Rows, split: str) -> Rows:
            return stream(self.seed, "probes", split).permutation(rows)

        return {
            "test": (self.test, shuffled(np.arange(len(self.test)), "test")),
            "clients": (self.pictures, shuffled(np.concatenate(self.held_out), "clients")),
        }
