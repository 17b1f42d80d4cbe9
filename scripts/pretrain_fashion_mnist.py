"""Pretrain what experiments/images starts from: a denoiser on five classes of Fashion-MNIST, and a classifier of all ten.

    python scripts/pretrain_fashion_mnist.py --data data/fashion-mnist --out data/models/fashion-unet

The data are those of `scripts/fashion_mnist.py`. The denoiser sees T-shirts, trousers, pullovers, dresses and coats (`--classes 0 1 2 3 4`)
and never a sandal, shirt, sneaker, bag or boot: they are for the clients. Half an hour of one core; stop it when you like: the same
command goes on from the last checkpoint. All shoes look to the left, so nothing is mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from image_pretraining import Recipe, run

SIZES: Final = {
    # one core: 1.3 M parameters, three quarters of them at 7 x 7, where they cost least
    "small": {
        "sample_size": 28,
        "layers_per_block": 1,
        "block_out_channels": (16, 32, 96),
        "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        "attention_head_dim": 32,
        "norm_num_groups": 8,
    },
}
RECIPE: Final = Recipe(
    images="Fashion-MNIST",
    channels=1,
    sizes=SIZES,
    schedules={"small": "squaredcos_cap_v2"},
    mirror=False,
    steps=2_800,
    batch=32,
    lr=2e-3,
    warm_up=100,
    ema=0.995,
    epochs=5,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write and score."""
    run(RECIPE, argv)


if __name__ == "__main__":
    main()
