"""Layers of a layout, counted from the output: their names, their numbers, what travels of them, where a client starts."""

from __future__ import annotations

import numpy as np
import pytest

from fedsim.adapters.adapter import Adapter, Layout, Module, Tensor, block_of
from fedsim.adapters.payload import NOTHING, WHOLE, Payload

NAMES = ("embed", "h.0.attn.q", "h.0.mlp.up", "h.1.attn.q", "h.2.attn.q")
LAYOUT = Layout(
    tuple(Module(name, 2, (2, 3), (4, 2), 1.0) for name in NAMES),
    (Tensor("h.1.attn.q.bias", (4,)), Tensor("head.bias", (5,))),
)
EACH = 2 * 3 + 4 * 2


def test_a_layer_is_what_has_the_same_path_up_to_its_first_number():
    assert LAYOUT.blocks == (("embed",), NAMES[1:3], NAMES[3:4], NAMES[4:])
    assert [block_of(name) for name in ("a.b", "a.3.b.4.c", "7")] == ["a.b", "a.3", "7"]


@pytest.mark.parametrize(
    ("depth", "modules", "tensors"),
    [
        (1, NAMES[4:], ("head.bias",)),
        (2, NAMES[3:], ("h.1.attn.q.bias", "head.bias")),
        (3, NAMES[1:], ("h.1.attn.q.bias", "head.bias")),
        (4, NAMES, ("h.1.attn.q.bias", "head.bias")),
        (None, NAMES, ("h.1.attn.q.bias", "head.bias")),
    ],
)
def test_the_last_layers_are_a_layout_of_their_own_in_the_same_order(depth, modules, tensors):
    vector = np.arange(LAYOUT.size, dtype=np.float32)
    there = LAYOUT.slots(depth=depth)
    last = LAYOUT if depth is None else LAYOUT.last(depth)

    assert tuple(m.name for m in last.modules) == modules
    assert tuple(t.name for t in last.tensors) == tensors
    arrays = LAYOUT.arrays(vector)
    for name, array in last.arrays(vector[there]).items():
        assert np.array_equal(array, arrays[name])
    assert LAYOUT.below(depth) == set(LAYOUT.slices) - set(last.slices)
    assert LAYOUT.above(depth) == tuple(last.slices)


def test_slots_of_the_last_layers_are_slots_and_layers_at_once():
    assert LAYOUT.slots(1, depth=2).sum() == 2 * EACH // 2 + 4 + 5
    assert np.array_equal(LAYOUT.slots(1, "B", 3), LAYOUT.slots(1, "B") & LAYOUT.slots(depth=3))


def test_a_payload_without_arrays_has_their_bytes_less():
    below = LAYOUT.below(2)

    assert WHOLE.without(LAYOUT, below).floats(LAYOUT) == LAYOUT.last(2).size
    assert Payload(("embed.lora_A", "h.2.attn.q.lora_A"), 1).without(LAYOUT, below) == Payload(
        ("h.2.attn.q.lora_A",), 1
    )
    assert WHOLE.without(LAYOUT, ()) is WHOLE
    assert NOTHING.without(LAYOUT, below) == NOTHING


def test_clients_of_one_depth_start_from_one_array_with_zeros_below():
    adapter = Adapter(LAYOUT, np.arange(1, 1 + LAYOUT.size, dtype=np.float32))

    upper = adapter.above(adapter.vector, 2)

    assert np.array_equal(upper, np.where(LAYOUT.slots(depth=2), adapter.vector, 0))
    assert adapter.above(adapter.vector, 2) is upper
    assert adapter.holds(upper)
    assert adapter.above(adapter.vector, None) is adapter.above(adapter.vector, 4) is adapter.vector
    own = adapter.vector + 1
    assert adapter.above(own, 2) is not adapter.above(own, 2)
    assert not adapter.holds(adapter.above(own, 2))
    assert not upper.flags.writeable
