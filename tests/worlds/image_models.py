"""Tiny denoisers of every kind with random weights, and pictures for them."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel, UNet2DConditionModel, UNet2DModel

SCHEDULE = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"}
SMALL = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
    "block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4,
}  # fmt: skip
MADE = {
    "unet": lambda: UNet2DModel(
        **SMALL,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ),
    "classes": lambda: UNet2DModel(
        **SMALL,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=10,
    ),
    "condition": lambda: UNet2DConditionModel(
        **SMALL,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
    ),
    "dit": lambda: DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=2, num_layers=2,
        sample_size=8, patch_size=2, num_embeds_ada_norm=10, norm_num_groups=4,
    ),
}  # fmt: skip
KINDS = tuple(MADE)


def made(kind, seed=0):
    """A model whose last layer is not zero, so that everything has a gradient."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MADE[kind]()
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() > 1 and not p.any():
                    p.normal_(0, 0.05)
    return model.eval()


def folder(path, kind, prediction="epsilon"):
    """Write a model with its schedule as a folder."""
    made(kind).save_pretrained(path)
    DDPMScheduler(**SCHEDULE, prediction_type=prediction).save_pretrained(path)
    return str(path)


def pictures(n, channels=1, size=8, seed=0):
    """Grey stripes and noise: images (n, C, H, W) of 8 bits."""
    return np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8)
