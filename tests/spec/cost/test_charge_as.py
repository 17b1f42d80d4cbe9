"""`charge_as`: dimensions from a preset or of one's own, what replaces what, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fedsim.cost.architecture import PRESETS
from fedsim.cost.charge_as import ChargeAs

OWN = {"layers": 3, "width": 12, "vocab": 100}


def test_a_preset_has_its_published_dimensions():
    assert ChargeAs(preset="gpt2").architecture == PRESETS["gpt2"]


def test_a_dimension_beside_a_preset_replaces_the_preset_s():
    deeper = ChargeAs(preset="gpt2", layers=24, sequence=64).architecture
    assert (deeper.layers, deeper.sequence, deeper.width) == (24, 64, 768)


def test_of_one_s_own_what_is_left_out_follows_from_the_width():
    llama = ChargeAs(**OWN).architecture
    assert (llama.family, llama.ffn, llama.heads, llama.kv_heads, llama.head_dim) == ("llama", 48, 1, 1, 12)
    heads = ChargeAs(**OWN, heads=4).architecture
    assert (heads.heads, heads.kv_heads, heads.head_dim) == (4, 4, 3)


def test_adapted_layers_are_taken_once_and_in_order():
    assert ChargeAs(**OWN, adapted_layers=[2, 0, 2]).adapted == (0, 2)
    assert ChargeAs(**OWN).adapted == (0, 1, 2)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"layers": 3, "width": 12}, "vocab must be given"),
        ({"preset": "gpt-2"}, "did you mean 'gpt2'"),
        (OWN | {"heads": 5}, "heads must divide the width"),
        (OWN | {"heads": 4, "kv_heads": 3}, "multiple of kv_heads"),
        (OWN | {"targets": ["c_attn"]}, "a llama model has no 'c_attn'"),
        (OWN | {"targets": ["q"]}, "unknown projection"),
        (OWN | {"targets": []}, "at least one projection"),
        (OWN | {"adapted_layers": [3]}, "layers 0 to 2"),
        (OWN | {"adapted_layers": []}, "layers 0 to 2"),
    ],
)
def test_what_no_model_can_be_is_refused(fields, problem):
    with pytest.raises(ValidationError, match=problem):
        ChargeAs(**fields)
