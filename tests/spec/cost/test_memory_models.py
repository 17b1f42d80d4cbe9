"""What programs keep in memory: by hand, what was charged before there were any, and what more of anything does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.cost.architecture import PRESETS
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.formulas import resting_memory_bytes, train_memory_bytes
from fedsim.cost.memory.model import PLAIN, MemoryModel
from fedsim.cost.memory.plan import plan_memory

SHAPE = charged(ChargeAs(preset="qwen-0.5b", sequence=256, batch=4, weight_bytes=0.55), full=False)
TOKENS = 4 * 256
LAYER = (SHAPE.matmul_params - SHAPE.head_params) / 24
MODELS = st.builds(
    MemoryModel,
    name=st.just("x"),
    least_weight_bytes=st.sampled_from([0.0, 1.0, 4.0]),
    resident_bytes=st.sampled_from([0.0, 5e8, math.inf]),
    unpacked_bytes=st.sampled_from([0.0, 2.0]),
    embedding_bytes=st.sampled_from([0.0, 2.0]),
    recomputes=st.booleans(),
    live_bytes=st.sampled_from([24.0, 66.0]),
    chunk_tokens=st.sampled_from([1.0, 32.0, math.inf]),
)


def before(shape):
    """What `train_memory_bytes` was before programs were told apart, word for word."""
    tokens = shape.sequence * shape.batch
    if shape.full:
        held, activation = float(16 * shape.params), 34
    else:
        held = shape.weight_bytes * shape.params + 16 * shape.adapter_params
        activation = 24
    held += 4.0 * shape.resting * shape.adapter_params
    layers = shape.layers - shape.lowest
    activations = layers * tokens * shape.width * activation
    if shape.checkpoint:
        activations = (layers * 2 + activation) * tokens * shape.width
    return held + activations + tokens * shape.vocab * 6 + 0.25e9


@given(
    preset=st.sampled_from(sorted(PRESETS)),
    weight_bytes=st.sampled_from([4.0, 2.0, 1.0, 0.55, 0.5]),
    sequence=st.integers(1, 3000),
    batch=st.integers(1, 64),
    checkpoint=st.booleans(),
    full=st.booleans(),
    lowest=st.integers(0, 11),
    resting=st.integers(0, 2),
)
def test_plain_is_to_the_bit_what_was_charged_before(
    preset, weight_bytes, sequence, batch, checkpoint, full, lowest, resting
):
    asked = ChargeAs(
        preset=preset,
        weight_bytes=weight_bytes,
        sequence=sequence,
        batch=batch,
        checkpoint=checkpoint,
        adapted_layers=tuple(range(lowest, 12)),
    )
    shape = replace(charged(asked, full=full), resting=resting)
    assert train_memory_bytes(shape) == before(shape)


def test_mapped_weights_are_one_unpacked_layer():
    mapped = replace(PLAIN, resident_bytes=0.0, unpacked_bytes=2.0)
    assert train_memory_bytes(SHAPE) - train_memory_bytes(SHAPE, mapped) == pytest.approx(
        0.55 * SHAPE.params - 2 * LAYER
    )


def test_at_most_so_many_bytes_of_weights_are_resident():
    sharded = replace(PLAIN, resident_bytes=1e8)
    assert train_memory_bytes(SHAPE) - train_memory_bytes(SHAPE, sharded) == pytest.approx(
        0.55 * SHAPE.params - 1e8
    )
    assert train_memory_bytes(SHAPE, replace(PLAIN, resident_bytes=1e12)) == train_memory_bytes(SHAPE)


def test_a_program_of_float32_has_no_smaller_weights():
    wide = replace(PLAIN, least_weight_bytes=4.0)
    more = train_memory_bytes(SHAPE, wide) - train_memory_bytes(SHAPE)
    assert more == pytest.approx((4 - 0.55) * SHAPE.params)
    float32 = replace(SHAPE, weight_bytes=4.0)
    assert train_memory_bytes(float32, wide) == train_memory_bytes(float32)


def test_quantisers_leave_table_and_head_alone_tied_or_not():
    wide = replace(PLAIN, embedding_bytes=2.0)
    more = train_memory_bytes(SHAPE, wide) - train_memory_bytes(SHAPE)
    assert more == pytest.approx((2 - 0.55) * SHAPE.head_params)
    untied = replace(SHAPE, params=SHAPE.params + SHAPE.head_params)
    more = train_memory_bytes(untied, wide) - train_memory_bytes(untied)
    assert more == pytest.approx((2 - 0.55) * 2 * SHAPE.head_params)


def test_a_chunked_loss_has_the_logits_of_a_chunk():
    chunked = replace(PLAIN, chunk_tokens=32.0)
    spared = train_memory_bytes(SHAPE) - train_memory_bytes(SHAPE, chunked)
    assert spared == pytest.approx((TOKENS - 32) * SHAPE.vocab * 6)
    short = replace(SHAPE, sequence=16, batch=1)
    assert train_memory_bytes(short, chunked) == train_memory_bytes(short)


def test_what_is_computed_again_is_kept_by_its_inputs():
    again = replace(PLAIN, recomputes=True, boundary_bytes=4.0, live_bytes=66.0)
    kept = 24 * 24 * TOKENS * SHAPE.width
    spared = train_memory_bytes(SHAPE) - train_memory_bytes(SHAPE, again)
    assert spared == pytest.approx(kept - (24 * 4 + 66) * TOKENS * SHAPE.width)
    assert train_memory_bytes(replace(SHAPE, checkpoint=True), again) == train_memory_bytes(SHAPE, again)


def test_between_steps_there_are_weights_trained_numbers_and_the_runtime():
    left = resting_memory_bytes(SHAPE)
    assert left == pytest.approx(0.55 * SHAPE.params + 16 * SHAPE.adapter_params + 0.25e9)
    longer = replace(SHAPE, sequence=512)
    assert resting_memory_bytes(longer) == left


@given(model=MODELS, sequence=st.integers(1, 2000), batch=st.integers(1, 8))
def test_a_peak_is_more_than_what_stays_and_grows_with_the_tokens(model, sequence, batch):
    shape = replace(SHAPE, sequence=sequence, batch=batch)
    assert resting_memory_bytes(shape, model) < train_memory_bytes(shape, model)
    assert train_memory_bytes(shape, model) < train_memory_bytes(replace(shape, batch=batch + 1), model)


@given(model=MODELS, usable=st.floats(1e8, 1e10))
def test_measures_are_taken_with_what_the_program_keeps(model, usable):
    found = plan_memory(SHAPE, usable, ("micro-batch", "checkpoint"), model)
    assert found.memory_bytes == train_memory_bytes(found.shape, model)
    assert found.fits == (found.memory_bytes <= usable)
    alone = plan_memory(SHAPE, usable, (), model)
    assert alone.fits <= found.fits
