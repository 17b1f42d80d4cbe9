"""Denoisers in training: many clients through one frozen network, or stock PEFT one after the other.

The loops are those of text (`batched.py`, `sequential.py`); here is what an image adds: where its noise
comes from, and its loss. A pixel of an image counts as a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.adapters.adapter import Layout, Vector
from fedsim.jobs import Job
from fedsim.training.backbone import Backbone, Stack
from fedsim.training.diffusion import process as diffusion
from fedsim.training.diffusion.models import Signature
from fedsim.training.diffusion.process import Noised, Process
from fedsim.training.feeds import Feed
from fedsim.training.lora import Trainee
from fedsim.training.stacked.swapped import Swap


@dataclass(frozen=True, eq=False)
class Shard:
    """One client's images.

    Attributes:
        pixels: uint8 (n, C, H, W).
        labels: int64 (n,).
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, rows: Any) -> Shard:
        """Return some of the images."""
        return Shard(self.pixels[rows], self.labels[rows])


class Denoiser(Backbone):
    """A frozen denoiser whose target layers add each client's own adapter."""

    def __init__(
        self, model: Any, layout: Layout, how: Signature, process: Process, *, told: bool = False
    ) -> None:
        """Share the weights of a denoiser.

        Args:
            model: of diffusers.
            layout: its adapted layers.
            how: its way of being called.
            process: the diffusion that it was trained on.
            told: whether it is told the classes.

        Raises:
            ExperimentError: a layer is of a kind that cannot be swapped.
        """
        self.swap = Swap(model, layout)
        self.layout, self.device, self.how, self.process = layout, self.swap.device, how, process
        self.told = told
        self.dtype = torch.promote_types(next(self.swap.model.parameters()).dtype, torch.float32)

    def feed(self, data: Sequence[Shard], jobs: Sequence[Job]) -> Noising:
        """Return what cuts batches from the clients' images."""
        return Noising(data, jobs, self.process, self.device, self.dtype, told=self.told)

    def length(self, examples: Shard) -> int:
        """Return 0: all images of a model are of one size."""
        return 0

    def gradients(
        self, stack: Stack, tokens: Noised, weights: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return losses (k,) and gradients (k, size) of batches (k, rows, ...); see `Backbone.gradients`."""
        assert hidden is None, "a denoiser has no prefix"
        return self.swap.gradients(
            stack, lambda model: (diffusion.errors(model, self.how, tokens) * weights).sum(-1)
        )

    def rebase(self, base: Vector | None) -> None:
        """Change the frozen weights; see `Backbone.rebase`."""
        self.swap.rebase(base)

    def losses(self, stack: Stack, tokens: Noised) -> Tensor:
        """Return each image's squared error (k, rows), no gradient."""
        with torch.no_grad(), self.swap.set(stack):
            return diffusion.errors(self.swap.model, self.how, tokens)

    def predictor(self, stack: Stack, labels: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        """Return x (k * rows, C, H, W), t -> the prediction, for images of these classes."""

        def predict(x: Tensor, t: Tensor) -> Tensor:
            with torch.no_grad(), self.swap.set(stack):
                narrow = next(self.swap.model.parameters()).dtype
                return diffusion.predicted(self.swap.model, self.how, x.to(narrow), t, labels)

        return predict


class Noising(Feed):
    """The images of k clients on the device, and their noised batches."""

    def __init__(
        self,
        data: Sequence[Shard],
        jobs: Sequence[Job],
        process: Process,
        device: torch.device,
        dtype: torch.dtype,
        *,
        told: bool,
    ) -> None:
        self._jobs, self._process, self._told = jobs, process, told
        self._device, self._dtype = device, dtype
        self._pixels = torch.from_numpy(np.concatenate([shard.pixels for shard in data])).to(device)
        self._labels = torch.from_numpy(np.concatenate([shard.labels for shard in data])).to(device)
        self._from = torch.tensor(np.cumsum([0, *map(len, data[:-1])]), device=device)
        self._shape: diffusion.Shape = tuple(self._pixels.shape[1:])
        self.tokens = self._shape[1] * self._shape[2]

    def batch(self, step: int, clients: slice, rows: slice, picked: Tensor, lengths: Sequence[int]) -> Noised:
        """Return some rows of a step of some clients, (k, rows, C, H, W).

        Args:
            step: of the visit.
            clients: which.
            rows: which rows of each client's batch.
            picked: (k, rows) the images, by number in the client's own data.
            lengths: real rows of each client's whole batch.
        """
        chosen = picked + self._from[clients, None]
        images = diffusion.unit(self._pixels[chosen], self._dtype)
        noise = torch.zeros(images.shape)
        t = torch.zeros(picked.shape, dtype=torch.int64)
        for at, (job, real) in enumerate(zip(self._jobs[clients], lengths, strict=True)):
            drawn, when = diffusion.of_step(job, step, real, self._shape, self._process.steps)
            drawn, when = drawn[rows], when[rows]
            noise[at, : len(drawn)], t[at, : len(drawn)] = drawn, when
        labels = self._labels[chosen] if self._told else None
        return self._process.noised(images, noise.to(self._device, self._dtype), t.to(self._device), labels)


def alone(how: Signature, process: Process, *, told: bool) -> Callable[[Trainee, Shard, Job, int], Tensor]:
    """Return the loss of a batch for `sequential.train`: one client's images at one step, (rows * pixels,).

    Every image's error stands once for each of its pixels, so that they count as tokens.
    """

    def losses(trainee: Trainee, images: Shard, job: Job, step: int) -> Tensor:
        first = trainee.parameters[0]
        dtype = torch.promote_types(first.dtype, torch.float32)
        feed = Noising([images], [job], process, first.device, dtype, told=told)
        every = torch.arange(len(images), device=first.device)[None]
        batch = feed.batch(step, slice(0, 1), slice(0, len(images)), every, [len(images)])
        return diffusion.errors(trainee.model, how, batch)[0].repeat_interleave(feed.tokens)

    return losses
