"""A model of every kind of layer, pictures for it, and a loss of each client."""

from __future__ import annotations

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from fedsim.adapters.adapter import Layout, Module
from fedsim.training import local
from fedsim.training.backbone import Stack

ALPHA = 8.0


CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1},
    "same": {"kernel_size": 3, "padding": "same"},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "oblong": {"kernel_size": (1, 3), "stride": (2, 1), "bias": False},
    "pointwise": {"kernel_size": 1},
}


class Pictures(torch.nn.Module):
    """A picture through a convolution, GPT-2's Conv1D on every pixel and a Linear: one number."""

    def __init__(self, **how):
        super().__init__()
        self.before = torch.nn.Conv2d(3, 5, 3, padding=1)
        self.conv = torch.nn.Conv2d(5, 7, **how)
        self.pixels = Conv1D(6, 7)
        self.linear = torch.nn.Linear(6, 4, bias=False)

    def forward(self, x):
        x = torch.tanh(self.conv(torch.tanh(self.before(x))))
        x = torch.tanh(self.pixels(x.flatten(2).transpose(1, 2).contiguous()))
        return self.linear(x).square().mean((1, 2))


def pictures(**how):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Pictures(**how or CONVOLUTIONS["padded"]).double().eval()


def layout_of(model, rank, names=("conv", "pixels", "linear")):
    modules = []
    for name in names:
        layer = model.get_submodule(name)
        if isinstance(layer, torch.nn.Conv2d):
            shapes = (rank, layer.in_channels, *layer.kernel_size), (layer.out_channels, rank, 1, 1)
        else:
            inputs, outputs = layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.shape[::-1]
            shapes = (rank, inputs), (outputs, rank)
        modules.append(Module(name, rank, *shapes, ALPHA / rank))
    return Layout(tuple(modules))


def random_vector(layout, seed):
    return np.random.default_rng(seed).normal(0, 0.3, layout.size)


def stack(vectors, ranks, layout, **more):
    scales = torch.tensor([local.scales(layout, r) for r in ranks], dtype=torch.float64)
    return Stack(torch.from_numpy(np.stack(vectors)), scales, **more)


def images(k, rows):
    return torch.randn(k, rows, 3, 8, 10, generator=torch.Generator().manual_seed(k), dtype=torch.float64)


def per_client(batch):
    """The loss of each client: the mean over its pictures."""
    k, rows = batch.shape[:2]
    return lambda model: model(batch.flatten(0, 1)).view(k, rows).mean(1)
