"""Train a denoiser from nothing, with a moving average of its weights: what the pretraining scripts share.

Long trainings can be cut: with a checkpoint, the next call goes on where the last one stopped, to the same end.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedsim.errors import DataError, message
from fedsim.rng import seed_of
from fedsim.training.diffusion import process as diffusion
from fedsim.training.diffusion.models import Signature
from fedsim.training.diffusion.process import Process

EVERY = 250
"""Steps between two checkpoints."""
MOMENTS = ("exp_avg", "exp_avg_sq")


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
    checkpoint: Path | None = None,
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
        checkpoint: file to go on from if it is there, written every `EVERY` steps.
        say: takes a line of progress.
    """
    device = images.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.0)
    averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
    draw = torch.Generator().manual_seed(seed_of(settings.seed, "pretraining"))
    done = 0 if checkpoint is None else _restore(checkpoint, settings, model, averaged, optimizer)
    model.train()
    began, running = time.process_time(), 0.0
    for step in range(settings.steps):
        rows = torch.randint(len(images), (settings.batch,), generator=draw).to(device)
        t = torch.randint(process.steps, (settings.batch,), generator=draw).to(device)
        noise = torch.randn(settings.batch, *images.shape[1:], generator=draw).to(device)
        flip = torch.randint(2, (settings.batch, 1, 1, 1), generator=draw).to(device) if mirror else None
        if step < done:
            continue  # drawn again, so that what follows is the same
        warm = min(1.0, (step + 1) / settings.warm_up)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * warm * 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))
        clean = diffusion.unit(images[rows], torch.float32)
        if flip is not None:
            clean = torch.where(flip.bool(), clean.flip(-1), clean)
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
        running = 0.98 * running + 0.02 * loss.item() if step > done else loss.item()
        if step == 0 or (step + 1) % 250 == 0:
            say(f"step {step + 1:6d}  loss {running:.4f}  {time.process_time() - began:6.0f} CPU s")
        if checkpoint is not None and (step + 1) % EVERY == 0:
            _store(checkpoint, step + 1, settings, model, averaged, optimizer)
    model.eval()
    return averaged


def _store(
    path: Path, done: int, settings: Settings, model: Any, averaged: dict[str, Any], optimizer: Any
) -> None:
    """Write weights, their average and the optimiser's moments, whole or not at all."""
    from safetensors.torch import save_file

    named = dict(model.named_parameters())
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in averaged.items()}
    for moment in MOMENTS:
        tensors |= {f"{moment}.{name}": optimizer.state[p][moment] for name, p in named.items()}
    part = path.with_suffix(".part")
    header = {"done": str(done), "settings": _described(settings, model)}
    save_file({key: value.contiguous() for key, value in tensors.items()}, part, metadata=header)
    part.replace(path)


def _described(settings: Settings, model: Any) -> str:
    """Return what a checkpoint can go on with."""
    return json.dumps(vars(settings) | {"parameters": sum(p.numel() for p in model.parameters())})


def _restore(path: Path, settings: Settings, model: Any, averaged: dict[str, Any], optimizer: Any) -> int:
    """Read a checkpoint back, if there is one; return how many steps are done.

    Raises:
        DataError: it was written with other settings, or of another model.
    """
    from safetensors import safe_open

    if not path.is_file():
        return 0
    with safe_open(path, "pt") as file, torch.no_grad():
        done, asked = int(file.metadata()["done"]), _described(settings, model)
        written = file.metadata().get("settings", asked)
        if written != asked:
            fix = "repeat the command that began it, or remove the file to begin anew"
            raise DataError(message(str(path), f"was written with other settings ({written})", fix=fix))
        for name, value in model.state_dict().items():
            value.copy_(file.get_tensor(f"model.{name}"))
            averaged[name].copy_(file.get_tensor(f"average.{name}"))
        for name, p in model.named_parameters():
            moments = {moment: file.get_tensor(f"{moment}.{name}").to(p.device) for moment in MOMENTS}
            optimizer.state[p] = {"step": torch.tensor(float(done)), **moments}
    return done


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
        for rows in torch.arange(len(images)).split(32):
            noise = diffusion.of_evaluation(seed, "pretraining", rows.tolist(), points, how.shape)
            clean = diffusion.unit(images[rows.to(images.device)], torch.float32)[:, None].expand_as(noise)
            told = None if labels is None else labels[rows.to(images.device)][:, None].expand(-1, points)
            batch = process.noised(clean, noise.to(images.device), times.expand(len(rows), -1), told)
            total += float(diffusion.errors(model, how, batch).sum())
    return total / (len(images) * points)
