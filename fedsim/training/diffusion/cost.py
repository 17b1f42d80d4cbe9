"""What a denoiser costs: every matrix product of one image, counted on the model without weights.

The model is wrapped by stock PEFT on torch's meta device and run once, which computes shapes and no number. A
product of (m, k) by (k, n) is 2 m k n operations; a convolution is one at every place of its output. Backward it
is as much again for the gradient of the input, if that has one, and for the gradient of the weight, if
it trains: so what is below the lowest adapter costs nothing backward. Norms, activation functions and
resampling are left out, as for text. What autograd keeps is counted as it is kept.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fedsim.adapters.adapter import Layout
from fedsim.config.learning import LoraConfig
from fedsim.cost.charge_images import ChargeImages
from fedsim.cost.operations import Operations
from fedsim.cost.quantised import Quantise, quantise_of
from fedsim.cost.shape import ModelShape
from fedsim.training.beside.tensors import plain_name
from fedsim.training.diffusion import lora as denoiser_lora
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion import process as diffusion
from fedsim.training.diffusion.models import Signature
from fedsim.training.kept import Kept, storage
from fedsim.training.lora import peft_config
from fedsim.training.quantised.chosen import held

BLOCKS = ("ResnetBlock2D", "Attention", "BasicTransformerBlock", "Downsample2D", "Upsample2D")
"""What checkpointing computes again, one at a time."""


def shape(
    model: Any, how: Signature, name: str, trained: Layout, batch: int, counted: Operations | None = None
) -> ModelShape:
    """Return the size of a denoiser for the cost model; a token is a pixel, a sequence an image.

    Args:
        model: the denoiser; weights not needed, and not changed.
        how: how it is called.
        name: for tables and messages.
        trained: what is trained.
        batch: images in one pass.
        counted: what an image costs, if that is known already.
    """
    params = sum(p.numel() for p in model.parameters())
    multiplying = denoiser_lora.sites(model)
    weights = sum(s.inputs * s.outputs * math.prod(s.kernel) for s in multiplying)
    counted = operations(model, how, trained) if counted is None else counted
    width = max((s.outputs for s in multiplying), default=1)
    return _with_lengths(
        ModelShape(
            name=name,
            layers=len(multiplying),
            width=width,
            vocab=how.channels,
            params=params,
            matmul_params=weights,
            adapter_params=trained.size - sum(tensor.size for tensor in trained.beside),
            sequence=how.size**2,
            batch=batch,
            full=trained.full,
            operations=counted,
            beside_params=sum(tensor.size for tensor in trained.beside),
        ),
        trained,
    )


def _with_lengths(shape: ModelShape, trained: Layout) -> ModelShape:
    """Return a size with what DoRA computes and holds in each pass, however many images: B A and W + s B A, as stock PEFT does.

    Of a Linear B A is formed by a product with the unit matrix, of a convolution by one of the factors.
    """
    if not _has_lengths(trained):
        return shape
    sides = [(m.rank, math.prod(m.a_shape[1:]), m.b_shape[0], len(m.b_shape) > 2) for m in trained.modules]
    return replace(
        shape,
        pass_flops=float(sum(2 * r * i * (o if conv else i + o) for r, i, o, conv in sides)),
        pass_numbers=max(i * (2 * o if conv else i + 2 * o) for _, i, o, conv in sides),
    )


def _has_lengths(trained: Layout) -> bool:
    return any(tensor.kind == "magnitude" for tensor in trained.beside)


def operations(model: Any, how: Signature, trained: Layout) -> Operations:
    """Return what one image costs: the model's forward and backward pass with its adapters, and a slot of their rank."""
    counts = _counts(model, how, trained)
    if trained.full:
        return counts
    wider = Layout(tuple(m.at_rank(m.rank + 1, m.scale) for m in trained.modules), trained.tensors)
    slot = _less(_counts(model, how, wider), counts)
    return replace(counts, rank=trained.rank, slot=slot)


def _less(more: Operations, counts: Operations) -> Operations:
    """Return how much more one count is than another."""
    names = ("forward", "backward", "kept_bytes", "boundary_bytes", "block_bytes")
    return Operations(**{name: getattr(more, name) - getattr(counts, name) for name in names})


def _counts(model: Any, how: Signature, trained: Layout) -> Operations:
    """Return what one image costs; of DoRA, whose lengths are made once a pass, what a second image adds."""
    first = _counts_of(model, how, trained, 1)
    return _less(_counts_of(model, how, trained, 2), first) if _has_lengths(trained) else first


def _counts_of(model: torch.nn.Module, how: Signature, trained: Layout, images: int) -> Operations:
    wrapped = _wrapped(model, trained)
    products, memory = Products(), Kept({storage(p) for p in wrapped.parameters()})
    x = torch.zeros(images, *how.shape, device="meta")
    t = torch.zeros(images, dtype=torch.int64, device="meta")
    told = torch.zeros(images, dtype=torch.int64, device="meta") if how.table else None
    with torch.enable_grad(), products, memory.watching(_blocks(wrapped)), torch.device("meta"):
        diffusion.predicted(wrapped, how, x, t, told)
    return Operations(products.forward, products.backward, memory.total, memory.boundaries, memory.largest)


