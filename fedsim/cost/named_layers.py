"""Layers of transformers by the names of their maps, as the families of transformers call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedsim.cost.architecture import ATTENTION
from fedsim.cost.layers import Layer, Map

QKV = ATTENTION[:3]
MAPS: tuple[tuple[tuple[str, ...], str, tuple[str, ...], str], ...] = (
    (QKV, "o_proj", ("gate_proj", "up_proj"), "down_proj"),  # Llama and most
    (QKV, "o_proj", ("gate_up_proj",), "down_proj"),  # GLM
    (QKV, "o_proj", ("up_proj",), "down_proj"),  # Nemotron, Arcee
    (QKV, "o_proj", ("c_fc",), "c_proj"),  # StarCoder2
    (QKV, "out_proj", ("fc1",), "fc2"),  # OPT, XGLM, BioGPT
    (QKV, "out_proj", ("c_fc",), "c_proj"),  # GPT-Neo
    (QKV, "out_proj", ("fc_in",), "fc_out"),  # GPT-J
    (QKV, "dense", ("fc1",), "fc2"),  # Phi
    (("qkv_proj",), "o_proj", ("gate_up_proj",), "down_proj"),  # Phi-3
    (("qkv_proj",), "out_proj", ("fc_in",), "fc_out"),  # CodeGen
    (("c_attn",), "c_proj", ("c_fc",), "second c_proj"),  # GPT-2
    (("query_key_value",), "dense", ("dense_h_to_4h",), "dense_4h_to_h"),  # BLOOM, Falcon, GPT-NeoX
)
"""The maps of a layer by their names: to queries, keys and values, out of attention, into the MLP, out of it.

A name that a layer has twice is `second NAME` the second time (GPT-2's c_proj of attention, then of the MLP).
"""


def layer_of_maps(maps: Mapping[str, Map]) -> Layer | None:
    """Return a layer with these maps by their names, None where it is of a kind that is not known.

    Attention is as wide as what goes into the map out of it: heads x head size.
    """
    for qkv, out, up, down in MAPS:
        if maps.keys() == {*qkv, out, *up, down}:
            return Layer(
                tuple(maps[name] for name in qkv),
                maps[out],
                tuple(maps[name] for name in up),
                maps[down],
                maps[out].inputs,
            )
    return None


def arranged(blocks: Sequence[Layer], windows: Sequence[int], *, parallel: bool) -> tuple[Layer, ...]:
    """Return layers with their windows, if these are told for all of them, and with attention and MLP side by side or not."""
    told = windows if len(windows) == len(blocks) else (0,) * len(blocks)
    pairs = zip(blocks, told, strict=True)
    return tuple(replace(block, window=window, parallel=parallel) for block, window in pairs)
