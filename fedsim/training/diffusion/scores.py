"""What a vector is worth: its loss at fixed noise, and the images that it draws.

Both take either way of running a denoiser: a `Denoiser` with the vector as a stack of one client, or a
`Trainee` that it is written into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.adapters.adapter import Vector
from fedsim.training.backbone import Stack
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion import process as diffusion
from fedsim.training.diffusion.denoising import Denoiser, Shard
from fedsim.training.diffusion.lora import Source
from fedsim.training.local import one_thread
from fedsim.training.lora import Trainee


def grid_error(
    model: Denoiser | Trainee,
    vector: Vector,
    source: Source,
    images: Shard,
    rows: Sequence[int],
    points: int,
    address: tuple[int, str],
) -> float:
    """Return the squared errors summed over images and `points` fixed timesteps, in float64.

    Args:
        model: what runs the denoiser.
        vector: what to score.
        source: which denoiser it is.
        images: to take the loss of.
        rows: their numbers in their split, the address of their noise.
        points: timesteps an image.
        address: the experiment's seed and the split.
    """
    where, dtype = _place(model)
    how, process = denoisers.signature(source.name), source.process
    noise = diffusion.of_evaluation(*address, rows, points, how.shape).to(where, dtype)
    clean = diffusion.unit(torch.from_numpy(images.pixels).to(where), dtype)[:, None].expand_as(noise)
    times = process.grid(points).to(where).expand(len(images), -1)
    told = None
    if source.told:
        told = torch.from_numpy(images.labels).to(where)[:, None].expand(-1, points).contiguous()
    batch = process.noised(clean, noise, times, told)
    with one_thread(), torch.no_grad():
        if isinstance(model, Denoiser):
            flat = diffusion.Noised(*(part if part is None else part.flatten(0, 1)[None] for part in batch))
            errors = model.losses(_single(model, vector), flat)
        else:
            model.write(vector)
            errors = diffusion.errors(model.model, how, batch)
    return float(errors.double().sum())


def drawn(
    model: Denoiser | Trainee,
    vector: Vector,
    source: Source,
    seed: int,
    numbers: Sequence[int],
    classes: NDArray[np.int64] | None,
    steps: int,
) -> NDArray[np.uint8]:
    """Return samples (n, C, H, W) by DDIM; each starts from the noise of its own number."""
    where, dtype = _place(model)
    how = denoisers.signature(source.name)
    labels = None if classes is None else torch.from_numpy(classes).to(where)
    noise = diffusion.of_samples(seed, numbers, how.shape).to(where, dtype)
    predict: Callable[[Tensor, Tensor], Tensor]
    if isinstance(model, Denoiser):
        predict = model.predictor(_single(model, vector), labels)
    else:
        model.write(vector)
        whole, narrow = model.model, model.parameters[0].dtype

        def predict(x: Tensor, t: Tensor) -> Tensor:
            with torch.no_grad():
                return diffusion.predicted(whole, how, x.to(narrow), t, labels)

    with one_thread():
        samples = diffusion.sampled(predict, denoisers.schedule(source.name, source.prediction), noise, steps)
    images: NDArray[np.uint8] = samples.cpu().numpy()
    return images


def _place(model: Denoiser | Trainee) -> tuple[Tensor, Tensor]:
    """Return the device and the dtype of what a model computes on and in."""
    if isinstance(model, Denoiser):
        return model.device, model.dtype
    first = model.parameters[0]
    return first.device, torch.promote_types(first.dtype, torch.float32)


def _single(model: Denoiser, vector: Vector) -> Stack:
    factors = torch.from_numpy(np.array(vector)[None]).to(model.device, model.dtype)
    scales = factors.new_tensor([[m.scale for m in model.layout.modules]])
    return Stack(factors, scales)
