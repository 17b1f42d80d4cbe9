"""Denoising diffusion: what a network is asked to predict, at which noise, and how it draws images.

With abar_t the product of 1 - beta up to step t, an image x and noise e ~ N(0, I),

    x_t = sqrt(abar_t) x + sqrt(1 - abar_t) e                    (DDPM, arXiv 2006.11239, eq. 4)

and the network predicts e (`epsilon`), x (`sample`) or v = sqrt(abar_t) e - sqrt(1 - abar_t) x
(`v_prediction`, arXiv 2202.00512). The loss of an image is the squared error, averaged over its numbers.

Nothing is drawn in order: the noise and the timestep of a training image have the address (seed, purpose,
client, visit, step), those of an evaluation the image's own, and sample i starts from noise of address i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fedsim.jobs import Job
from fedsim.rng import seed_of
from fedsim.training.diffusion.models import Signature

Prediction = Literal["epsilon", "v_prediction", "sample"]
Shape = tuple[int, int, int]


class Noised(NamedTuple):
    """Images on their way to noise, and what is to be predicted of them; leading dimensions are free.

    Attributes:
        x: noisy images (..., C, H, W).
        t: timesteps (...), int64.
        target: what to predict, as `x`.
        labels: classes (...), int64, or None.
    """

    x: Tensor
    t: Tensor
    target: Tensor
    labels: Tensor | None


@dataclass(frozen=True, eq=False)
class Process:
    """A variance-preserving diffusion in discrete steps.

    Attributes:
        signal_share: abar_t, float64 (T,).
        prediction: what the network predicts.
    """

    signal_share: Tensor
    prediction: Prediction

    @classmethod
    def of(cls, scheduler: Any) -> Process:
        """Return the process of a diffusers scheduler."""
        return cls(scheduler.alphas_cumprod.double(), scheduler.config.prediction_type)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.signal_share)

    def noised(self, images: Tensor, noise: Tensor, t: Tensor, labels: Tensor | None = None) -> Noised:
        """Return images (..., C, H, W) at timesteps (...) with noise of their shape."""
        signal_share = self.signal_share.to(images.device)[t].to(images.dtype)[..., None, None, None]
        signal, spread = signal_share.sqrt(), (1 - signal_share).sqrt()
        x = signal * images + spread * noise
        if self.prediction == "epsilon":
            target = noise
        elif self.prediction == "sample":
            target = images
        else:
            target = signal * noise - spread * images
        return Noised(x, t, target, labels)

    def grid(self, points: int) -> Tensor:
        """Return `points` timesteps in the middle of equal parts of 0..T-1.

        >>> Process(torch.ones(1000), "epsilon").grid(4).tolist()
        [125, 375, 625, 875]
        """
        return ((torch.arange(points) + 0.5) * self.steps / points).long()


def unit(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 8-bit pixels as numbers from -1 to 1."""
    return pixels.to(dtype) / 127.5 - 1


def pixels(images: Tensor) -> Tensor:
    """Return images as 8-bit pixels, rounded and clipped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


# addresses --------------------------------------------------------------------------------------


def _generator(seed: int, *path: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, *path))


def of_step(job: Job, step: int, count: int, shape: Shape, steps: int) -> tuple[Tensor, Tensor]:
    """Return noise (count, C, H, W) float32 and timesteps (count,) of one step of a visit."""
    draw = _generator(job.seed, "diffusion", job.purpose, job.client, job.visit, step)
    t = torch.randint(steps, (count,), generator=draw)
    return torch.randn(count, *shape, generator=draw), t


def of_evaluation(seed: int, split: str, rows: Sequence[int], points: int, shape: Shape) -> Tensor:
    """Return the fixed noise (len(rows), points, C, H, W) of images of a split by their row, float32."""
    each = [torch.randn(points, *shape, generator=_generator(seed, "grid", split, row)) for row in rows]
    return torch.stack(each)


def of_samples(seed: int, numbers: Sequence[int], shape: Shape) -> Tensor:
    """Return the noise (len(numbers), C, H, W) that samples of these numbers start from, float32."""
    return torch.stack([torch.randn(*shape, generator=_generator(seed, "sample", i)) for i in numbers])


# the network ------------------------------------------------------------------------------------


def predicted(model: Any, how: Signature, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
    """Return what a denoiser predicts for (n, C, H, W) at (n,), told the classes (n,) or none.

    A UNet2DConditionModel reads the class as a context of one token, `code`; without a class the token is
    0. A DiT without a class gets its null class. A learned variance behind the prediction is dropped.
    """
    if how.kind == "UNet2DConditionModel":
        context = code(labels, len(x), how.code).to(x)
        more = {"class_labels": labels} if how.table else {}
        out = model(x, t, encoder_hidden_states=context, return_dict=False, **more)[0]
    elif how.kind == "DiTTransformer2DModel":
        classes = torch.full_like(t, how.table) if labels is None else labels
        out = model(x, timestep=t, class_labels=classes, return_dict=False)[0]
    else:
        out = model(x, t, class_labels=labels if how.table else None, return_dict=False)[0]
    return out[:, : how.channels]


def code(labels: Tensor | None, n: int, width: int) -> Tensor:
    """Return classes as contexts (n, 1, width): sqrt(width) at the class, so of unit mean square; else 0.

    >>> code(torch.tensor([1]), 1, 4).tolist()
    [[[0.0, 2.0, 0.0, 0.0]]]
    """
    if labels is None:
        return torch.zeros(n, 1, width)
    return torch.nn.functional.one_hot(labels, width)[:, None].float() * width**0.5


def errors(model: Any, how: Signature, batch: Noised) -> Tensor:
    """Return the squared error of each image averaged over its numbers; (...) as `batch.t`.

    In float32, or in float64 if the network computes in it.
    """
    lead = batch.t.shape
    labels = None if batch.labels is None else batch.labels.flatten()
    narrow = next(model.parameters()).dtype
    x = batch.x.flatten(0, batch.t.dim() - 1).to(narrow)
    out = predicted(model, how, x, batch.t.flatten(), labels)
    wide = out.to(torch.promote_types(out.dtype, torch.float32))
    error: Tensor = (wide - batch.target.reshape(wide.shape)).square().mean((1, 2, 3)).view(lead)
    return error


def sampled(predict: Callable[[Tensor, Tensor], Tensor], scheduler: Any, noise: Tensor, steps: int) -> Tensor:
    """Return what DDIM (arXiv 2010.02502, eta 0) makes of noise (n, C, H, W) in `steps` steps, as 8-bit pixels.

    Args:
        predict: x (n, C, H, W), t (n,) -> the network's prediction.
        scheduler: the noise schedule, of diffusers.
        noise: where to start.
        steps: evaluations of the network an image.
    """
    from fedsim.training.diffusion.models import libraries

    ddim = libraries().DDIMScheduler.from_config(scheduler.config)
    ddim.set_timesteps(steps, device=noise.device)
    x = noise * ddim.init_noise_sigma
    with torch.no_grad():
        for t in ddim.timesteps:
            out = predict(x, t.expand(len(x)))
            x = ddim.step(out.to(x.dtype), t, x, eta=0.0).prev_sample
    return pixels(x)
