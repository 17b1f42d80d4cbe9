"""What a denoiser costs: every product against torch's own counter, and what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch.utils.flop_counter import FlopCounterMode
from worlds import image_models

from fedsim.config.learning import LoraConfig
from fedsim.cost.charge_images import ChargeImages
from fedsim.cost.formulas import forward_flops, train_flops, train_memory_bytes
from fedsim.cost.shape import adapter_bytes, with_rank, with_rank_share
from fedsim.training import lora
from fedsim.training.diffusion import cost as denoiser_cost
from fedsim.training.diffusion import lora as denoiser_lora
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion import process as diffusion

TARGETS = {
    "all": LoraConfig(r=2, alpha=2.0, targets="all"),
    "attention": LoraConfig(r=3, alpha=3.0, targets="attention"),
    "last block": LoraConfig(r=2, alpha=2.0, targets=("up_blocks.1.resnets.1.conv2",)),
    "full": LoraConfig(full=True),
}


def counted_by_torch(model, how, config, images=2):
    """Run it for real, once forward and once backward, under torch's counter."""
    layout = denoiser_lora.layout(model, config)
    trainee = lora.Trainee(model, layout, config)
    x, t = torch.randn(images, *how.shape), torch.zeros(images, dtype=torch.int64)
    told = torch.zeros(images, dtype=torch.int64) if how.takes_classes else None
    counter = FlopCounterMode(display=False)
    with counter:
        diffusion.predicted(trainee.model, how, x, t, told).square().sum().backward()
    return layout, counter.get_total_flops() / images


@pytest.mark.parametrize(
    ("kind", "targets"),
    [("unet", "all"), ("unet", "last block"), ("unet", "full"), ("condition", "attention"), ("dit", "all")],
)
def test_flops_are_those_of_torch_s_counter(tmp_path, kind, targets):
    """Attention by plain products, which the counter sees on a CPU; ours counts both ways alike."""
    how = denoisers.signature(image_models.folder(tmp_path, kind))
    real, bare = image_models.made(kind), image_models.made(kind)
    for model in (real, bare):
        for module in model.modules():
            if hasattr(module, "set_processor"):
                module.set_processor(AttnProcessor())
    layout, theirs = counted_by_torch(real, how, TARGETS[targets])
    ours = denoiser_cost.operations(bare, how, layout)
    assert ours.forward + ours.backward == pytest.approx(theirs, rel=1e-12)


def test_lengths_of_dora_are_paid_once_a_pass_and_all_else_once_an_image(tmp_path):
    """Of a Linear B A is a product with the unit matrix, of a convolution one of the factors."""
    name = image_models.folder(tmp_path, "unet")
    how, config = denoisers.signature(name), LoraConfig(r=2, alpha=2.0, targets="all", dora=True)
    real, bare = image_models.made("unet"), image_models.made("unet")
    for model in (real, bare):
        for module in model.modules():
            if hasattr(module, "set_processor"):
                module.set_processor(AttnProcessor())
    layout, theirs = counted_by_torch(real, how, config, images=3)
    found = denoiser_cost.shape(bare, how, "unet", layout, 3)
    assert found.operations is not None
    each = found.operations.forward + found.operations.backward
    assert 3 * each + found.pass_flops == pytest.approx(3 * theirs, rel=1e-12)
    assert found.beside_params == sum(m.b_shape[0] for m in layout.modules)
    assert adapter_bytes(found) == 4 * layout.size
    assert with_rank(found, 1).pass_flops * 2 == found.pass_flops


def test_attention_is_counted_alike_by_plain_products_and_by_the_fused_kernel(tmp_path):
    name = image_models.folder(tmp_path, "unet")
    how, layout = (
        denoisers.signature(name),
        denoiser_lora.layout(denoisers.skeleton(name), TARGETS["attention"]),
    )
    plain = image_models.made("unet")
    for module in plain.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(AttnProcessor())
    found = [denoiser_cost.operations(m, how, layout) for m in (plain, image_models.made("unet"))]
    assert found[0].flops(checkpoint=False) == found[1].flops(checkpoint=False)


def test_one_convolution_is_counted_by_hand():
    """8 x 8 places, 3 x 3 x 2 inputs, 5 outputs, rank 4: forward W, A and B; backward A, B and through B."""

    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 5, 3, padding=1)

        def forward(self, x, t, class_labels=None, return_dict=False):
            return (self.conv(x)[:, :1],)

    how = denoisers.Signature("UNet2DModel", 1, 8)
    layout = denoiser_lora.layout(One(), LoraConfig(r=4, alpha=4.0, targets=("conv",)))
    found = denoiser_cost.operations(One(), how, layout)
    base, a, b = (2 * 64 * n for n in (1 * 9 * 5, 1 * 9 * 4, 4 * 5))
    assert found.forward == base + a + b
    assert found.backward == a + 2 * b  # the image itself needs no gradient