@lru_cache(maxsize=16)
def of_named(name: str, trained: Layout, batch: int, quantise: Quantise | None = None) -> ModelShape:
    """Return the size of a denoiser by name; what an image costs is counted once a process."""
    model, how = denoisers.skeleton(name), denoisers.signature(name)
    plain = shape(model, how, name, trained, batch, _counted(name, trained))
    params, n_bytes = held(denoiser_lora.frozen_layers(model), quantise, trained)
    return replace(plain, quantised_params=params, quantised_bytes=n_bytes)


@lru_cache(maxsize=16)
def _counted(name: str, trained: Layout) -> Operations:
    def counted() -> Operations:
        return operations(denoisers.skeleton(name), denoisers.signature(name), trained)

    found: Operations = denoisers.translated(name, "architecture", counted)
    return found


def _wrapped(model: Any, trained: Layout) -> Any:
    """Return a copy of a model on the meta device with stock PEFT layers, or with all weights free."""
    bare = copy.deepcopy(model).to("meta").eval()
    if trained.full:
        return bare.requires_grad_(requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import get_peft_model

        wrapped = get_peft_model(bare, peft_config(bare, trained, _settings(trained))).to("meta").eval()
    beside = {tensor.name for tensor in trained.beside}
    for name, parameter in wrapped.named_parameters():
        if plain_name(name) in beside:
            parameter.requires_grad_(requires_grad=True)
    return wrapped


def _settings(trained: Layout) -> LoraConfig:
    """Return settings under which PEFT has the layers of a layout: their ranks, and lengths if it has some."""
    first = trained.modules[0]
    ranks = {m.name: m.rank for m in trained.modules if m.rank != first.rank}
    alpha, lengths = first.scale * first.rank, _has_lengths(trained)
    return LoraConfig(r=first.rank, alpha=alpha, rank_pattern=ranks or None, dora=lengths)


@dataclass
class Products(TorchFunctionMode):  # type: ignore[misc]  # torch is untyped here
    """Counts the matrix products of what runs inside it, and of the backward pass that would follow."""

    forward: int = 0
    backward: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch, counting those that multiply matrices."""
        named = dict(kwargs or {})
        out = func(*args, **named)
        functional = torch.nn.functional
        if func in (functional.linear, torch.conv2d, functional.conv2d):
            x, weight = args[0], args[1]
            # a convolution multiplies (in x kernel) numbers for each of its outputs; linear: `in`
            self._add(2 * out.numel() * math.prod(weight.shape[1:]), x, weight)
        elif func in (torch.bmm, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__):
            self._add(2 * out.numel() * args[0].shape[-1], args[0], args[1])
        elif func is torch.baddbmm:
            self._add(2 * out.numel() * args[1].shape[-1], args[1], args[2])
        elif func is functional.scaled_dot_product_attention:
            q, k, v = args[:3] if len(args) >= 3 else (named["query"], named["key"], named["value"])
            scores = q.numel() * k.shape[-2]
            self._add(2 * scores, q, k)
            self._add(2 * scores // q.shape[-1] * v.shape[-1], q.requires_grad or k.requires_grad, v)
        return out

    def _add(self, flops: int, *factors: Any) -> None:
        """Count a product of two factors, each with a gradient or without."""
        needed = [f if isinstance(f, bool) else f.requires_grad for f in factors]
        self.forward += flops
        self.backward += flops * sum(needed)


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield what checkpointing computes again: modules of these names that lie in no other of them."""
    inner: set[int] = set()
    for module in model.modules():
        if type(module).__name__ in BLOCKS and id(module) not in inner:
            inner |= {id(m) for m in module.modules()}
            yield module


@lru_cache(maxsize=8)
def declared(charge: ChargeImages, *, full: bool, quantise: Quantise | None = None) -> ModelShape:
    """Return the size of a preset denoiser with the adapters that `charge_as` declares.

    Args:
        charge: what is declared.
        full: whether the whole model trains.
        quantise: how frozen weights are held where `charge` does not say it itself.
    """
    source = files("fedsim.builtin.denoisers").joinpath(f"{charge.preset}.json").read_text(encoding="utf-8")
    raw = json.loads(source)
    kind = getattr(denoisers.libraries(), raw["_class_name"])
    with torch.device("meta"):
        model = kind.from_config(raw).eval()
    how = Signature(raw["_class_name"], raw["in_channels"], raw["sample_size"])
    lora = LoraConfig(full=True) if full else LoraConfig(r=charge.r, alpha=charge.r, targets=charge.targets)
    trained = denoiser_lora.layout(model, lora)
    charged = shape(model, how, charge.preset, trained, charge.batch)
    sized = replace(charged, weight_bytes=4.0 if full else charge.weight_bytes)
    how_held = quantise if charge.quantise is None else quantise_of(charge.quantise)
    params, n_bytes = held(
        denoiser_lora.frozen_layers(model), how_held, trained, "task.charge_as.quantise.modules"
    )
    return replace(sized, quantised_params=params, quantised_bytes=n_bytes)
