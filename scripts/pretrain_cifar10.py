"""Pretrain what experiments/cifar10 starts from: a denoiser on a public part of CIFAR-10, and a classifier.

    python scripts/pretrain_cifar10.py --data data/cifar10 --out data/models/cifar10-unet

The public part is some classes (`--classes 0 1 2 3 4`) or a part of each class (`--share 0 0.5`, with all of
`--classes`); what is left is for the clients. Stop it when you like: the same
command goes on from the last checkpoint. CIFAR-10 states no licence: neither it nor these weights ship.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from image_pretraining import Recipe, run

SIZES: Final = {
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
RECIPE: Final = Recipe(
    images="CIFAR-10",
    channels=3,
    sizes=SIZES,
    schedules={"small": "squaredcos_cap_v2", "full": "linear"},
    mirror=True,
    steps=6_000,
    batch=64,
    lr=1e-3,
    warm_up=250,
    ema=0.999,
    epochs=6,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write and score."""
    run(RECIPE, argv)


if __name__ == "__main__":
    main()
