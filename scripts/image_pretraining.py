"""Pretrain a denoiser on a public part of labelled images, and a classifier of all classes: what the scripts of the data sets share.

The public part is some classes (`--classes`) or a part of each class (`--share`); what is left is for the clients. Both
can be stopped: the same command goes on from the last checkpoint, and what is finished is kept, denoiser or classifier; what is
removed is made anew. Other settings belong into another folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from denoiser_pretraining import Settings, grid_loss, train

from fedsim.rng import seed_of
from fedsim.tasks._images import data as _images_data
from fedsim.tasks._images.build import part_of
from fedsim.training.diffusion import classifier
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion import process as diffusion

CHECKPOINT = "checkpoint.safetensors"
TEST_IMAGES = 500
"""Test images that the denoiser's loss is taken of."""


@dataclass(frozen=True)
class Recipe:
    """What is pretrained on which images, and what the command line says where nobody says it.

    Attributes:
        images: what they are called.
        channels: of an image: grey (1) or RGB (3).
        sizes: name -> settings of a UNet2DModel; the first is the default.
        schedules: name of a size -> its noise schedule, as diffusers names it.
        mirror: whether half of the images are flipped, left to right.
        steps, batch, lr, warm_up, ema: of the denoiser.
        epochs: of the classifier.
    """

    images: str
    channels: int
    sizes: Mapping[str, Mapping[str, Any]]
    schedules: Mapping[str, str]
    mirror: bool
    steps: int
    batch: int
    lr: float
    warm_up: int
    ema: float
    epochs: int


def run(recipe: Recipe, argv: Sequence[str] | None = None) -> None:
    """Train, write and score what the command line asks for."""
    given = _parser(recipe).parse_args(argv)
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    side: int = recipe.sizes[given.size]["sample_size"]
    source = _images_data.Source(given.data, None, None, None, None, recipe.channels, side)
    splits = _images_data.read(source).splits
    public = part_of(splits["train"], given.classes or None, tuple(given.share))
    print(f"{len(public):,} public images of {len(splits['train']):,}", flush=True)

    path = given.out / "facts.json"
    facts: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    facts |= {"images": len(public), "sha256": _images_data.digest({"train": public})}
    if given.epochs:
        facts |= _classified(recipe, splits, given)
        _write(path, facts)
    if not (given.out / "config.json").is_file() or (given.out / CHECKPOINT).is_file():
        facts |= _denoised(recipe, splits["test"], public, given)
        facts["arguments"] = {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items()}
        _write(path, facts)
    print(json.dumps(facts, indent=2))


def _write(path: Path, facts: Mapping[str, object]) -> None:
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _parser(recipe: Recipe) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Pretrain a denoiser on a public part of {recipe.images}.")
    parser.add_argument("--data", required=True, help="folder with train and test parquet files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=list(recipe.sizes), default=next(iter(recipe.sizes)))
    parser.add_argument("--share", type=float, nargs=2, default=(0.0, 1.0), help="of each class, from and to")
    parser.add_argument("--classes", type=int, nargs="*", default=(0, 1, 2, 3, 4), help="only these")
    parser.add_argument("--steps", type=int, default=recipe.steps)
    parser.add_argument("--batch", type=int, default=recipe.batch)
    parser.add_argument("--lr", type=float, default=recipe.lr)
    parser.add_argument("--warm-up", type=int, default=recipe.warm_up)
    parser.add_argument("--ema", type=float, default=recipe.ema)
    parser.add_argument("--epochs", type=int, default=recipe.epochs, help="of the classifier; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def _denoised(recipe: Recipe, test: Any, public: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Train the denoiser on the public images and write it with its schedule; return its facts."""
    diffusers, shape = denoisers.libraries(), recipe.sizes[given.size]
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule=recipe.schedules[given.size])
    process = diffusion.Process.of(scheduler)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(given.seed, "initial"))
        unet = diffusers.UNet2DModel(in_channels=recipe.channels, out_channels=recipe.channels, **shape)
    unet.to(given.device)
    known = torch.from_numpy(public.pixels).to(given.device)
    signature = denoisers.Signature("UNet2DModel", recipe.channels, known.shape[-1])
    settings = Settings(given.steps, given.batch, given.lr, given.warm_up, given.ema, given.seed)
    checkpoint = given.out / CHECKPOINT
    began, cpu_began = time.perf_counter(), time.process_time()
    averaged = train(
        unet, signature, process, known, None, settings,
        mirror=recipe.mirror, autocast=given.device.startswith("cuda"), checkpoint=checkpoint,
        say=lambda line: print(line, flush=True),
    )  # fmt: skip
    took = {
        "pretraining_s": time.perf_counter() - began,
        "pretraining_cpu_s": time.process_time() - cpu_began,
    }
    unet.load_state_dict(averaged)
    checkpoint.unlink(missing_ok=True)
    unet.save_pretrained(given.out)
    scheduler.save_pretrained(given.out)
    held = torch.from_numpy(test.pixels[:TEST_IMAGES]).to(given.device)
    return {
        "parameters": sum(p.numel() for p in unet.parameters()),
        **took,
        "test_loss": grid_loss(unet, signature, process, held, None),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }


def _classified(recipe: Recipe, splits: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Train the classifier that counts classes among samples, on all training images; return its facts."""
    path, began = given.out / "classifier.safetensors", time.process_time()
    parts = {
        name: (diffusion.unit(torch.from_numpy(p.pixels), torch.float32).to(given.device),
               torch.from_numpy(p.labels).to(given.device))
        for name, p in splits.items()
    }  # fmt: skip
    kept = path.is_file()
    if not kept:
        images, labels = parts["train"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(given.seed, "classifier", "initial"))
            net = classifier.Classifier(recipe.channels, images.shape[-1], len(splits["train"].names))
        net.to(given.device)
        classifier.train(
            net, images, labels, epochs=given.epochs, lr=2e-3, batch=128, seed=given.seed, shift=1
        )
        classifier.save(net.cpu(), path)
    right = classifier.accuracy(classifier.load(path).to(given.device), *parts["test"])
    print(f"classifier: {right:.2%} right", flush=True)
    took = (
        {} if kept else {"classifier_epochs": given.epochs, "classifier_cpu_s": time.process_time() - began}
    )
    return {"classifier_accuracy": right, **took}
