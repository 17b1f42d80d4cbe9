"""Decoders of Llama's kind as transformers builds them: what each family does otherwise, and what of it is not computed here.

All have RMSNorm before attention and MLP, rotary positions, heads that may share keys and values, and a gated MLP. Beyond that
Qwen 2 has biases of q, k and v, Qwen 3 normalised heads, Mistral a window in all layers, SmolLM3 layers without positions, and
Gemma 3 normalised heads, norms after each part too, weights that count from 1, a GELU gate, scaled embeddings, windows and
two kinds of angles. Biases and norms that are there are found by their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedsim.training.direct.architecture import FULL, PLAIN, WINDOWED, Reach
from fedsim.training.fused.rotary import STATIC, Angles, angles_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma3")
"""By the names of their modules in transformers."""
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Numbers:
    """What of a model is in none of its weights.

    Attributes:
        heads, kv_heads, head_dim: heads of queries, of keys and values; numbers of a head.
        eps: of the norms.
        scale: of the products of queries and keys.
        reaches: what each layer makes of places.
        gemma: norms multiply with 1 + their weight, and the MLP is gated by GELU instead of SiLU.
        words_scale: what embedded tokens are multiplied with, as a tensor of their type; None: 1.
    """

    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    scale: float
    reaches: tuple[Reach, ...]
    gemma: bool = False
    words_scale: Tensor | None = field(default=None, compare=False)


def family(model: PreTrainedModel) -> str | None:
    """Return which family a model is of, by its very class; None: of none that is written out here."""
    kind = type(model)
    for name in FAMILIES:
        if kind.__module__ == f"transformers.models.{name}.modeling_{name}":
            return name if kind.__name__.endswith("ForCausalLM") else None
    return None


def unlike(model: PreTrainedModel) -> str | None:
    """Return what a model has that is not computed here, None if it is one of the families, and all of it is.

    The model may be without weights (meta device).
    """
    name = family(model)
    if name is None:
        return "its family is not written out"
    settings = vars(model.config)
    if model.lm_head.bias is not None:
        return "its head has a bias"
    activation = settings["hidden_activation" if name == "gemma3" else "hidden_act"]
    if activation != ("gelu_pytorch_tanh" if name == "gemma3" else "silu"):
        return f"its MLP is gated by {activation}"
    return _unlike_head(settings) or _unlike_layers(name, settings) or _unlike_modules(model)


def _unlike_head(settings: Settings) -> str | None:
    """Return what is unusual about a Gemma."""
    if settings.get("final_logit_softcapping") or settings.get("attn_logit_softcapping"):
        return "its logits are capped"
    if settings.get("use_bidirectional_attention"):
        return "its tokens see those after them"
    return None


def _unlike_layers(name: str, settings: Settings) -> str | None:
    """Return what is unusual about the layers, one after the other."""
    count, kinds = settings["num_hidden_layers"], settings.get("layer_types")
    windowed = name == "mistral" and settings["sliding_window"] is not None
    if name in ("llama", "mistral"):
        if kinds is not None or (name == "llama" and settings.get("sliding_window") is not None):
            return "its configuration names windows that its family does not have"
    elif kinds is None or len(kinds) != count or not set(kinds) <= {FULL, WINDOWED}:
        return "it has layers of other kinds than full and sliding attention, or not one kind a layer"
    else:
        windowed = WINDOWED in kinds
    window = settings.get("sliding_window")
    if windowed and not (isinstance(window, int) and window > 0):
        return f"its window is {window}"
    if name == "smollm3" and len(settings["no_rope_layers"]) < count:
        return "it does not say of each layer whether it has positions"
    for rope in _ropes(name, settings):
        if rope.get("rope_type") not in STATIC:
            return f"its rotary positions are of the kind {rope.get('rope_type')}"
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            return "only parts of its heads are turned"
    return None


def _ropes(name: str, settings: Settings) -> list[Settings]:
    """Return the parameters of each kind of angles."""
    ropes = settings.get("rope_parameters") or {}
    return [ropes.get(kind) or {} for kind in set(settings["layer_types"])] if name == "gemma3" else [ropes]


def _unlike_modules(model: PreTrainedModel) -> str | None:
    for path, module in model.named_modules():
        if path.endswith((*ATTENTION, *MLP)) and type(module) is not torch.nn.Linear:
            return f"{path} is a {type(module).__name__}, not a plain Linear"
    return None


def numbers_of(model: PreTrainedModel) -> Numbers:
    """Return the numbers of a model that is one of the families (`unlike` has nothing to say)."""
    settings, attention = vars(model.config), model.model.layers[0].self_attn
    name = family(model)
    assert name is not None
    gemma = name == "gemma3"
    return Numbers(
        settings["num_attention_heads"],
        settings["num_key_value_heads"],
        attention.head_dim,
        settings["rms_norm_eps"],
        attention.scaling,
        _reaches(name, settings),
        gemma,
        model.model.embed_tokens.embed_scale.to(model.model.embed_tokens.weight.dtype) if gemma else None,
    )


def _reaches(name: str, settings: Settings) -> tuple[Reach, ...]:
    count, window = settings["num_hidden_layers"], settings.get("sliding_window") or 0
    kinds = settings.get("layer_types") or [WINDOWED if name == "mistral" and window else FULL] * count
    placed = settings["no_rope_layers"] if name == "smollm3" else [1] * count
    return tuple(
        Reach((kind if name == "gemma3" else PLAIN) if turned else None, window if kind == WINDOWED else 0)
        for kind, turned in zip(kinds, placed, strict=False)
    )


def angles_by_name(model: PreTrainedModel) -> dict[str, Angles]:
    """Return the angles that the layers of a model ask for, as its own module computes them."""
    words, rotary = model.model.embed_tokens.weight.detach(), model.model.rotary_emb
    if family(model) != "gemma3":
        return {PLAIN: angles_of(rotary, words)}
    return {kind: angles_of(rotary, words, kind) for kind in sorted(set(model.config.layer_types))}
