"""Pretrain what experiments/cifar10 starts from: a denoiser on a public part of CIFAR-10, and a classifier.

    python scripts/pretrain_cifar10.py --data data/cifar10 --out data/models/cifar10-unet

The public part is some classes (`--classes 0 1 2 3 4`) or a part of each class (`--share 0 0.5`, with all of
`--classes`); what is left is for the clients. Stop it when you like: the same
command goes on from the last checkpoint. CIFAR-10 states no licence: neither it nor these weights ship.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from denoiser_pretraining import Settings, grid_loss, train

from fedsim.rng import seed_of
from fedsim.tasks._images import data as _images_data
from fedsim.tasks._images.build import part_of
from fedsim.training.diffusion import classifier
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion import process as diffusion

SIZES: Final[dict[str, dict[str, Any]]] = {
    # 2 cores, less than an hour: 1.1 M parameters, images halved to 16 x 16
    "small": {
        "sample_size": 16,
        "layers_per_block": 1,
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 16,
        "norm_num_groups": 16,
    },
    # google/ddpm-cifar10-32's shape: a GPU
    "full": {
        "sample_size": 32,
        "layers_per_block": 2,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
    },
}
SCHEDULES: Final = {"small": "squaredcos_cap_v2", "full": "linear"}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write and score."""
    parser = argparse.ArgumentParser(description="Pretrain a denoiser on a public part of CIFAR-10.")
    parser.add_argument("--data", required=True, help="folder with train and test parquet files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--share", type=float, nargs=2, default=(0.0, 1.0), help="of each class, from and to")
    parser.add_argument("--classes", type=int, nargs="*", default=(0, 1, 2, 3, 4), help="only these")
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warm-up", type=int, default=250)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--epochs", type=int, default=6, help="of the classifier; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    diffusers = denoisers.libraries()
    side: int = SIZES[given.size]["sample_size"]

    source = _images_data.Source(given.data, None, None, None, None, 3, side)
    splits = _images_data.read(source).splits
    public = part_of(splits["train"], given.classes or None, tuple(given.share))
    known = torch.from_numpy(public.pixels).to(given.device)
    print(f"{len(public):,} public images of {len(splits['train']):,}", flush=True)

    facts: dict[str, Any] = {"images": len(public), "sha256": _images_data.digest({"train": public})}
    if given.epochs:
        facts |= _classifier(splits, given)
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule=SCHEDULES[given.size])
    process = diffusion.Process.of(scheduler)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(given.seed, "initial"))
        unet = diffusers.UNet2DModel(in_channels=3, out_channels=3, **SIZES[given.size])
    unet.to(given.device)
    signature = denoisers.Signature("UNet2DModel", 3, side)
    settings = Settings(given.steps, given.batch, given.lr, given.warm_up, given.ema, given.seed)
    on_gpu = given.device.startswith("cuda")
    began = time.perf_counter()
    averaged = train(
        unet, signature, process, known, None, settings,
        mirror=True, autocast=on_gpu, checkpoint=given.out / "checkpoint.safetensors", say=lambda line: print(line, flush=True),
    )  # fmt: skip
    unet.load_state_dict(averaged)
    (given.out / "checkpoint.safetensors").unlink(missing_ok=True)
    unet.save_pretrained(given.out)
    scheduler.save_pretrained(given.out)
    held = torch.from_numpy(splits["test"].pixels[:500]).to(given.device)
    facts |= {
        "parameters": sum(p.numel() for p in unet.parameters()),
        "pretraining_s": time.perf_counter() - began,
        "test_loss": grid_loss(unet, signature, process, held, None),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items()},
    }
    (given.out / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=2))


def _classifier(splits: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Train the classifier that counts classes among samples, on all training images; return its facts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(given.seed, "classifier", "initial"))
        net = classifier.Classifier(3, len(splits["train"].pixels[0, 0]), len(splits["train"].names)).to(
            given.device
        )
    parts = {
        name: (diffusion.unit(torch.from_numpy(p.pixels), torch.float32).to(given.device),
               torch.from_numpy(p.labels).to(given.device))
        for name, p in splits.items()
    }  # fmt: skip
    classifier.train(net, *parts["train"], epochs=given.epochs, lr=2e-3, batch=128, seed=given.seed, shift=1)
    right = classifier.accuracy(net, *parts["test"])
    classifier.save(net.cpu(), given.out / "classifier.safetensors")
    print(f"classifier: {right:.2%} right", flush=True)
    return {"classifier_accuracy": right}


if __name__ == "__main__":
    main()
