"""Train a denoiser from nothing, with a moving average of its weights: what the pretraining scripts share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fedsim.rng import seed_of
from fedsim.training import diffusion
from fedsim.training.denoisers import Signature
from fedsim.training.diffusion import Process


@dataclass(frozen=True)
class Settings:
    """What determines the weights, beside the images."""

    steps: int
    batch: int
    lr: float
    warm_up: int
    ema: float
    seed: int


def train(
    model: Any,
    how: Signature,
    process: Process,
    images: Any,
    labels: Any | None,
    settings: Settings,
    *,
    mirror: bool = False,
    autocast: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train in place with AdamW, linear warm-up times a cosine; return the moving average of the weights.

    The average starts as the mean of all weights so far (decay (1 + n) / (10 + n), at most `ema`), so that
    it forgets the beginning.

    Args:
        model: a denoiser of diffusers, on its device.
        how: how it is called.
        process: its diffusion.
        images: uint8 (n, C, H, W), on that device.
        labels: classes (n,) that it is told, or None.
        settings: how long and how fast.
        mirror: whether half of the images are flipped, left to right.
        autocast: whether the network computes in bfloat16.
        say: takes a line of progress.
    """
    device = images.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.0)
    averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
    draw = torch.Generator().manual_seed(seed_of(settings.seed, "pretraining"))
    model.train()
    began, running = time.process_time(), 0.0
    for step in range(settings.steps):
        warm = min(1.0, (step + 1) / settings.warm_up)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * warm * 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))
        rows = torch.randint(len(images), (settings.batch,), generator=draw).to(device)
        t = torch.randint(process.steps, (settings.batch,), generator=draw).to(device)
        noise = torch.randn(settings.batch, *images.shape[1:], generator=draw).to(device)
        clean = diffusion.unit(images[rows], torch.float32)
        if mirror:
            flip = torch.randint(2, (settings.batch, 1, 1, 1), generator=draw).to(device).bool()
            clean = torch.where(flip, clean.flip(-1), clean)
        batch = process.noised(clean, noise, t, None if labels is None else labels[rows])
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = diffusion.errors(model, how, batch).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                averaged[name].lerp_(value, 1 - decay)
        if step == 0 or (step + 1) % 250 == 0:
            running = loss.item() if step == 0 else running
            say(f"step {step + 1:6d}  loss {running:.4f}  {time.process_time() - began:6.0f} CPU s")
        running = 0.98 * running + 0.02 * loss.item() if step else loss.item()
    model.eval()
    return averaged


def grid_loss(
    model: Any,
    how: Signature,
    process: Process,
    images: Any,
    labels: Any | None,
    *,
    points: int = 8,
    seed: int = 0,
) -> float:
    """Return the mean squared error over fixed timesteps and noise of every image (uint8)."""
    total = 0.0
    times = process.grid(points).to(images.device)
    with torch.no_grad():
        for rows in torch.arange(len(images)).split(128):
            noise = diffusion.of_evaluation(seed, "pretraining", rows.tolist(), points, how.shape)
            clean = diffusion.unit(images[rows.to(images.device)], torch.float32)[:, None].expand_as(noise)
            told = None if labels is None else labels[rows.to(images.device)][:, None].expand(-1, points)
            batch = process.noised(clean, noise.to(images.device), times.expand(len(rows), -1), told)
            total += float(diffusion.errors(model, how, batch).sum())
    return total / (len(images) * points)
