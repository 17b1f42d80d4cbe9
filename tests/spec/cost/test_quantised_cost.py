"""What quantised frozen weights are charged: bytes in memory and of the download, traffic and unpacking, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.cost.architecture import PRESETS
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charge_of, charged
from fedsim.cost.formulas import (
    expanded_bytes,
    moved_bytes,
    resting_memory_bytes,
    train_flops,
    train_memory_bytes,
)
from fedsim.cost.memory.model import PLAIN
from fedsim.cost.quantised import Quantise, quantise_of
from fedsim.cost.shape import ModelShape, backbone_bytes

SMALL = ModelShape("small", 2, 8, 100, 5_000, 4_000, 300, sequence=16, batch=4, weight_bytes=2.0)
"""A head of 800 weights, layers of 3,200, and 1,000 that multiply nothing."""
NF4 = replace(SMALL, quantised_params=3_200, quantised_bytes=1_800)
"""Its layers in 4 bits with a float32 scale for 64 weights: 0.5625 bytes each."""


@pytest.mark.parametrize(
    ("how", "bits"),
    [
        ({"kind": "int8"}, 8 + 32 / 64),
        ({"kind": "nf4"}, 4 + 32 / 64),
        ({"kind": "nf4", "block": 128}, 4 + 32 / 128),
        ({"kind": "nf4", "double": True}, 4 + 8 / 64 + 32 / (64 * 256)),  # QLoRA: 0.5 and 0.127 bits a weight
        ({"kind": "int8", "double": True}, 8 + 8 / 64 + 32 / (64 * 256)),
    ],
)
def test_a_weight_has_the_bits_of_its_code_and_its_share_of_the_scales(how, bits):
    weights = 64 * 256 * 10
    mean = 32 if how.get("double") else 0  # of all scales, once a matrix

    assert 8 * Quantise(**how).bytes_of(weights) == bits * weights + mean


def test_a_matrix_that_is_no_whole_number_of_blocks():
    assert Quantise(kind="nf4").bytes_of(65) == 33 + 4 * 2
    assert Quantise(kind="int8").bytes_of(65) == 65 + 4 * 2
    assert Quantise(kind="nf4", double=True).bytes_of(65) == 33 + 2 + 4 + 4


def test_words_and_blocks_say_the_same():
    assert quantise_of("none") is None
    assert quantise_of("nf4") == quantise_of(Quantise(kind="nf4")) == Quantise(kind="nf4", block=64)
    assert str(quantise_of("int8")) == "int8 in blocks of 64"


def test_the_download_is_codes_scales_and_the_rest():
    assert backbone_bytes(SMALL) == 10_000
    assert backbone_bytes(NF4) == 1_800 * 2 + 1_800


def test_memory_is_less_by_what_the_weights_are():
    assert train_memory_bytes(SMALL) - train_memory_bytes(NF4) == 2 * 3_200 - 1_800
    assert resting_memory_bytes(NF4) == 2 * 1_800 + 1_800 + 16 * 300 + 0.25e9


def test_a_program_without_narrow_weights_has_no_gain_and_one_with_wide_tables_pays_for_them():
    wide = replace(PLAIN, least_weight_bytes=4.0)
    assert train_memory_bytes(NF4, wide) == train_memory_bytes(SMALL, wide)
    tables = replace(PLAIN, embedding_bytes=4.0)
    assert train_memory_bytes(NF4, tables) - train_memory_bytes(NF4) == 2 * 800 * 2  # embedding and head


def test_a_pass_reads_codes_and_unpacks_them_where_it_is_asked_to():
    read = 2 * 800 + 1_800
    assert moved_bytes(NF4, 1, 0) == 2 * read
    assert moved_bytes(NF4, 3, 2) == 3 * 2 * read + 2 * 28 * 300
    assert moved_bytes(NF4, 1, 0, copied=True) == 2 * (read + 4 * 3_200)
    assert moved_bytes(replace(NF4, checkpoint=True), 1, 0) == 3 * read
    above = 2 * 800 + 1_800 * 200 / 3_200  # the head, and 200 of the 1,000 weights that phi stands for
    assert moved_bytes(replace(NF4, phi=0.25), 1, 0) == read + above


def test_only_what_is_quantised_is_unpacked():
    assert expanded_bytes(SMALL) == 0.0
    assert expanded_bytes(NF4) == 2 * (1_800 + 2 * 3_200)
    # half of 4,000 weights are the head's 800 and 1,200 of 3,200, which are unpacked twice more
    assert expanded_bytes(replace(NF4, phi=0.5, checkpoint=True)) == (1_800 + 2 * 3_200) * (
        1 + 2 * 1_200 / 3_200
    )


@pytest.mark.parametrize("lowest", [0, 5, 17])
def test_the_backward_pass_goes_through_the_adapted_layers_whatever_the_head_weighs(lowest):
    charge = ChargeAs(preset="gemma-3-270m", adapted_layers=tuple(range(lowest, 18)))
    shape = charged(charge, full=False, quantise=Quantise(kind="nf4"))
    layers = shape.quantised_bytes + 2 * shape.quantised_params

    assert shape.quantised_above == pytest.approx((18 - lowest) / 18)
    assert expanded_bytes(shape) == pytest.approx(layers * (1 + (18 - lowest) / 18))


def test_of_experts_those_that_see_a_token_are_read():
    """Quantised weights of 9,000, of which 3,200 multiply a token."""
    experts = replace(SMALL, params=12_000, quantised_params=9_000, quantised_bytes=9_000 // 2)
    assert moved_bytes(experts, 1, 0) == 2 * (2 * 800 + 0.5 * 3_200)
    assert backbone_bytes(experts) == 2 * 3_000 + 4_500


@given(
    weight_bytes=st.floats(0.3, 8),
    phi=st.floats(0, 1),
    checkpoint=st.booleans(),
    copied=st.booleans(),
    steps=st.integers(0, 1000),
)
def test_without_quantised_weights_everything_has_the_bits_that_it_had(
    weight_bytes, phi, checkpoint, copied, steps
):
    shape = replace(SMALL, weight_bytes=weight_bytes, phi=phi, checkpoint=checkpoint)
    weight = weight_bytes + (4 if copied and weight_bytes < 2 else 0)

    assert moved_bytes(shape, steps, 2, copied=copied) == (
        steps * weight * 4_000 * (1 + phi * (1 + 0 + int(checkpoint))) + float(28 * 2) * 300
    )
    again = phi * (1 + int(checkpoint))
    assert expanded_bytes(shape) == (0.0 if weight_bytes >= 2 else 4_000 * (weight_bytes + 2) * (1 + again))
    assert backbone_bytes(shape) == round(weight_bytes * 5_000)


# charged models ---------------------------------------------------------------------------------


def layers_of(arch, names=None):
    maps = arch.projections if names is None else {name: arch.projections[name] for name in names}
    return [i * o for i, o in maps.values()] * arch.layers


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_charged_model_has_its_layers_quantised_and_tables_and_norms_not(preset, kind):
    arch, how = PRESETS[preset], Quantise(kind=kind)
    shape = charged(ChargeAs(preset=preset), full=False, quantise=how)
    layers = layers_of(arch)

    assert shape.quantised_params == sum(layers) == arch.matmul_params - arch.embedding_params
    assert shape.quantised_bytes == sum(map(how.bytes_of, layers))
    assert backbone_bytes(shape) == 2 * (arch.params - sum(layers)) + shape.quantised_bytes
    plain = charged(ChargeAs(preset=preset), full=False)
    assert train_flops(shape, 100) == train_flops(plain, 100)
    assert replace(shape, quantised_params=0, quantised_bytes=0) == plain


def test_what_is_charged_may_say_it_itself():
    own = ChargeAs(preset="gpt2", quantise="int8")
    task = Quantise(kind="nf4")

    assert charge_of(own, full=False, quantise=task).shape == charged(
        ChargeAs(preset="gpt2"), False, Quantise(kind="int8")
    )
    assert (
        charge_of(ChargeAs(preset="gpt2", quantise="none"), full=False, quantise=task).shape.quantised_params
        == 0
    )
    assert charge_of(ChargeAs(preset="gpt2"), full=False, quantise=task).shape.quantised_bytes > 0


def test_named_modules_alone_are_quantised():
    how = Quantise(kind="nf4", modules=("q_proj", "down_proj"))
    shape = charged(ChargeAs(preset="smollm2-135m"), full=False, quantise=how)

    assert shape.quantised_params == sum(layers_of(PRESETS["smollm2-135m"], ("q_proj", "down_proj")))


def test_a_declared_total_has_no_more_quantised_weights_than_lie_in_its_layers():
    shape = charged(ChargeAs(preset="gpt2", params=60_000_000), full=False, quantise=Quantise(kind="nf4"))

    assert shape.quantised_params == 60_000_000 - 50_257 * 768
    assert shape.quantised_bytes == Quantise(kind="nf4").bytes_of(shape.quantised_params)


def test_a_whole_model_that_trains_has_none():
    assert charged(ChargeAs(preset="gpt2"), full=True, quantise=Quantise(kind="nf4")).quantised_params == 0


@pytest.mark.parametrize(
    ("block", "what"),
    [
        ({"weight_bytes": 0.5, "quantise": "nf4"}, "says how many bytes all weights have"),
        ({"quantise": {"kind": "nf4", "modules": "c_attn"}}, "a llama model has no 'c_attn'"),
        ({"quantise": {"kind": "nf4", "block": 8}}, "greater than or equal to 16"),
        ({"quantise": {"kind": "nf4", "modules": ()}}, "is empty"),
        ({"quantise": "nf5"}, "nf4"),
    ],
)
def test_what_cannot_be_is_refused(block, what):
    with pytest.raises(ValueError, match=what):
        ChargeAs(preset="smollm2-135m", **block)
