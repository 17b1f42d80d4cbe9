"""Llama (arXiv 2302.13971) as Hugging Face's `LlamaForCausalLM` computes it, taken apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedsim.adapters.adapter import Layout
from fedsim.training.fused.attention import Attention
from fedsim.training.fused.block import Block, Swiglu
from fedsim.training.fused.decoder import Decoder, Frozen
from fedsim.training.fused.lora import Matrix
from fedsim.training.fused.norms import RMSNorm
from fedsim.training.fused.parts import Adapters, tensors_of

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
Angles = Callable[[int], tuple[Tensor, Tensor]]
"""Tokens -> cosine and sine of RoPE's angles, (1, tokens, head_dim) each."""
STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""RoPE variants whose angles depend on the position alone, not on how long a sequence is."""


def matrices(model: Any) -> dict[str, tuple[int, int]]:
    """Return the matrices that may carry an adapter, name -> (in, out); empty if not exactly Llama."""
    if not _known(model):
        return {}
    shapes = {}
    for i, layer in enumerate(model.model.layers):
        for target in (*ATTENTION, *MLP):
            module = layer.get_submodule(target)
            if type(module) is not torch.nn.Linear:
                return {}
            outputs, inputs = module.weight.shape
            shapes[f"model.layers.{i}.{target}"] = (inputs, outputs)
    return shapes


def _known(model: Any) -> bool:
    from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM

    config = model.config
    same = type(model) in (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM)
    if not same or config.hidden_act != "silu" or model.lm_head.bias is not None:
        return False
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) is not None or kinds != {"full_attention"}
    rope = getattr(config, "rope_parameters", None) or {}
    return not windowed and rope.get("rope_type") in STATIC_ROPE


@dataclass(frozen=True)
class Numbers:
    """What of a configuration is in no tensor: layers, heads of queries, of keys and values, numbers of a head, epsilon."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float


def build(model: Any, layout: Layout) -> Decoder:
    """Take the model apart; q, k, v and gate, up are copied side by side, the rest is shared."""
    config, body = model.config, model.model
    head_dim = body.layers[0].self_attn.head_dim
    numbers = Numbers(
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        head_dim,
        config.rms_norm_eps,
    )
    words, rotary = body.embed_tokens.weight.detach(), body.rotary_emb

    def angles(length: int) -> tuple[Tensor, Tensor]:
        cos, sin = rotary(words, torch.arange(length, device=words.device)[None])
        return cos, sin

    return assembled(tensors_of(model), numbers, angles, layout)


def plain_angles(words: Tensor, head_dim: int, theta: float) -> Angles:
    """Return RoPE's `default` angles (arXiv 2104.09864), as `LlamaRotaryEmbedding` computes them, to the bit.

    Args:
        words: the embedding, of whose device and dtype they are.
        head_dim: numbers of a head.
        theta: the base.
    """
    steps = torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim
    frequencies = (1.0 / (theta**steps)).to(words.device)

    def angles(length: int) -> tuple[Tensor, Tensor]:
        places = torch.arange(length, device=words.device)[None, :, None].float()
        half = places * frequencies
        whole = torch.cat((half, half), dim=-1)
        return whole.cos().to(words.dtype), whole.sin().to(words.dtype)

    return angles


def assembled(tensors: Mapping[str, Tensor], numbers: Numbers, angles: Angles, layout: Layout) -> Decoder:
    """Put a decoder together of a model's tensors, by their names in `LlamaForCausalLM`; they are shared."""
    adapters = Adapters(layout)
    heads, kv, head_dim = numbers.heads, numbers.kv_heads, numbers.head_dim

    def norm(name: str) -> RMSNorm:
        return RMSNorm(tensors[f"{name}.weight"], numbers.eps)

    def matrix(layer: int, names: Sequence[str]) -> Matrix:
        return adapters.matrix(layer, [(name, tensors[f"{name}.weight"].t()) for name in names])

    blocks = []
    for i in range(numbers.layers):
        at = f"model.layers.{i}"
        *qkv, out = (f"{at}.{name}" for name in ATTENTION)
        *gate_up, down = (f"{at}.{name}" for name in MLP)
        blocks.append(
            Block(
                layer=i,
                norm_1=norm(f"{at}.input_layernorm"),
                attention_in=matrix(i, qkv),
                attention=Attention(i, heads, kv, head_dim, head_dim**-0.5, _biases(tensors, qkv)),
                attention_out=matrix(i, [out]),
                attention_bias=_biases(tensors, [out]),
                norm_2=norm(f"{at}.post_attention_layernorm"),
                mlp_in=matrix(i, gate_up),
                activation=Swiglu(_biases(tensors, gate_up)),
                mlp_out=matrix(i, [down]),
                mlp_bias=_biases(tensors, [down]),
            )
        )

    def rotation(length: int) -> tuple[Tensor, Tensor]:
        cos, sin = angles(length)
        half = cos.shape[-1] // 2
        return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()

    words, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    return Decoder(layout, blocks, Frozen(words, None, rotation, norm("model.norm"), head))


def _biases(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Tensor | None:
    """Return the biases side by side; None if there are none. A missing one among others is zero."""
    biases = [tensors.get(f"{name}.bias") for name in names]
    if all(bias is None for bias in biases):
        return None
    weights = [tensors[f"{name}.weight"] for name in names]
    return torch.cat(
        [w.new_zeros(len(w)) if bias is None else bias for w, bias in zip(weights, biases, strict=True)]
    )
