"""Llama (arXiv 2302.13971) as Hugging Face's `LlamaForCausalLM` computes it, taken apart."""

from __future__ import annotations

from typing import Any

import torch

from fedsim.adapters.adapter import Layout
from fedsim.training.fused.attention import Attention
from fedsim.training.fused.block import Block, Swiglu
from fedsim.training.fused.decoder import Decoder, Frozen
from fedsim.training.fused.norms import RMSNorm
from fedsim.training.fused.parts import Adapters

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
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


def build(model: Any, layout: Layout) -> Decoder:
    """Take the model apart; q, k, v and gate, up are copied side by side, the rest is shared."""
    config, body = model.config, model.model
    adapters = Adapters(layout)
    heads, kv = config.num_attention_heads, config.num_key_value_heads
    blocks = []
    for i, layer in enumerate(body.layers):
        at, attention, mlp = f"model.layers.{i}", layer.self_attn, layer.mlp
        head_dim = attention.head_dim
        qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
        qkv_names = [f"{at}.{name}" for name in ATTENTION[:3]]
        gate_names = [f"{at}.{name}" for name in MLP[:2]]
        gate_up = [mlp.gate_proj, mlp.up_proj]
        blocks.append(
            Block(
                layer=i,
                norm_1=_norm(layer.input_layernorm),
                attention_in=adapters.matrix(i, list(zip(qkv_names, map(_weight, qkv), strict=True))),
                attention=Attention(i, heads, kv, head_dim, head_dim**-0.5, _biases(qkv)),
                attention_out=adapters.matrix(i, [(f"{at}.{ATTENTION[3]}", _weight(attention.o_proj))]),
                attention_bias=_biases([attention.o_proj]),
                norm_2=_norm(layer.post_attention_layernorm),
                mlp_in=adapters.matrix(i, list(zip(gate_names, map(_weight, gate_up), strict=True))),
                activation=Swiglu(_biases(gate_up)),
                mlp_out=adapters.matrix(i, [(f"{at}.{MLP[2]}", _weight(mlp.down_proj))]),
                mlp_bias=_biases([mlp.down_proj]),
            )
        )
    words, rotary = body.embed_tokens.weight.detach(), body.rotary_emb

    def rotation(length: int) -> tuple[Any, Any]:
        cos, sin = rotary(words, torch.arange(length, device=words.device)[None])
        half = cos.shape[-1] // 2
        return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()

    frozen = Frozen(words, None, rotation, _norm(body.norm), model.lm_head.weight.detach())
    return Decoder(layout, blocks, frozen)


def _weight(module: Any) -> Any:
    return module.weight.detach().t()


def _biases(modules: list[Any]) -> Any | None:
    """Return the biases side by side; None if there are none. A missing one among others is zero."""
    if all(module.bias is None for module in modules):
        return None
    return torch.cat(
        [
            module.weight.new_zeros(module.out_features) if module.bias is None else module.bias
            for module in modules
        ]
    ).detach()


def _norm(module: Any) -> RMSNorm:
    return RMSNorm(module.weight.detach(), module.variance_epsilon)