def test_the_adapters_place_decides_what_the_backward_pass_costs(tmp_path):
    name = image_models.folder(tmp_path, "unet")
    model, how = denoisers.skeleton(name), denoisers.signature(name)
    high, low, whole = (
        denoiser_cost.operations(model, how, denoiser_lora.layout(model, TARGETS[t]))
        for t in ("last block", "all", "full")
    )
    assert high.backward * 5 < low.backward < whole.backward
    assert high.kept_bytes < low.kept_bytes
    assert low.activation_bytes(checkpoint=True, number_bytes=4) < low.kept_bytes
    assert low.activation_bytes(checkpoint=False, number_bytes=2) == low.kept_bytes / 2
    assert low.flops(checkpoint=True) == low.flops(checkpoint=False) + low.forward


def test_kept_activations_are_what_autograd_saves_when_it_runs(tmp_path):
    """The same hook on the real model, stock PEFT, one image: each storage once, parameters not."""
    name = image_models.folder(tmp_path, "unet")
    how = denoisers.signature(name)
    config = TARGETS["all"]
    layout = denoiser_lora.layout(denoisers.skeleton(name), config)
    model = denoisers.weights(name)
    for module in model.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(AttnProcessor())
    bare = image_models.made("unet")
    for module in bare.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(AttnProcessor())
    trainee = lora.Trainee(model, layout, config)
    weights, held = {p.untyped_storage().data_ptr() for p in trainee.model.parameters()}, {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = diffusion.predicted(
            trainee.model, how, torch.randn(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), None
        )
    real = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
    assert out.requires_grad
    assert denoiser_cost.operations(bare, how, layout).kept_bytes == pytest.approx(real, rel=0.02)


def test_a_shape_charges_pixels_as_tokens_and_an_adapter_s_bytes(tmp_path):
    name = image_models.folder(tmp_path, "unet")
    model, how = denoisers.skeleton(name), denoisers.signature(name)
    layout = denoiser_lora.layout(model, TARGETS["all"])
    shape = denoiser_cost.shape(model, how, name, layout, batch=4)
    assert shape.sequence == 64
    assert train_flops(shape, 3 * 64) == 3 * (shape.operations.forward + shape.operations.backward)
    assert train_flops(shape, 64, layered=True) == train_flops(shape, 64)
    assert adapter_bytes(shape) == 4 * layout.size
    more = denoiser_cost.shape(model, how, name, layout, batch=5)
    assert train_memory_bytes(more) - train_memory_bytes(shape) == shape.operations.kept_bytes


def test_ddpm_on_cifar10_is_charged_by_its_public_size():
    """35.7 M parameters and 6.2 G multiply-adds an image, as published; LoRA r = 8 on attention: 98,304."""
    shape = denoiser_cost.declared(ChargeImages(preset="ddpm-cifar10-32", targets="attention"), full=False)
    assert (shape.params, shape.adapter_params) == (35_746_307, 98_304)
    base = shape.operations.forward
    assert base / 2e9 == pytest.approx(6.2, rel=0.05)
    whole = denoiser_cost.declared(ChargeImages(preset="ddpm-cifar10-32"), full=True)
    assert (whole.adapter_params, whole.full) == (35_746_307, True)
    assert train_flops(whole, 1024) == pytest.approx(3 * whole.operations.forward, rel=0.01)


def test_an_unknown_preset_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"(?s)unknown preset.*did you mean 'ddpm-cifar10-32'"):
        ChargeImages(preset="ddpm-cifar10")


@pytest.mark.parametrize("kind", ["unet", pytest.param("condition", marks=pytest.mark.slow), "dit"])
def test_what_another_rank_costs_is_what_is_counted_at_it(tmp_path, kind):
    name = image_models.folder(tmp_path, kind)

    def sized(rank):
        config = LoraConfig(r=rank, alpha=1.0, targets="all")
        return denoiser_cost.of_named(name, denoiser_lora.layout(denoisers.skeleton(name), config), 4)

    eight, three = sized(8), sized(3)
    assert (eight.rank, three.rank) == (8, 3)
    for at in (with_rank(eight, 3), with_rank_share(eight, 6, 16)):
        assert at.adapter_params == three.adapter_params
        assert at.operations == three.operations
    assert train_flops(three, 64) < train_flops(eight, 64)
    assert train_memory_bytes(three) < train_memory_bytes(eight)
    with pytest.raises(ValueError, match="no adapters of known rank"):
        with_rank(replace(eight, operations=replace(eight.operations, rank=0)), 1)


def test_a_forward_pass_is_the_forward_part_of_a_training(tmp_path):
    name = image_models.folder(tmp_path, "unet")
    shape = denoiser_cost.of_named(
        name, denoiser_lora.layout(denoisers.skeleton(name), TARGETS["attention"]), 4
    )
    for layered in (False, True):
        forward = forward_flops(shape, 3 * 64, layered=layered)
        assert forward == 3 * shape.operations.forward
        assert forward < train_flops(shape, 3 * 64, layered=layered)
