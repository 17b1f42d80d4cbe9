"""GPT-2 (Radford et al., 2019) as Hugging Face's `GPT2LMHeadModel` computes it, taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedsim.adapters.adapter import Layout
from fedsim.training.fused.attention import Attention
from fedsim.training.fused.block import Block, Frozen, Gelu
from fedsim.training.fused.decoder import Decoder
from fedsim.training.fused.lora import Matrix
from fedsim.training.fused.norms import LayerNorm
from fedsim.training.fused.parts import Adapters, tensors_of

TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def is_gpt2(model: object) -> bool:
    """Tell whether a model is of the class `GPT2LMHeadModel` itself."""
    kind = type(model)
    return (kind.__module__, kind.__name__) == ("transformers.models.gpt2.modeling_gpt2", "GPT2LMHeadModel")


def matrices(model: Any) -> dict[str, tuple[int, int]]:
    """Return the matrices that may carry an adapter, name -> (in, out); empty if not exactly GPT-2."""
    from transformers.pytorch_utils import Conv1D

    config = model.config
    known = (
        is_gpt2(model)
        and config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        and not config.scale_attn_by_inverse_layer_idx
        and not config.reorder_and_upcast_attn
        and not config.add_cross_attention
        and model.lm_head.bias is None
    )
    if not known:
        return {}
    shapes = {}
    for i, layer in enumerate(model.transformer.h):
        for target in TARGETS:
            module = layer.get_submodule(target)
            if type(module) is not Conv1D:
                return {}
            shapes[f"transformer.h.{i}.{target}"] = tuple(module.weight.shape)
    return shapes


@dataclass(frozen=True)
class Numbers:
    """What of a configuration is in no tensor: layers, heads, numbers of a head, the scale of its queries, and epsilon."""

    layers: int
    heads: int
    head_dim: int
    scale: float
    eps: float


def build(model: Any, layout: Layout) -> Decoder:
    """Take the model apart; its tensors are shared, the model itself is not kept."""
    config = model.config
    head_dim = config.hidden_size // config.num_attention_heads
    numbers = Numbers(
        config.num_hidden_layers,
        config.num_attention_heads,
        head_dim,
        head_dim**-0.5 if config.scale_attn_weights else 1.0,
        config.layer_norm_epsilon,
    )
    return assembled(tensors_of(model), numbers, layout)


def assembled(tensors: Mapping[str, Tensor], numbers: Numbers, layout: Layout) -> Decoder:
    """Put a decoder together of a model's tensors, by their names in `GPT2LMHeadModel`; they are shared."""
    adapters = Adapters(layout)
    heads = numbers.heads

    def norm(name: str) -> LayerNorm:
        return LayerNorm(tensors[f"{name}.weight"], tensors[f"{name}.bias"], numbers.eps)

    def matrix(layer: int, name: str) -> Matrix:
        return adapters.matrix(layer, [(name, tensors[f"{name}.weight"])])

    blocks = []
    for i in range(numbers.layers):
        at = f"transformer.h.{i}"
        bias = {target: tensors[f"{at}.{target}.bias"] for target in TARGETS}
        blocks.append(
            Block(
                layer=i,
                norm_1=norm(f"{at}.ln_1"),
                attention_in=matrix(i, f"{at}.attn.c_attn"),
                attention=Attention(i, heads, heads, numbers.head_dim, numbers.scale, bias["attn.c_attn"]),
                attention_out=matrix(i, f"{at}.attn.c_proj"),
                attention_bias=bias["attn.c_proj"],
                norm_2=norm(f"{at}.ln_2"),
                mlp_in=matrix(i, f"{at}.mlp.c_fc"),
                activation=Gelu(bias["mlp.c_fc"]),
                mlp_out=matrix(i, f"{at}.mlp.c_proj"),
                mlp_bias=bias["mlp.c_proj"],
            )
        )
    words, places = tensors["transformer.wte.weight"], tensors["transformer.wpe.weight"]
    frozen = Frozen(words, places, {}, norm("transformer.ln_f"), tensors["lm_head.weight"])
    return Decoder(layout, blocks, frozen)
